"""Spoilt bytes where the library keeps its own, on a real server: reads stay right, commits succeed, hits come back."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from random import Random
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column, Integer, String, create_engine, select
from sqlalchemy.orm import Session, declarative_base
from sqlalchemy.pool import StaticPool

import sqlacache.testing
from sqlacache import configure_sync
from sqlacache.store.records import decode_stamp
from sqlacache.store.scripts import SAMPLE
from tests.fuzz.payloads import CODE, DEEPER, PICKLED, STAMP_RECORDS, entry, examples, spoilt, spoilt_by
from tests.store.samples import sealed
from tests.support.programs import started
from tests.support.redis_server import redis_server

pytestmark = pytest.mark.integration

Base: Any = declarative_base()


class Leaf(Base):
    __tablename__ = "leaves"
    id = Column(Integer, primary_key=True)
    name = Column(String(40), nullable=False)


class Tree(NamedTuple):
    """A cache on a server, the server's own client, and a database with two rows."""

    cache: Any
    client: Any
    engine: Any

    def names(self) -> list[Any]:
        with Session(self.engine) as session:
            one = session.get(Leaf, 1)
            assert one is not None
            several = session.execute(select(Leaf.id, Leaf.name).order_by(Leaf.id)).all()
            return [one.name, *(name for _, name in several)]

    def rename(self, name: str) -> None:
        with Session(self.engine) as session:
            leaf = session.get(Leaf, 1)
            assert leaf is not None
            leaf.name = name
            session.commit()

    def spoil(self, random: Random, key: bytes) -> None:
        """Put something else in place of what is at a key."""
        kind = self.client.type(key)
        if kind == b"string":
            self.client.set(key, spoilt_by(random, [self.client.get(key) or b"?"]), keepttl=True)
        elif kind == b"hash":
            field = random.choice(sorted(self.client.hgetall(key)))
            self.client.hset(key, field, spoilt_by(random, [self.client.hget(key, field) or b"?"]))
        elif kind == b"zset":
            self.client.zadd(key, {random.randbytes(5): random.choice([0.0, 1e300, -1.5, float("inf")])})


@pytest.fixture(scope="module", params=[None, "validated"], ids=["no tier", "validated"])
def tree(request: pytest.FixtureRequest) -> Iterator[Tree]:
    with ExitStack() as stack:
        server = started(stack, redis_server())
        client = stack.enter_context(server.client())
        engine = create_engine("sqlite://", poolclass=StaticPool)
        stack.callback(engine.dispose)
        Base.metadata.create_all(engine)
        with Session(engine) as session:
            session.add_all([Leaf(id=1, name="oak"), Leaf(id=2, name="elm")])
            session.commit()
        cache = configure_sync(
            backend={"url": server.url, "timeout": 30},
            models={Leaf: {"timeout": 3600}},
            local=request.param,
            telemetry=None,
            lease=1,
        )
        cache.bind(engine, database="garden")
        stack.callback(cache.disconnect)
        yield Tree(cache, client, engine)


@pytest.mark.parametrize("seed", range(3))
def test_spoilt_bytes_at_a_key(tree: Tree, seed: int) -> None:
    for number in range(40 * DEEPER):
        random = Random(f"{seed} {number}")
        try:
            _spoil_and_look(tree, random)
        except BaseException as error:
            raise AssertionError(f"seed {seed}, number {number}") from error


def _spoil_and_look(tree: Tree, random: Random) -> None:
    tree.names()
    keys = sorted(tree.client.keys("*"))
    for _ in range(random.randint(1, 3)):
        tree.spoil(random, random.choice(keys))
    truth = random.choice(["oak", "ash", "yew"])
    if random.random() < 0.5:
        assert tree.names()[2] == "elm"
    tree.rename(truth)
    assert tree.names() == [truth, truth, "elm"]
    assert tree.names() == [truth, truth, "elm"]


def test_code_at_the_key_of_an_entry_is_a_miss_and_never_runs(tree: Tree) -> None:
    """As pickles, in our own envelope as rows or as another codec's, and as cashews would store and sign them."""
    tree.names()
    keys = tree.client.keys("sqlacache:1:garden:e:*")
    assert len(keys) == 2
    for planted in (CODE, entry(CODE), entry(sealed(CODE)), entry(sealed(CODE, kind=b"p")), entry(PICKLED)):
        for stored in (planted, b"_" + planted, b"sum:_" + planted, b"sha1:" + b"0" * 40 + b"_" + planted):
            for key in keys:
                tree.client.set(key, stored, px=60_000)
            assert len(tree.names()) == 3
            assert "sqlacache_was_here" not in sys.modules


LONG = b"9" * 5000
PLANTED = (
    b"",
    b"on",
    b"off",
    b"shadow",
    b"7",
    LONG,
    b"\xb2",
    b"-1",
    b"1|",
    b"1|" + LONG,
    LONG + b"|run|00",
    [],
    {},
    set(),
)
"""What may be at a key of control: a mode, a number (of a protocol, of a message), half a generation, another kind."""


@pytest.mark.parametrize("tree", [None], indirect=True, ids=["no tier"])
@pytest.mark.parametrize(
    "where", ["mode", "fence", "generation", "1:garden:commits:sequence", "1:garden:w:leaves"]
)
def test_what_is_planted_at_a_key_of_control(tree: Tree, where: str) -> None:
    """Reads, commits and what health says go on."""
    key = f"sqlacache:{where}"
    for number, value in enumerate(PLANTED):
        tree.names()
        tree.client.delete(key)
        if isinstance(value, bytes):
            tree.client.set(key, value, px=None if number % 2 else 60_000)
        else:
            {list: tree.client.rpush, dict: partial(tree.client.hset, value="1"), set: tree.client.sadd}[
                type(value)
            ](key, "1")
        try:
            assert tree.names()[2] == "elm"
            tree.rename(f"planted {number}")
            assert tree.names() == [f"planted {number}", f"planted {number}", "elm"]
            assert len(str(tree.cache.health())) < 3000
        except BaseException as error:
            raise AssertionError(f"{value[:20] if isinstance(value, bytes) else value!r}") from error
        tree.client.delete(key, "sqlacache:fence")


def test_after_all_that_reads_are_hits_again(tree: Tree) -> None:
    tree.client.flushall()
    tree.names()
    with sqlacache.testing.record(tree.cache) as seen:
        tree.names()
    assert [one.decision for one in seen.decisions] == ["hit", "hit"]


@examples(6)
@given(st.lists(spoilt(STAMP_RECORDS), min_size=40, max_size=80))
def test_what_the_scripts_take_for_a_stamp_the_library_does(tree: Tree, stamps: list[bytes]) -> None:
    """The other way round, the library refuses a mark that nothing would ever end."""
    common = SAMPLE.source.partition(b"-- Before a miss is loaded")[0]
    script = (
        common
        + b"local found = {} for i = 4, #ARGV do found[i - 3] = parse(ARGV[i]) and 1 or 0 end return found"
    )
    by_script = tree.client.execute_command("EVAL", script, 0, "1", "run", "00", *stamps)
    for stamp, taken in zip(stamps, by_script):
        found = decode_stamp(stamp)
        assert taken or found is None, stamp
        if taken and found is None:
            tokens = stamp.split(b"|")[3]
            assert tokens, stamp
