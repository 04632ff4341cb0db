"""Configuration that cannot be: a ConfigError that names the key, never another exception, and never something else."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from inspect import signature
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sqlacache import configure_sync
from sqlacache.backend import check_backend
from sqlacache.config import Settings, settings
from sqlacache.errors import ConfigError
from tests.fuzz.payloads import examples
from tests.support.models import Team, User

DEFAULTS = {
    "backend": "mem://",
    "models": None,
    "prefix": "sqlacache",
    "default_timeout": 3600,
    "serializer": "sqlalchemy",
    "name": None,
    "mode": "on",
    "vary": None,
    "jitter": 0.0,
    "functions": (),
    "depends_on": None,
    "writes_also": None,
    "isolation": "strict",
    "old_values": "read",
    "max_entry_bytes": 1 << 20,
    "max_bytes": None,
    "lease": 30,
    "local": "default",
    "on_error": "bypass",
    "observers": (),
    "history": None,
    "verify": 0.0,
    "debug": False,
    "expose_values": False,
    "digest_key": None,
}


class Odd:
    """An object that answers nothing as it should."""

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]  # meant: it cannot be looked up


_WORDS = """
on off write_only shadow strict relaxed read widen bypass raise default validated pushed sqlalchemy pickle * users
mem:// redis:// redis://h redis://:hunter2@h/0 rediss://h:1/2 unix:///s redis://h:port redis://[ redis://h?timeout=x
redis://h?timeout=-1 redis://h?cluster=maybe redis://h?x=y redis://h?db=1&cluster=true redis://h/zero http://h h : //
mem://?max_bytes=-1 mem://?max_bytes=x redis://h?max_connections=0 redis://h?timeout=1e400 redis://h?timeout=nan
redis://h?nodes=a redis://h?nodes=a:b redis://a:1,b:2 redis://h?bound=0 tests.support.models.User tests.support.nobody
tests.support.models no.such.module.Thing . .. a. .a get fetch count exists url timeout ops exclude id name
"""
_OPTIONS = """
url timeout max_bytes max_connections cluster nodes sentinel username password bound ssl_ca_certs socket_keepalive
client_name health_check_interval nonsense
"""
_PIECES = "redis :// @ : / ? & = h 1 timeout nodes [ ] % # cluster true ssl_ , 99999 x"
WORDS = _WORDS.split()
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 1, 3600, 2**31, 2**63, 2**70, 10**400, 1e-320, 1e9, 1e308, -0.0]),
    st.floats(),
    st.integers(),
    st.sampled_from(["", *WORDS]),
    st.text(max_size=8),
    st.binary(max_size=4),
    st.sampled_from([User, Team, Odd, int, str]),
    st.builds(Odd),
    st.builds(object),
    st.just(lambda session: 1),
    st.timedeltas(),
    st.dates(),
    st.complex_numbers(),
    st.sampled_from([User.id, User.name]),
)
KEYS = st.one_of(
    st.sampled_from(WORDS), st.sampled_from([User, Team, int, None, 1, ("a", "b")]), st.text(max_size=4)
)
GARBAGE = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(KEYS, inner, max_size=3),
        st.frozensets(st.one_of(st.text(max_size=3), st.integers()), max_size=2),
    ),
    max_leaves=5,
)


@pytest.fixture(autouse=True)
def _without_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SQLACACHE_BACKEND", "SQLACACHE_MODE", "SQLACACHE_DIGEST_KEY"):
        monkeypatch.delenv(name, raising=False)


def checked(given: Mapping[str, Any]) -> Settings | None:
    """Return settings, or ``None`` for a ConfigError that says in a few words what it is about."""
    try:
        return settings(**{**DEFAULTS, **given})  # type: ignore[arg-type]  # that is the point
    except ConfigError as error:
        text = str(error)
    assert 5 < len(text) < 2000, text
    assert "hunter2" not in text or type(given.get("backend")) is not str, text
    assert any(key in text for key in given), f"{text!r} names none of {set(given)}"
    return None


def test_every_argument_is_here() -> None:
    assert set(signature(settings).parameters) == set(DEFAULTS)
    assert checked({}) is not None


@pytest.mark.parametrize("key", DEFAULTS)
def test_one_argument(key: str) -> None:
    @examples(40)
    @given(GARBAGE)
    def run(value: Any) -> None:
        found = checked({key: value})
        if found is not None:
            assert 0 < found.default_timeout < 1e10 and 0 < found.lease < 1e10 and found.stamp_ttl > 0
            assert found.jittered(1.0) >= 0 and found.prefix and found.backend.url

    run()


@examples(120)
@given(
    st.dictionaries(
        st.one_of(st.sampled_from([User, Team, "*", "tests.support.models.User"]), KEYS),
        st.one_of(
            GARBAGE,
            st.fixed_dictionaries({}, optional={"ops": GARBAGE, "timeout": SCALARS, "exclude": GARBAGE}),
        ),
        min_size=1,
        max_size=3,
    )
)
@example({User: {"timeout": dt.timedelta.max}})
@example({User: {"timeout": 10**400}})
@example({User: {"exclude": [Odd()]}})
@example({User: {"ops": [[]]}})
def test_models(models: Any) -> None:
    checked({"models": models})


@examples(120)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "url",
                "timeout",
                "max_bytes",
                "max_connections",
                "cluster",
                "nodes",
                "sentinel",
                "username",
                "password",
                "bound",
                "ssl_ca_certs",
                "socket_keepalive",
                "client_name",
                "health_check_interval",
                "nonsense",
            ]
        ),
        GARBAGE,
        max_size=4,
    ),
    st.sampled_from(["mem://", "redis://h", "redis://h?cluster=true", "rediss://h", None]),
    st.sampled_from(["default", None, "validated", "pushed", "nonsense"]),
)
def test_backends(given: dict[str, Any], url: str | None, local: str | None) -> None:
    checked({"backend": given if url is None else {**given, "url": url}, "local": local})


@examples(120)
@given(
    st.one_of(
        st.sampled_from(WORDS),
        st.text(max_size=30).map(lambda text: f"redis://{text}"),
        st.lists(
            st.sampled_from(
                [
                    "redis",
                    "://",
                    "@",
                    ":",
                    "/",
                    "?",
                    "&",
                    "=",
                    "h",
                    "1",
                    "timeout",
                    "nodes",
                    "[",
                    "]",
                    "%",
                    "#",
                    "cluster",
                    "true",
                    "ssl_",
                    ",",
                    "99999",
                    "x",
                ]
            ),
            max_size=9,
        ).map("".join),
    )
)
def test_urls(url: str) -> None:
    try:
        check_backend("backend", url, "default")
    except ConfigError as error:
        text = str(error)
    else:
        return
    assert "backend" in text


_TEXTS = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20)


@pytest.mark.parametrize("variable", ["SQLACACHE_MODE", "SQLACACHE_BACKEND", "SQLACACHE_DIGEST_KEY"])
def test_variables_of_the_environment(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    @examples(30)
    @given(
        st.one_of(
            st.sampled_from(WORDS),
            st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20),
        )
    )
    def run(value: str) -> None:
        monkeypatch.setenv(variable, value)
        try:
            settings(**DEFAULTS)  # type: ignore[arg-type]  # untyped values
        except ConfigError as error:
            text = str(error)
        else:
            return
        assert variable in text

    run()


@pytest.mark.parametrize(
    "given",
    [{"telemetry": 5}, {"telemetry": "yes"}, {"nonsense": 1}, {"models": User}, {"backend": "redis"}],
    ids=str,
)
def test_what_configure_is_given(given: dict[str, Any]) -> None:
    with pytest.raises((ConfigError, TypeError), match=next(iter(given))):
        configure_sync(**given)
