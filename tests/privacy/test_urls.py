"""Passwords in URLs and options: wherever a URL may show, it shows without."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import Column, MetaData, Table, create_engine, func, select
from sqlalchemy.orm import Session
from sqlalchemy.types import UserDefinedType

from sqlacache import CacheError, ConfigError, configure_sync
from sqlacache.backend import masked
from sqlacache.errors import TransportError
from sqlacache.store.breaker import describe
from tests.support.redis_server import RedisServer

from .conftest import Application
from .people import Person

PASSWORD = "hunter2:/?#@ %&é"
PARTS = ("hunter2", quote(PASSWORD, safe=""), "%C3%A9")


def shows_it(text: object) -> bool:
    return any(part in str(text) for part in PARTS)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:hunter2@host:6379/0", "redis://user:***@host:6379/0"),
        ("redis://:hunter2@host", "redis://:***@host"),
        ("redis://user:hun/hunter2@host", "redis://user:***@host"),
        ("redis://us/er:hunter2@host", "redis://us/er:***@host"),
        ("redis://user:hunter2@x@host", "redis://user:***@host"),
        (f"redis://user:{quote(PASSWORD, safe='')}@host", "redis://user:***@host"),
        (f"redis://user:{PASSWORD}@host", "redis://user:***@host"),
        ("redis://user:hunter2\n@host", "redis://user:***@host"),
        ("user:hunter2@host:6379", "user:***@host:6379"),
        ("redis://host:6379/0?timeout=2", "redis://host:6379/0?timeout=2"),
        ("redis://host?password=hunter2&db=1", "redis://host?password=***&db=1"),
        ("redis://host?db=1&PassWord=hunter2", "redis://host?db=1&PassWord=***"),
        ("redis://host?%70assword=hunter2", "redis://host?%70assword=***"),
        ("rediss://host?ssl_password=hunter2#x", "rediss://host?ssl_password=***#x"),
        ("unix://user:hunter2@/run/redis.sock?db=3", "unix://user:***@/run/redis.sock?db=3"),
        ("postgresql+asyncpg://u:hunter2@db/shop?ssl=on", "postgresql+asyncpg://u:***@db/shop?ssl=on"),
        ("postgresql://db/shop?user=u&password=hunter2", "postgresql://db/shop?user=u&password=***"),
        ("mssql+pyodbc:///?odbc_connect=PWD%3Dhunter2", "mssql+pyodbc:///?odbc_connect=***"),
        ("mysql://db/x?auth_token=hunter2;pwd=hunter2", "mysql://db/x?auth_token=***;pwd=***"),
        ("Error 111 connecting to redis://u:hunter2@h:1.", "Error 111 connecting to redis://u:***@h:1."),
    ],
    ids=range(20),
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert masked(url) == shown
    assert masked(shown) == shown


BACKENDS: dict[str, Any] = {
    "port": f"redis://user:{PASSWORD}@host:port/0",
    "scheme": f"rediz://user:{quote(PASSWORD, safe='')}@host",
    "no_scheme": "user:hunter2@host:6379",
    "no_scheme_mapping": {"url": "user:hunter2@host"},
    "question_mark": "redis://user:x?hunter2=1@host",
    "question_mark_of_ours": "redis://user:x?timeout=hunter2@host",
    "query": "redis://host/0?password=hunter2&unknown=1",
    "bad_option": {"url": "redis://host/0", "passwort": "hunter2"},
    "bad_timeout": {"url": "redis://:hunter2@host/0?timeout=x"},
    "twice": {"url": "redis://:hunter2@host/0?timeout=1", "timeout": 2},
    "sentinel": {"url": "redis://host", "sentinel": {"nodes": [("h", 1)], "password": "hunter2"}},
    "sentinel_nodes": {
        "url": "redis://host",
        "sentinel": {"service": "s", "nodes": ["redis://u:hunter2@h:1"]},
    },
    "sentinel_url": {"url": "redis://host", "sentinel": "redis://u:hunter2@h:1"},
    "sentinel_key": {
        "url": "redis://host",
        "sentinel": {"service": "s", "nodes": [("h", 1)], "password": "hunter2", "x": 1},
    },
    "nodes": {"url": "redis://host", "cluster": True, "nodes": ["redis://u:hunter2@h:1"]},
    "nodes_in_the_query": "redis://host?cluster=true&nodes=u:hunter2@h",
    "tls": {"url": "redis://:hunter2@host", "ssl_password": "hunter2", "ssl_keyfile": "/nowhere"},
    "cluster_db": {"url": "redis://:hunter2@host/3", "cluster": True},
}


@pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS)
def test_no_message_of_configure_shows_a_password(backend: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        configure_sync(backend=backend, telemetry=None)
    assert not shows_it(caught.value), str(caught.value)


def test_settings_can_be_printed() -> None:
    backend = {
        "url": f"redis://:{quote(PASSWORD, safe='')}@host",
        "password": "hunter2",
        "sentinel": {"service": "s", "nodes": [("h", 1)], "password": "hunter2"},
    }
    cache = configure_sync(backend=backend, telemetry=None, digest_key="hunter2-hunter2-hunter2")
    assert not shows_it(f"{cache!r} {cache.settings!r} {cache.settings.backend!r} {cache.backend!r}")


def test_an_outage_is_told_without_the_password(
    start: Callable[..., Application], caplog: pytest.LogCaptureFixture, cli: Any
) -> None:
    caplog.set_level(logging.DEBUG, "sqlacache")
    url = f"redis://user:{quote(PASSWORD, safe='')}@127.0.0.1:1/0"
    one = start(backend=url)
    with one.cache.record() as seen:
        one.get(Person, "ann@example.com")
    with one.session() as session:
        told = one.cache.explain_get(session, Person, "ann@example.com")
    health = one.cache.health()
    assert seen.decisions[0].reason == "backend_unavailable"
    assert health.status == "degraded"
    texts = [*seen.decisions, told, json.dumps(told.to_dict()), *health.reasons]
    texts += [f"{record.getMessage()} {record.__dict__}" for record in caplog.records]
    with pytest.raises(TransportError) as caught:
        one.cache.invalidate(Person)
    texts.append(caught.value)
    for command in (["stats"], ["health", "--json"], ["touched", "people"], ["tail"]):
        status, said = cli(*command, url=url)
        assert status == 2
        texts.append(said)
    assert caplog.records
    assert not shows_it(texts)


def test_an_error_that_quotes_a_url_is_told_without_the_password() -> None:
    error = ConnectionError("cannot connect to rediss://user:hunter2@host:6379/0")
    assert describe(error) == "ConnectionError: cannot connect to rediss://user:***@host:6379/0"
    assert describe(ValueError("at @user_script: 5: x@y")) == "ValueError: at @user_script: 5: x@y"


@pytest.mark.integration
def test_a_wrong_password_is_not_told(
    start: Callable[..., Application], server: RedisServer, caplog: pytest.LogCaptureFixture, cli: Any
) -> None:
    url = server.url.replace("://", f"://user:{quote(PASSWORD, safe='')}@")
    one = start(backend=url)
    one.get(Person, "ann@example.com")
    texts = [one.cache.health().reasons, caplog.text, cli("stats", url=url)[1]]
    assert "***" in texts[2]
    assert not shows_it(texts)


def test_a_database_is_named_without_its_password(start: Callable[..., Application]) -> None:
    application = start()
    for url in (
        "u:hunter2@host/people",
        "u@host/people?password=hunter2",
        "u@host/people?sslpassword=hunter2",
    ):
        engine = create_engine(f"postgresql+psycopg2://{url}", future=True)  # which nobody connects
        with Session(engine, future=True) as session:
            told = application.cache.explain(session, Person.__table__.select())
        assert re.search(r"no cache is bound to postgresql.*\*\*\*", str(told)), str(told)
        assert not shows_it([told, told.to_dict()])
        with pytest.raises(ConfigError) as caught:
            application.cache.bind(engine, database="people")
        assert "***" in str(caught.value) and not shows_it(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ["stats", "--url", "redis://user:hunter2@host:port/0"],
        ["stats", "--url", "postgres://user:hunter2@host"],
        ["stats", "--url", "user:hunter2@host"],
        ["health", "--url", "redis://user:hun#hunter2@127.0.0.1:1"],
        ["stats", "--sentinel", "redis://u:hunter2@h:1", "--service", "x"],
        ["top", "--metrics", "http://user:hunter2@127.0.0.1:1/metrics"],
        ["top", "--metrics", "ftp://user:hunter2@127.0.0.1:1/metrics"],
        ["touched", "people", "--pks", "1", "--digest-key", "hunter2"],
    ],
    ids=["port", "scheme", "no_scheme", "fragment", "sentinel", "metrics", "metrics_scheme", "digest_key"],
)
def test_no_message_of_the_command_line_shows_a_password(arguments: list[str], cli: Any) -> None:
    status, said = cli(*arguments, url="")
    assert status == 2 and said.startswith("sqlacache: ")
    assert not shows_it(said), said


def test_errors_name_no_values(start: Callable[..., Application]) -> None:
    application = start()
    for wrong in (
        lambda: application.cache.invalidate(Person, pks="hunter2"),
        lambda: application.cache.invalidate(Person, pks=[("hunter2", "hunter2")]),
        lambda: application.cache.touched("tickets", pks=["hunter2"]),
    ):
        with pytest.raises(CacheError) as caught:
            wrong()
        assert not shows_it(caught.value)


class Sealed(UserDefinedType):  # type: ignore[type-arg]  # no generic in SQLAlchemy 1.4
    """A type that the database opens with a key, which its repr shows."""

    cache_ok = True

    def __init__(self, key: str) -> None:
        self.key = key

    def get_col_spec(self, **options: Any) -> str:
        return "TEXT"

    def column_expression(self, column: Any) -> Any:
        return func.lower(column)


def test_the_key_of_an_encrypting_type_is_not_told(start: Callable[..., Application]) -> None:
    sealed = Table("people", MetaData(), Column("nick", Sealed("hunter2")))
    application = start()
    with application.session() as session:
        asked = select(sealed.c.nick).execution_options(sqlacache_force=True)
        told = application.cache.explain(session, asked)
    assert "Sealed" in str(told)
    assert not shows_it([told, told.to_dict()])
