"""The parts of many requests, several processes and latency run, and report everybody. Figures are not tested here."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
import sqlalchemy

if sqlalchemy.__version__.startswith("1."):
    pytest.skip(
        "the benchmark gives options to AsyncSession.get(), which 1.4 does not take", allow_module_level=True
    )

from sqlalchemy import update
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks import latency, load, load_contenders, processes
from benchmarks.contender import EVERYTHING, Unfair
from benchmarks.contenders import NO_CACHE, PUSHED, VALIDATED
from benchmarks.latency_proxy import latency_proxy
from benchmarks.load_contenders import Ceiling, Crowded, Decorated
from benchmarks.load_requests import ALONE, COMMITS, MIX, POPULAR, SHARES, reads_of, schedule
from benchmarks.measure import fresh_database
from benchmarks.models import Customer, Setting, create_and_fill
from benchmarks.parts import Module, Part, Place

from .conftest import whole

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning"),  # cashews' of redis-py
]


def quick(part: Module, place: Place) -> Part:
    """Run a part in its smallest form; what any part must keep to is asserted here."""
    shown: list[str] = []
    found = part.run(place, rounds=None, quick=True, progress=shown.append)
    assert (found.name, found.title) == (part.NAME, part.TITLE)
    assert shown
    assert all(len(line) <= 160 for line in found.lines)
    json.dumps(found.data, allow_nan=False)
    assert len({goal.name for goal in found.goals}) == len(found.goals) > 0
    assert all(goal.found.median > 0 for goal in found.goals)
    names = [chart.name for chart in found.charts]
    assert len(set(names)) == len(names) > 0
    assert all(points for chart in found.charts for points in chart.series.values())
    return found


@pytest.mark.timeout(300)
def test_many_requests_at_a_time_give_everybody_a_figure(place: Place) -> None:
    found = quick(load, place)
    runners = load_contenders.contenders()
    for work in load.QUICK:
        for many in load.CONCURRENT:
            runs = found.data["samples"][work][many]
            assert list(runs) == [one.name for one in runners]
            for (sample,) in runs.values():
                assert sample["per_second"] > 0
                assert 0 < sample["p50"] <= sample["p95"] <= sample["p99"]
    assert found.data["mix checked"] > 0
    assert all(one.name in "\n".join(found.lines) for one in runners)
    assert [one["commands"] for one in found.data["round trips"][VALIDATED]] == [1.0, 1.0]


@whole
@pytest.mark.timeout(300)
def test_processes_give_everybody_a_figure(place: Place) -> None:
    found = quick(processes, place)
    for work in processes.QUICK:
        runs = found.data["samples"][work][latency.FAR]
        assert {NO_CACHE, VALIDATED, PUSHED} < set(runs)
        assert all(sample["reads"] > 0 for (sample,) in runs.values())
    assert found.data["mix checked"] > 0


@whole
@pytest.mark.timeout(300)
def test_latency_gives_everybody_a_figure_at_every_distance(place: Place) -> None:
    found = quick(latency, place)
    for work in latency.QUICK:
        for where in (latency.NEAR, latency.FAR, latency.BOTH):
            for name in (VALIDATED, PUSHED):
                (seconds,) = found.data["samples"][work][f"{name} at {where}"]
                assert seconds > 0
    assert set(found.data["round trips"]["before"]) == {"postgres", "redis"}


# -- what they rest on -----------------------------------------------------------------------------------------------


def test_the_proxy_holds_answers_back_and_passes_all_of_them_on_in_order() -> None:
    sent = b"".join(number.to_bytes(4, "big") for number in range(200_000))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2)
        writer.write(sent)
        await writer.drain()
        writer.close()

    async def ask(port: int) -> tuple[bytes, float]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        began = time.monotonic()
        writer.write(b"go")
        first = await reader.read(4)
        took = time.monotonic() - began
        got = first + await reader.readexactly(len(sent) - len(first))
        writer.close()
        return got, took

    async def both() -> None:
        listening = await asyncio.start_server(answer, "127.0.0.1", 0)
        loop = asyncio.get_running_loop()
        with latency_proxy(listening.sockets[0].getsockname()) as proxy:
            assert (await ask(proxy.port))[0] == sent
            await loop.run_in_executor(None, proxy.delay, 0.05)
            got, took = await ask(proxy.port)
            assert got == sent
            assert took >= 0.05  # not earlier; how much later is nobody's promise
            assert proxy.cpu() > 0
        listening.close()

    asyncio.run(both())


def test_the_mix_is_the_same_for_everybody_and_one_request_in_twenty_commits() -> None:
    assert sum(SHARES.values()) == pytest.approx(1)
    assert sum(SHARES[kind] for kind in COMMITS) == pytest.approx(0.05)
    asked = schedule(1)
    schedule.cache_clear()
    assert schedule(1) == asked != schedule(2)
    assert {one.kind for one in asked} == set(SHARES)
    reads = set(reads_of(MIX))
    assert all(one in reads or one.kind in COMMITS for one in asked)
    assert all(1 <= one.subject <= POPULAR for one in asked)


def test_who_asks_the_database_or_says_what_was_is_found_out(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_contenders, "PATIENCE", 0.0)
    get = ALONE["get"]

    async def look() -> None:
        async with fresh_database(postgres_url) as url:
            engine = create_async_engine(url)
            async with engine.begin() as connection:
                await connection.run_sync(create_and_fill, 20)
            bypasses = Crowded(
                "bypasses", "", models={Setting: {"timeout": 60}}, expects="hit, local", pool=2
            )
            loads = Decorated("loads", "", expects="hit", pool=2)
            caches = Crowded("caches", "", models=EVERYTHING, expects="hit, local", pool=2)
            for one in (bypasses, loads, caches):
                one.open(url, "")
            async with bypasses.turn():
                with pytest.raises(Unfair, match="'bypass, not_configured': 10"):
                    await bypasses.warm_up(get)
            async with loads.turn():
                await loads.warm_up(get)
                async with loads.looked_at() as found:
                    await loads.answer(get[0])
                    await loads.by_hand.empty()
                    await loads.answer(get[0])
                assert dict(found) == {"hit": 1, "miss": 1}
            async with caches.turn():
                told = await caches.warm_up(get)
                assert await caches.stale(get) == 0
                async with engine.begin() as connection:  # an engine that the cache knows nothing of
                    await connection.execute(
                        update(Customer).where(Customer.id == 3).values(notes="otherwise")
                    )
                assert await caches.stale(get) == 1
                await caches.empty()
                assert await caches.stale(get) == 0
                assert await caches.warm_up(get) != told
            for one in (bypasses, loads, caches):
                await one.close()
            await engine.dispose()

    asyncio.run(look())


def test_whoever_keeps_answers_has_all_of_the_mix_when_it_begins(postgres_url: str) -> None:
    """Once only some of them were asked for beforehand, and the most that could be had was less than what we did."""
    reads = reads_of(MIX, 100)

    async def look() -> None:
        async with fresh_database(postgres_url) as url:
            engine = create_async_engine(url)
            async with engine.begin() as connection:
                await connection.run_sync(create_and_fill, 200)
            await engine.dispose()
            ceiling = Ceiling("ceiling", "", pool=2)
            ceiling.open(url, "")
            async with ceiling.turn():
                await ceiling.warm_up(reads)
                known = len(ceiling._answers)
                assert known >= len(reads)
                for each in reads:
                    await ceiling.answer(each)
                assert len(ceiling._answers) == known
            await ceiling.close()

            decorated = Decorated("decorated", "", expects="hit", pool=2)
            cached = Crowded("cached", "", models=EVERYTHING, expects="hit, local", pool=2)
            for one in (decorated, cached):
                one.open(url, "")
                async with one.turn():
                    await one.warm_up(reads)
                    async with one.looked_at() as found:
                        for each in reads:
                            await one.answer(each)
                    assert set(found) == {one.expects}
                await one.close()

    asyncio.run(look())
