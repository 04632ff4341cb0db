"""Contenders in processes of their own give everybody a figure, and whoever fails there is told of."""

from __future__ import annotations

import pytest
import sqlalchemy

if sqlalchemy.__version__.startswith("1."):
    pytest.skip(
        "the benchmark gives options to AsyncSession.get(), which 1.4 does not take", allow_module_level=True
    )

from benchmarks import apart, peer
from benchmarks.child import Ended, Unable
from benchmarks.contenders import HIT, NO_CACHE, PEER_MEMORY, PEER_REDIS, VALIDATED
from benchmarks.parts import Place

from .conftest import whole

pytestmark = pytest.mark.integration


@whole
@pytest.mark.timeout(300)
def test_everybody_has_a_process_and_a_figure(place: Place) -> None:
    found = apart.run(place, rounds=None, quick=True, progress=lambda text: None)
    assert found.name == apart.NAME
    runs = found.data["works"]["get"]
    there = peer.absent() is None
    assert set(runs) == {*apart.OURS, *((PEER_MEMORY, PEER_REDIS, peer.PEER_NO_CACHE) if there else ())}
    assert len({goal.name for goal in found.goals}) == (2 if there else 0)
    text = "\n".join(found.lines)
    assert all(name in text for name in runs)
    assert (PEER_MEMORY in text) is there
    assert all(len(line) <= 160 for line in found.lines)


def test_each_of_theirs_has_a_process_of_its_own_with_an_ordinary_heap() -> None:
    theirs = [one for one in apart.apart() if isinstance(one, peer.Peer)]
    assert len({id(one.process) for one in theirs}) == len(theirs) == 3
    assert {one.heap for one in theirs} == {"all"}
    assert {one.heap for one in peer.peers()} == {"own"}


async def test_a_child_refuses_what_it_cannot_do_and_its_end_is_told_with_what_it_said(place: Place) -> None:
    contender = next(one for one in apart.apart() if one.name == NO_CACHE)
    assert isinstance(contender, apart.Apart)
    contender.open(sqlalchemy.make_url(place.postgres), place.redis)
    child = contender.process._child
    assert child is not None
    with pytest.raises(Unable, match="KeyError: 'list of 7'"):
        await contender.process.ask("warm", "list of 7")
    child.kill()
    child.wait()
    with pytest.raises(Ended, match=r"no cache ended at \('bind',\)"):
        async with contender.turn():
            pass
    await contender.close()
    with pytest.raises(Ended, match="does not run"):
        await contender.process.ask("bind")


def test_what_is_demanded_beside_0_1_3_is_of_reads_that_are_measured() -> None:
    demands = list(apart.demands())
    assert {(one.fast, one.slow) for one in demands} == {(HIT, PEER_MEMORY), (VALIDATED, PEER_REDIS)}
    assert {work for one in demands for work in one.works} <= set(apart.WORKS)
