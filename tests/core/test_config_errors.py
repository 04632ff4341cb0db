"""What configure() says of an argument that it cannot understand: key, value (secrets masked), what it takes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import sqlacache
from sqlacache import CacheError, ConfigError, configure
from tests.support.models import User

MODELS = "tests.support.models"


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SQLACACHE_BACKEND", raising=False)
    monkeypatch.delenv("SQLACACHE_MODE", raising=False)


OPS_TAKES = ("takes", "'all'", "get", "fetch", "count", "exists")
WRONG: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "backend_other": ({"backend": "memcached://x"}, ("backend", "'mem://'", "memcached://x")),
    "backend_type": ({"backend": 5}, ("backend", "URL", "int")),
    "backend_none": ({"backend": None}, ("backend", "URL", "NoneType")),
    "backend_key": ({"backend": {"url": "mem://", "maxbytes": 1}}, ("backend['maxbytes']", "url, max_bytes")),
    "backend_without_url": ({"backend": {"max_bytes": 1}}, ("backend", "'url'", "max_bytes")),
    "backend_size": (
        {"backend": {"url": "mem://", "max_bytes": "1"}},
        ("backend['max_bytes']", "bytes above 0", "'1'"),
    ),
    "models_list": ({"models": [User]}, ("models", "mapping", "list")),
    "models_key": ({"models": {5: {}}}, ("models", "classes, dotted paths or '*'", "5")),
    "models_value": ({"models": {User: 900}}, ("models[User]", "mapping", "None", "900")),
    "models_false": ({"models": {User: False}}, ("models[User]", "mapping", "None", "False")),
    "models_option": (
        {"models": {User: {"timout": 5}}},
        ("models[User]['timout']", "not known", "ops, timeout, exclude"),
    ),
    "models_option_by_path": (
        {"models": {f"{MODELS}.User": {"op": "get"}}},
        (f"models['{MODELS}.User']['op']", "ops, timeout, exclude"),
    ),
    "ops_word": ({"models": {User: {"ops": "get"}}}, ("models[User]['ops']", *OPS_TAKES, "'get'")),
    "ops_unknown": ({"models": {User: {"ops": {"list"}}}}, ("models[User]['ops']", *OPS_TAKES, "'list'")),
    "ops_none": ({"models": {User: {"ops": None}}}, ("models[User]['ops']", *OPS_TAKES, "None")),
    "ops_all_in_a_set": ({"models": {User: {"ops": {"all"}}}}, ("models[User]['ops']", *OPS_TAKES)),
    "timeout_zero": ({"models": {User: {"timeout": 0}}}, ("models[User]['timeout']", "seconds above 0", "0")),
    "timeout_text": ({"models": {"*": {"timeout": "5m"}}}, ("models['*']['timeout']", "timedelta", "'5m'")),
    "timeout_none": ({"models": {"*": {"timeout": None}}}, ("models['*']['timeout']", "timedelta", "None")),
    "timeout_bool": ({"models": {"*": {"timeout": True}}}, ("models['*']['timeout']", "timedelta", "True")),
    "timeout_negative": (
        {"default_timeout": timedelta(seconds=-1)},
        ("default_timeout", "seconds above 0", "-1"),
    ),
    "timeout_infinite": ({"default_timeout": float("inf")}, ("default_timeout", "seconds above 0", "inf")),
    "timeout_nan": ({"default_timeout": float("nan")}, ("default_timeout", "seconds above 0", "nan")),
    "path_module": (
        {"models": {"no.such.Model": {}}},
        ("models['no.such.Model']", "cannot be imported", "no"),
    ),
    "path_class": (
        {"models": {f"{MODELS}.Usr": {}}},
        (f"models['{MODELS}.Usr']", "cannot be imported", "Usr"),
    ),
    "path_plain": ({"models": {"User": {}}}, ("models['User']", "dotted path such as", "'*'")),
    "path_odd": ({"models": {"tests.support:User": {}}}, ("models['tests.support:User']", "dotted path")),
    "path_none": ({"models": {"no.such.Model": None}}, ("models['no.such.Model']", "cannot be imported")),
    "path_no_class": (
        {"models": {f"{MODELS}.user_tags": {}}},
        (f"models['{MODELS}.user_tags']", "mapped class"),
    ),
    "prefix": ({"prefix": "a b"}, ("prefix", "letters", "'a b'")),
    "prefix_empty": ({"prefix": ""}, ("prefix", "1 to 64", "''")),
    "name": ({"name": 5}, ("name", "letters", "5")),
    "serializer": ({"serializer": "json"}, ("serializer", "sqlalchemy", "pickle", "'json'")),
    "serializer_type": ({"serializer": 5}, ("serializer", "pickle", "int")),
    "mode": ({"mode": "half"}, ("mode", "on, shadow, write_only, off", "'half'")),
    "mode_bool": ({"mode": True}, ("mode", "on, shadow, write_only, off", "True")),
    "vary": ({"vary": "tenant"}, ("vary", "function", "'tenant'")),
    "jitter": ({"jitter": 1}, ("jitter", "fraction", "1")),
    "jitter_seconds": ({"jitter": timedelta(1)}, ("jitter", "fraction", "timedelta")),
    "functions": ({"functions": "now"}, ("functions", "collection of names", "'now'")),
    "depends_on": (
        {"depends_on": {"v_sales": "orders"}},
        ("depends_on['v_sales']", "collection", "'orders'"),
    ),
    "depends_on_list": ({"depends_on": ["v_sales"]}, ("depends_on", "mapping", "v_sales")),
    "writes_also": ({"writes_also": {"orders": [5]}}, ("writes_also['orders']", "collection", "5")),
    "isolation": ({"isolation": "serializable"}, ("isolation", "'strict' or 'relaxed'", "'serializable'")),
    "old_values": ({"old_values": True}, ("old_values", "'read' or 'widen'", "True")),
    "max_entry_bytes": ({"max_entry_bytes": 0}, ("max_entry_bytes", "bytes above 0", "0")),
    "max_bytes": ({"max_bytes": 1.5}, ("max_bytes", "bytes above 0", "1.5")),
    "lease": ({"lease": 0}, ("lease", "seconds above 0", "0")),
    "observers": ({"observers": [print]}, ("observers", "sqlacache.Observer", "print")),
    "observers_class": ({"observers": [sqlacache.Observer]}, ("observers", "instances")),
    "telemetry": ({"telemetry": "otlp"}, ("telemetry", "True", "'otlp'")),
    "telemetry_key": ({"telemetry": {"metric": True}}, ("telemetry", "'metric'", "metrics")),
}


@pytest.mark.parametrize(("given", "said"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_understood_names_key_value_and_what_it_takes(
    given: dict[str, Any], said: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as caught:
        configure(**{"telemetry": None, **given})
    for part in said:
        assert part in str(caught.value)
    assert isinstance(caught.value, CacheError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:hunter2@host:port/0",
        "rediz://user:hunter2@host:6379/0",
        "rediz://:hunter2@host",
        "rediz://user:hunter2@x@host",
        "rediz://user:hun/hunter2@host",
        "redizz://host/0?password=hunter2&db=1",
    ],
)
@pytest.mark.parametrize("shape", [lambda url: url, lambda url: {"url": url}], ids=["url", "mapping"])
def test_a_password_is_never_in_a_message(url: str, shape: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        configure(backend=shape(url), telemetry=None)
    assert "hunter2" not in str(caught.value)
    assert "***" in str(caught.value)
    assert "host" in str(caught.value)


def test_a_secret_option_of_a_backend_is_not_in_a_message() -> None:
    with pytest.raises(ConfigError) as caught:
        configure(backend={"url": "mem://", "password": "hunter2"}, telemetry=None)
    assert "password" in str(caught.value)
    assert "hunter2" not in str(caught.value)
