"""What ``configure(backend=..., local=..., on_error=...)`` takes for Redis, and what it says about anything else."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from sqlacache import ConfigError, configure
from sqlacache.backend import Backend, Sentinel

URL = "redis://127.0.0.1:1/0"
"""Nobody answers there: configure() opens no connection."""
NO_CHECK = {"ssl_check_hostname": False}


def checked(backend: Any, **options: Any) -> Backend:
    """The backend as configure() understood it."""
    return configure(backend=backend, telemetry=None, **options).settings.backend


@pytest.mark.parametrize("url", [URL, "rediss://127.0.0.1:1", "unix:///nowhere.sock?db=1"])
def test_redis_is_configured_without_being_asked(url: str) -> None:
    backend = checked(url)
    assert (backend.local, backend.is_memory, backend.timeout, backend.bound) == (
        "validated",
        False,
        0.2,
        1.0,
    )


def test_options_are_taken_from_the_mapping() -> None:
    backend = checked(
        {"url": URL, "timeout": timedelta(milliseconds=50), "max_bytes": 1000, "bound": 2, "client_name": "x"}
    )
    assert (backend.timeout, backend.max_bytes, backend.bound) == (0.05, 1000, 2.0)
    assert backend.options == {"client_name": "x"}


def test_options_are_taken_from_the_query_of_the_url_as_well() -> None:
    backend = checked(f"{URL}?timeout=0.5&max_connections=4&bound=3&max_bytes=77&client_name=x")
    assert (backend.timeout, backend.bound, backend.max_bytes) == (0.5, 3.0, 77)
    assert backend.options == {"max_connections": 4}
    assert backend.url == f"{URL}?client_name=x"


def test_max_bytes_of_configure_is_the_room_of_the_local_tier() -> None:
    assert checked(URL).max_bytes == 64 << 20
    assert checked(URL, max_bytes=5).max_bytes == 5


@pytest.mark.parametrize("local", [None, "validated", "pushed"])
def test_the_local_tier_is_chosen(local: str | None) -> None:
    assert checked(URL, local=local).local == local


def test_a_sentinel_is_named_by_service_and_nodes() -> None:
    sentinel = {"service": "mymaster", "nodes": [("a", 1), ["b", 2]], "password": "x"}
    assert checked({"url": "redis://", "sentinel": sentinel}).sentinel == Sentinel(
        "mymaster", (("a", 1), ("b", 2)), {"password": "x"}
    )


def test_a_sentinel_is_spoken_to_by_tls_if_anything_is_said_of_it() -> None:
    for said, options in (
        ({}, {}),
        ({"ssl": False}, {}),
        ({"ssl": True}, {"ssl": True, "ssl_check_hostname": True}),
        (NO_CHECK, {"ssl": True, **NO_CHECK}),
    ):
        sentinel = {"service": "mymaster", "nodes": [("a", 1)], **said}
        given = checked({"url": "rediss://", "sentinel": sentinel}).sentinel
        assert given is not None
        assert given.options == options


def test_the_name_in_a_certificate_is_looked_at_unless_it_is_said_otherwise() -> None:
    assert checked("redis://h").options == {}
    assert checked("rediss://h").options == {"ssl_check_hostname": True}
    for unchecked in ("rediss://h?ssl_cert_reqs=none", "rediss://h?ssl_check_hostname=false"):
        assert checked(unchecked).options == {}
    assert checked({"url": "rediss://h", **NO_CHECK}).options == NO_CHECK


def test_a_cluster_has_further_nodes_to_begin_with() -> None:
    nodes = (("b", 2), ("::1", 3))
    assert checked({"url": "redis://a", "cluster": True, "nodes": [("b", 2), ["::1", 3]]}).nodes == nodes
    assert checked("redis://a?cluster=true&nodes=b:2,[::1]:3").nodes == nodes
    assert checked("redis://a?cluster=true").nodes == ()


WRONG = [
    ({"url": URL, "timeouts": 1}, {}, r"backend\['timeouts'\]: not known; a backend takes url, "),
    ({"url": URL, "timeout": 0}, {}, r"backend\['timeout'\]: takes seconds above 0 .*, got 0"),
    ({"url": URL, "timeout": "1"}, {}, r"backend\['timeout'\]: takes seconds above 0 .*, got '1'"),
    ({"url": URL, "max_connections": 0}, {}, r"takes a number of connections above 0, got 0"),
    ({"url": URL, "cluster": "yes"}, {}, r"backend\['cluster'\]: takes True or False, got 'yes'"),
    ({"url": URL, "sentinel": {"service": "m"}}, {}, r"backend\['sentinel'\]: takes \{'service': name"),
    ({"url": URL, "sentinel": {"service": "m", "nodes": "host:1"}}, {}, r"'nodes': \[\(host, port\), ...\]"),
    (
        {"url": "redis://h", "cluster": True, "sentinel": {"service": "m", "nodes": [("a", 1)]}},
        {},
        "takes 'cluster' or 'sentinel', got both",
    ),
    ({"url": "redis://h", "cluster": True}, {"local": "pushed"}, "local: 'pushed' needs one server"),
    ({"url": "redis://h/3", "cluster": True}, {}, "got a database other than 0"),
    (URL, {"local": "remote"}, "local: takes None or 'validated' or 'pushed', got 'remote'"),
    ("mem://", {"local": "pushed"}, "local: mem:// is all local; takes None with it, got 'pushed'"),
    (URL, {"on_error": "ignore"}, "on_error: takes 'bypass' or 'raise', got 'ignore'"),
    (f"{URL}?timeout=soon", {}, "timeout='soon' in the query of .* cannot be read"),
    (f"{URL}?cluster=maybe", {}, "cluster='maybe' in the query of .* cannot be read"),
    (f"{URL}?decode=1", {}, "'decode' in the query of .* is not known; takes timeout, bound"),
    ({"url": f"{URL}?timeout=1", "timeout": 1}, {}, "takes one, got another in the query"),
    ("redis://host:port/0", {}, "cannot be read"),
    ({"url": "redis://h", "nodes": [("a", 1)]}, {}, r"takes 'cluster': True with it"),
    (
        {"url": "redis://h", "cluster": True, "nodes": ["a:1"]},
        {},
        r"backend\['nodes'\]: takes \[\(host, port\), ...\]",
    ),
    ("redis://h?cluster=true&nodes=a", {}, "nodes='a' in the query of .* cannot be read"),
    (
        {"url": URL, **NO_CHECK},
        {},
        r"backend\['ssl_check_hostname'\]: there is no TLS; takes a URL with rediss://",
    ),
    (
        {"url": "rediss://h", "ssl_cacerts": "x"},
        {},
        r"backend\['ssl_cacerts'\]: not known; of TLS, takes .*ssl_ca_certs",
    ),
    ({"url": "rediss://h", "ssl_ca_certs": "/nowhere.pem"}, {}, r"\['ssl_ca_certs'\]: .*'/nowhere.pem'"),
    ("rediss://h?ssl_keyfile=/nowhere.key", {}, r"\['ssl_keyfile'\]: .*'/nowhere.key'"),
    ({"url": "rediss://h", "ssl_ca_certs": __file__}, {}, "what 'ssl_ca_certs' say cannot be used for TLS: "),
    ("rediss://h?ssl_cert_reqs=perhaps", {}, "what 'ssl_cert_reqs' say cannot be used for TLS: .*perhaps"),
    (
        {"url": "redis://", "sentinel": {"service": "m", "nodes": [("a", 1)], "ssl": False, **NO_CHECK}},
        {},
        r"\['sentinel'\]\['ssl_check_hostname'\]: there is no TLS; takes 'ssl': True with it",
    ),
]


@pytest.mark.parametrize(("backend", "options", "message"), WRONG)
def test_what_is_wrong_is_named(backend: Any, options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configure(backend=backend, telemetry=None, **options)


async def test_a_database_in_memory_needs_a_name_of_its_own() -> None:
    """Another process's may have the same one, and would be served what is in this one's."""
    from sqlalchemy.ext.asyncio import create_async_engine

    cache = configure(backend=URL, telemetry=None)
    engine = create_async_engine("sqlite+aiosqlite://")
    with pytest.raises(ConfigError, match="give it a name of its own with database="):
        await cache.bind(engine)
    await engine.dispose()


def test_a_unix_url_keeps_its_slashes() -> None:
    """A blocking client of redis-py refuses ``unix:/path``, which an asynchronous one takes."""
    assert checked("unix:///run/redis.sock?db=1&timeout=0.5").url == "unix:///run/redis.sock?db=1"
    assert checked("unix:///run/redis.sock").url == "unix:///run/redis.sock"


@pytest.mark.parametrize(
    "url",
    ["redis://:pa/ss@host", "redis://:se[cret@host", "redis://:p#w@host", "redis://host/abc"],
    ids=["slash", "bracket", "hash", "database"],
)
def test_a_url_that_cannot_be_read_is_refused_without_telling_the_password(url: str) -> None:
    with pytest.raises(
        ConfigError, match="cannot be read; takes redis://user:password@host:port/db"
    ) as refused:
        checked(url)
    assert not any(part in str(refused.value) for part in ("pa/", "'pa'", "cret", "p#w", "#w"))
    assert refused.value.__cause__ is None
