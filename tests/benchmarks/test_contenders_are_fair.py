"""Contenders do the same work and are what their names say, or there are no figures. How fast they are is not tested.

sqlacache 0.1.3 takes part if ``.venv-peer`` is there (``make .venv-peer/.installed``); ``SQLACACHE_REQUIRE_PEER=1``
fails its tests where it is not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.orm import Session

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        sqlalchemy.__version__.startswith("1."),
        reason="the benchmark gives execution options to AsyncSession.get(), which 1.4 does not take",
    ),
]

from benchmarks import fresh, peer  # noqa: E402
from benchmarks.child import Ended, Unable  # noqa: E402
from benchmarks.contenders import (  # noqa: E402
    DECORATOR,
    DECORATOR_REDIS,
    DIRECT,
    DIRECT_PUSHED,
    HIT,
    HIT_SAMPLED,
    NO_CACHE,
    PEER_MEMORY,
    PEER_NO_CACHE,
    PEER_REDIS,
    PUSHED,
    Contender,
    Sampled,
    Unfair,
    contenders,
)
from benchmarks.decorator import Decorated  # noqa: E402
from benchmarks.measure import LeftOut, Samples, measure  # noqa: E402
from benchmarks.parts import Place  # noqa: E402
from benchmarks.work import READS, WRITES, Work  # noqa: E402
from sqlacache import AsyncDirectSession  # noqa: E402

PEERS = (PEER_NO_CACHE, PEER_MEMORY, PEER_REDIS)


@pytest.fixture(autouse=True)
def fewer_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half as many as are measured: enough for every read."""
    monkeypatch.setattr("benchmarks.measure.CUSTOMERS", 1000)
    monkeypatch.setattr(fresh, "CUSTOMERS", 1000)


def named(*names: str) -> list[Contender]:
    found = {one.name: one for one in contenders()}
    return [found[name] for name in names]


async def quickly(
    place: Place, among: Sequence[Contender], works: Sequence[str], left_out: LeftOut | None = None
) -> Samples:
    chosen = [work for work in (*READS, *WRITES) if work.name in works]
    return await measure(
        place.postgres,
        1,
        quick=True,
        progress=lambda text: None,
        redis_url=place.redis,
        works=chosen,
        among=among,
        left_out=left_out,
    )


@pytest.mark.filterwarnings("ignore:Call to deprecated close")  # by cashews
async def test_functions_with_a_decorator_give_what_sessions_do_and_ask_nobody_again(place: Place) -> None:
    reads = [work.name for work in READS]
    samples = await quickly(place, named(NO_CACHE, DECORATOR, DECORATOR_REDIS), reads)
    assert all(list(runs) == [NO_CACHE, DECORATOR, DECORATOR_REDIS] for runs in samples.values())


async def test_a_function_that_reads_every_time_is_not_measured(place: Place) -> None:
    class Forgetful(Decorated):
        @asynccontextmanager
        async def turn(self) -> AsyncIterator[None]:
            async with super().turn():
                self._decorator.disable()
                yield

    forgetful = Forgetful("forgetful", "a decorator that is switched off", only=["get"])
    with pytest.raises(Unfair, match="forgetful, get: asked the database"):
        await quickly(place, [*named(NO_CACHE), forgetful], ["get"])


async def test_an_answer_that_differs_from_the_others_ends_the_run(place: Place) -> None:
    class Wrong(Contender):
        async def warm(self, work: Work) -> Any:
            found = await super().warm(work)
            found.name += "!"
            return found

    with pytest.raises(Unfair, match="wrong, get: not the answer of the others"):
        await quickly(place, [*named(NO_CACHE), Wrong("wrong", "changes what it read")], ["get"])


async def test_gets_that_take_the_long_way_are_not_measured_as_direct_ones(place: Place) -> None:
    contender, pushed = named(DIRECT, DIRECT_PUSHED)

    class Slow(AsyncDirectSession):
        sync_session_class = Session

    assert await quickly(place, [*named(NO_CACHE), contender, pushed], ["get"])
    contender.session_class = Slow
    with pytest.raises(Unfair, match=r"direct, get: not direct: \['session"):
        await quickly(place, [contender], ["get"])


async def test_every_operation_of_the_sampled_contender_has_a_span_below_the_request(place: Place) -> None:
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()

    class Watched(Sampled):
        def open(self, url: Any, redis_url: str) -> None:
            super().open(url, redis_url)
            self.provider.add_span_processor(SimpleSpanProcessor(exporter))

    (sampled,) = named(HIT_SAMPLED)
    watched = Watched(sampled.name, sampled.title, models=sampled.models, telemetry=True, expects="hit")
    await quickly(place, [*named(NO_CACHE, HIT), watched], ["get"])
    spans = exporter.get_finished_spans()
    (request,) = [span for span in spans if span.name == "request"]
    assert [span.parent for span in spans if span.parent] == [request.context]


async def test_after_a_commit_a_function_with_a_decorator_answers_as_before_and_this_library_does_not(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        fresh, "READS", [work for work in READS if work.name in ("get", "count", "join, 100")]
    )
    found = await fresh.tried(place, named(NO_CACHE, HIT, PUSHED, DECORATOR), lambda text: None)
    same = {HIT: fresh.NEW, PUSHED: fresh.NEW, DECORATOR: fresh.OLD}
    assert found == {"get": same, "count": same, "join, 100": same}


# -- sqlacache 0.1.3 ---------------------------------------------------------------------------------------------


@pytest.fixture
def there() -> None:
    if (why := peer.absent()) is not None:
        pytest.skip(why)


@pytest.mark.usefixtures("there")
async def test_0_1_3_does_the_same_work_beside_the_others(place: Place) -> None:
    works = ["get", "list of 1,000", "join, 100", "commit of 1 row"]
    left_out: LeftOut = {}
    samples = await quickly(place, named(NO_CACHE, HIT, *PEERS), works, left_out)
    assert {work: list(runs) for work, runs in samples.items()} == {
        work: [NO_CACHE, HIT, *PEERS] for work in works
    }
    assert not any(left_out.values())


@pytest.mark.usefixtures("there")
async def test_0_1_3_has_no_figures_of_what_it_does_not_cache_and_the_reason_is_told(place: Place) -> None:
    left_out: LeftOut = {}
    samples = await quickly(place, named(NO_CACHE, *PEERS), ["count", "joinedload, 100"], left_out)
    assert {work: list(runs) for work, runs in samples.items()} == {
        work: [NO_CACHE, PEER_NO_CACHE] for work in ("count", "joinedload, 100")
    }
    assert left_out["count"] == dict.fromkeys((PEER_MEMORY, PEER_REDIS), "asks the database every time")
    assert "eager loading" in left_out["joinedload, 100"][PEER_REDIS]


@pytest.mark.usefixtures("there")
async def test_0_1_3_answers_columns_as_before_a_commit_of_a_row(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ("get", "columns of 1,000", "count")
    monkeypatch.setattr(fresh, "READS", [work for work in READS if work.name in short])
    found = await fresh.tried(place, named(NO_CACHE, PEER_MEMORY), lambda text: None)
    answers = dict(zip(short, (fresh.NEW, fresh.OLD, fresh.UNCACHED)))
    assert found == {work: {PEER_MEMORY: answer} for work, answer in answers.items()}


@pytest.mark.usefixtures("there")
async def test_an_end_of_its_process_fails_the_run_and_says_what_it_said(place: Place) -> None:
    (contender,) = peer.peers()[:1]
    contender.open(sqlalchemy.make_url(place.postgres), place.redis)
    child = contender.process._child
    assert child is not None
    with pytest.raises(Unable, match="fails with TypeError"):
        await contender.process.ask("warm")
    child.kill()
    child.wait()
    with pytest.raises(Ended, match=r"0\.1\.3 ended at \('bind', 'none'\)"):
        async with contender.turn():
            pass
    await contender.close()


async def test_without_its_environment_0_1_3_is_left_out_by_name_or_fails_where_it_was_promised(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(peer, "FOLDER", tmp_path / ".venv-peer")
    monkeypatch.setattr(peer, "PYTHON", tmp_path / ".venv-peer" / "bin" / "python")
    monkeypatch.delenv(peer.REQUIRED, raising=False)
    left_out: LeftOut = {}
    samples = await quickly(place, named(NO_CACHE, *PEERS), ["get"], left_out)
    assert list(samples["get"]) == [NO_CACHE]
    assert list(left_out["get"]) == list(PEERS)
    assert all("not installed" in why and "make bench" in why for why in left_out["get"].values())
    monkeypatch.setenv(peer.REQUIRED, "1")
    with pytest.raises(Ended, match="not installed"):
        await quickly(place, named(NO_CACHE, *PEERS), ["get"])
