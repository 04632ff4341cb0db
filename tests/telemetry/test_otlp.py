"""Spans as a collector gets them: real processes, the SDK, its OTLP exporter, and a receiver of the protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from sqlacache_telemetry import names
from sqlacache_telemetry.version import library_version
from tests.support.databases import SQLiteDatabases
from tests.support.otlp import Received, Receiver, otlp_receiver
from tests.support.processes import eventually
from tests.support.programs import started
from tests.support.proxy import Proxy
from tests.support.redis_server import redis_server
from tests.support.workers import Worker, workers

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

MODULE = "tests.telemetry.exporting"
DATABASE = "the database's instrumentation"


class Two:
    """Two processes of one application on one database and one Redis: ``reader`` and ``writer``."""

    def __init__(self, receiver: Receiver, proxy: Proxy, reader: Worker, writer: Worker) -> None:
        self.receiver, self.proxy, self.reader, self.writer = receiver, proxy, reader, writer
        self.key = 0
        """The user that this test reads and writes."""

    async def add_user(self) -> None:
        """Let the writer add the user that is read and written from now on."""
        values = {"email": f"{uuid4().hex}@example.com", "name": "new", "plan": "free"}
        (self.key,) = await self.writer.call("insert", model="User", values=values)

    async def get(self, worker: Worker, request: str | None = "GET", **more: Any) -> None:
        """Read the user, in a request or outside of any."""
        await self._do(worker, request, {"model": "User", "key": self.key}, "get", more)

    async def rename(self, worker: Worker, request: str | None = "PATCH", **more: Any) -> None:
        """Change the user's name to one that it never had."""
        wanted = {"model": "User", "key": self.key, "values": {"name": uuid4().hex[:8]}}
        await self._do(worker, request, wanted, "update", more)

    @staticmethod
    async def _do(
        worker: Worker, request: str | None, wanted: dict[str, Any], command: str, more: dict[str, Any]
    ) -> None:
        if request is None:
            await worker.call(command, **wanted, **more)
        else:
            await worker.call("traced", request=request, command=command, **wanted, **more)

    async def exported(self) -> Receiver:
        """Return what was received, once both have sent all there is."""
        for worker in (self.reader, self.writer):
            assert await worker.call("export")
        return self.receiver


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(sqlite_databases: SQLiteDatabases) -> AsyncIterator[Two]:
    async with AsyncExitStack() as stack:
        receiver = stack.enter_context(otlp_receiver())
        proxy = stack.enter_context(Proxy(started(stack, redis_server()).address))
        url = await stack.enter_async_context(sqlite_databases.fresh())
        options = {
            "backend": {"url": proxy.url, "timeout": 2},
            "prefix": "otlp",
            "name": "shop",
            "telemetry": True,
        }
        made = []
        for service in ("reader", "writer"):
            environment = {
                "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
                "OTEL_EXPORTER_OTLP_TIMEOUT": "2",
                "OTEL_SERVICE_NAME": service,
            }
            one = workers(1, url, environment=environment, module=MODULE, **options)
            made += await stack.enter_async_context(one)
        yield Two(receiver, proxy, *made)


@pytest_asyncio.fixture(loop_scope="module")
async def two(both: Two) -> Two:
    """Both, with a user that nobody has read yet, and with nothing received."""
    await both.add_user()
    (await both.exported()).received.clear()
    return both


def attributes(span: Received, *wanted: str) -> tuple[Any, ...]:
    return tuple(span.attributes.get(name) for name in wanted)


DECIDED = ("sqlacache.op", "sqlacache.decision", "sqlacache.reason", "sqlacache.tier", "sqlacache.fill")


async def test_reads_are_spans_in_their_request_and_the_databases_are_in_the_misses(two: Two) -> None:
    await two.get(two.reader)
    await two.get(two.reader)
    await two.add_user()
    await two.get(two.reader, None)
    seen = await two.exported()
    first, second = seen.spans("GET")
    (miss,), (hit,) = seen.children(first), seen.children(second)
    (root,) = [span for span in seen.spans("sqlacache.lookup") if seen.parent(span) is None]
    assert [span.name for span in (miss, hit, root)] == ["sqlacache.lookup SELECT users"] * 3
    assert attributes(miss, *DECIDED) == ("get", "miss", "absent", None, "stored")
    assert attributes(hit, *DECIDED) == ("get", "hit", None, "local", None)
    assert attributes(root, *DECIDED) == ("get", "miss", "absent", None, "stored")
    assert [(span.name, span.kind, span.scope[0]) for span in seen.children(miss)] == [
        ("SELECT", "CLIENT", DATABASE)
    ]
    assert seen.children(hit) == []
    (select,) = seen.children(miss)
    assert first.start <= miss.start <= select.start <= select.end <= miss.end <= first.end
    assert second.start <= hit.start <= hit.end <= second.end
    assert len(seen.children(root)) == 1


async def test_a_miss_links_to_the_commit_that_caused_it_in_this_process_and_in_another_one(two: Two) -> None:
    await two.get(two.reader)
    for process in (two.reader, two.writer):
        await two.rename(two.writer)
        await two.get(process, "GET after")

    seen = await two.exported()
    writes = [
        one
        for request in seen.spans("PATCH")
        for one in seen.children(request)
        if one.scope[0] == "sqlacache"
    ]
    commits = [one for one in writes if one.name == "sqlacache.invalidate users"]
    for commit in commits:
        assert (commit.kind, commit.links) == ("INTERNAL", ())
        assert attributes(
            commit, "sqlacache.outcome", "sqlacache.causes", "sqlacache.scope", "sqlacache.rows"
        ) == (
            *("applied", ["row_update"], "rows"),
            1,
        )
    missed = [span for request in seen.spans("GET after") for span in seen.children(request)]
    assert [miss.resource["service.name"] for miss in missed] == ["reader", "writer"]
    for miss, written in zip(missed, commits, strict=True):
        assert attributes(miss, "sqlacache.decision", "sqlacache.reason") == ("miss", "row_invalidated")
        assert miss.links == (written.place,)
        assert attributes(
            miss,
            "sqlacache.cause.kind",
            "sqlacache.cause.table",
            "sqlacache.cause.keys",
            "sqlacache.cause.columns",
            "sqlacache.cause.statement",
            "sqlacache.cause.pid",
        ) == ("row_update", "users", [f"users:{two.key}"], ["name"], "UPDATE users", two.writer.pid)
        assert miss.attributes["sqlacache.cause.traceparent"].startswith(f"00-{'-'.join(written.place)}-")
        assert miss.trace_id != written.trace_id


async def test_a_commit_is_received_elsewhere_as_a_root_that_links_to_it(two: Two) -> None:
    async def heard() -> list[Received]:
        await two.rename(two.writer)
        seen = await two.exported()
        written = {(span.place,) for span in seen.spans("sqlacache.invalidate")}
        return [span for span in seen.spans("sqlacache.receive") if span.links in written]

    first, *_ = await eventually(heard, "a commit to be received")
    assert (first.kind, first.resource["service.name"], two.receiver.parent(first)) == (
        "INTERNAL",
        "reader",
        None,
    )
    assert attributes(first, "sqlacache.tables", "sqlacache.causes") == (["users"], ["row_update"])
    assert first.attributes["sqlacache.lag_s"] >= 0


async def test_a_commit_without_a_trace_is_a_trace_of_its_own_and_is_linked_all_the_same(two: Two) -> None:
    await two.get(two.reader)
    await two.rename(two.writer, None)
    await two.get(two.reader, "GET after")
    seen = await two.exported()
    (written,) = seen.spans("sqlacache.invalidate", "writer")
    assert seen.parent(written) is None
    (after,) = seen.spans("GET after")
    assert [span.links for span in seen.children(after)] == [(written.place,)]


async def test_what_is_suppressed_makes_no_span_and_leaves_no_trace_on_stamps(two: Two) -> None:
    await two.get(two.reader, suppressed=True)
    await two.rename(two.writer, suppressed=True)
    await two.get(two.reader, "GET after")
    seen = await two.exported()
    assert [span.name for span in seen.received if span.scope[0] == "sqlacache" and seen.parent(span)] == [
        "sqlacache.lookup SELECT users"
    ]
    (after,) = seen.spans("GET after")
    (miss,) = seen.children(after)
    assert miss.attributes["sqlacache.reason"] == "row_invalidated"
    assert (miss.links, miss.attributes.get("sqlacache.cause.traceparent")) == ((), None)


async def test_an_outage_that_is_handled_is_a_bypass_and_no_error(two: Two) -> None:
    await two.get(two.reader)
    two.proxy.cut()
    await two.get(two.reader, "GET in the dark")
    await two.rename(two.reader, "PATCH in the dark")
    await two.get(two.reader, "GET in the dark")
    two.proxy.heal()
    seen = await two.exported()

    async def well() -> bool:
        return (await two.reader.call("health"))["status"] == "ok"

    await eventually(well, "the reader to be well again")
    dark = [span for request in seen.spans("GET in the dark") for span in seen.children(request)]
    lookups = [span for span in dark if span.scope[0] == "sqlacache"]
    assert [attributes(span, "sqlacache.decision", "sqlacache.reason") for span in lookups] == [
        ("bypass", "backend_unavailable")
    ] * 2
    assert {span.status for span in seen.received} == {"UNSET"}


async def test_every_span_is_as_the_names_module_describes_it_and_none_has_events(two: Two) -> None:
    await two.get(two.reader)
    await two.rename(two.writer)
    await two.get(two.reader)
    await two.get(two.reader)
    await two.reader.call("list", model="User", where={"plan": "free"})
    await two.writer.call("bulk_update", model="User", values={"plan": "free"}, where={"plan": "pro"})
    await two.reader.call("list", model="User", where={"plan": "free"})
    seen = await two.exported()
    ours = [span for span in seen.received if span.scope[0] == names.SCOPE]
    assert {span.name.split()[0] for span in ours} >= {"sqlacache.lookup", "sqlacache.invalidate"}
    types = {"string": str, "int": int, "double": float, "boolean": bool, "string[]": list}
    for span in ours:
        assert (span.kind, span.events, span.status) == ("INTERNAL", (), "UNSET")
        assert span.scope == (names.SCOPE, library_version())
        assert span.schema_url == names.SCHEMA_URL
        described = {
            one.name: types[one.type]
            for one in names.ATTRIBUTES
            if span.name.split()[0] in [s.name for s in one.spans]
        }
        assert {name: type(value) for name, value in span.attributes.items()} == {
            name: described.get(name) for name in span.attributes
        }
