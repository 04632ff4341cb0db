"""The mode switched for every process at once: no restart, and no stale read around the switch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack

import pytest
import pytest_asyncio

from sqlacache import CacheError
from tests.support.fleet import LOCAL, READS, Load, caught_up, reading, settled, user
from tests.support.models import User
from tests.support.processes import eventually
from tests.support.reading import Reader
from tests.support.workers import Worker
from tests.support.writes import change

pytestmark = pytest.mark.integration

Start = Callable[..., AbstractAsyncContextManager[list[Worker]]]


@pytest_asyncio.fixture
async def readers(file: str, redis_url: str, prefix: str) -> AsyncIterator[list[Reader]]:
    backend = {"url": redis_url, "timeout": 2, "bound": 0.4}
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                reading(file, backend, prefix=prefix, local=local, name=str(local))
            )
            for local in LOCAL
        ]


async def test_another_process_switches_all_off_and_on(
    file: str, readers: list[Reader], redis_url: str, prefix: str, start_workers: Start
) -> None:
    async with start_workers(1, file, backend={"url": redis_url, "timeout": 2}, prefix=prefix) as [worker]:
        for reader in readers:
            await settled(reader, *READS)
        for mode in ("off", "write_only"):
            await worker.call("set_mode", mode=mode, fleet=True, ttl=3600)
            for reader in readers:
                await caught_up(reader)
                await reader.bypass(user(1), "disabled")
                health = await reader.cache.health()
                assert (health.status, health.ready) == ("degraded", True)
                assert mode in health.reasons[0]
                assert reader.cache.mode == "on"
            # Whoever writes goes on invalidating.
            await change(User, 1, name=f"while {mode}")(readers[0].database)
            await worker.call("set_mode", mode="on", fleet=True)
            for reader in readers:
                await caught_up(reader)
                for read in READS:
                    await reader.current(read)
                await settled(reader, *READS)
                assert (await reader.cache.health()).status == "ok"


async def test_a_switch_with_a_ttl_ends_by_itself(readers: list[Reader]) -> None:
    for reader in readers:
        await settled(reader, user(1), user(2))
    await readers[0].cache.set_mode("write_only", fleet=True, ttl=0.5)
    for reader in readers:
        await caught_up(reader)
    await change(User, 1, name="meanwhile")(readers[0].database)
    for reader in readers:
        await settled(reader, user(1), user(2))


async def test_switching_under_load_takes_nobody_back_in_time(readers: list[Reader]) -> None:
    plain, validated, _ = readers
    async with Load(plain, plain, validated) as load:
        for mode in ("off", "on", "write_only", "on", "off", "on"):
            await plain.cache.set_mode(mode, fleet=True, ttl=None if mode == "on" else 60)
            await load.goes_on()
    for reader in readers:
        await caught_up(reader)
        await settled(reader, *READS)


async def test_one_process_off_under_load_and_on_again_takes_nobody_back_in_time(
    readers: list[Reader],
) -> None:
    """A process that was off by itself did not invalidate: it fences everything before it serves again."""
    plain, validated, _ = readers
    async with Load(plain, plain) as load:
        for _ in range(2):
            await plain.cache.set_mode("off")
            await load.goes_on()
            await plain.cache.set_mode("on")
            await load.goes_on()
    await eventually(lambda: plain.cache.mode == "on", "on")
    await settled(validated, *READS)


async def test_a_fleet_needs_a_backend_that_is_shared(file: str) -> None:
    async with reading(file, "mem://") as reader:
        with pytest.raises(CacheError, match="fleet"):
            await reader.cache.set_mode("off", fleet=True)
