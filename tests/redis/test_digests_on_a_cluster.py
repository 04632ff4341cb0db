"""Processes on one cluster that name values otherwise: each table lies elsewhere, and none of them is served stale."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from sqlacache import configure_sync
from tests.support.models import Base, Order, User
from tests.support.redis_cluster import RedisCluster

pytestmark = pytest.mark.integration

FREE = select(User.id, User.name).where(User.plan == "free")


class Process:
    """One process's engine and cache."""

    def __init__(self, stack: ExitStack, url: str, **options: Any) -> None:
        self.engine = create_engine(url, future=True)
        stack.callback(self.engine.dispose)
        self.cache = configure_sync(models={"*": {}}, telemetry=None, **options)
        self.cache.bind(self.engine, database="shop")
        stack.callback(self.cache.disconnect)

    def name(self) -> str:
        with Session(self.engine, future=True) as session:
            name: str = session.get(User, 1).name
            assert session.execute(FREE).all() == [(1, name)]
            session.execute(select(Order)).all()
        return name

    def rename(self, name: str) -> None:
        with Session(self.engine, future=True) as session:
            session.get(User, 1).name = name
            session.commit()

    def reasons(self) -> set[str | None]:
        with self.cache.record() as seen:
            self.name()
        return {decision.reason for decision in seen.decisions}


@pytest.fixture
def start(tmp_path: Path, shared_cluster: RedisCluster, prefix: str) -> Iterator[Callable[..., Process]]:
    url = f"sqlite:///{tmp_path}/shop.sqlite"
    engine = create_engine(url, future=True)
    Base.metadata.create_all(engine)
    with Session(engine, future=True) as session:
        session.add(User(id=1, name="ann", email="ann@x"))
        session.commit()
    engine.dispose()
    backend = {"url": shared_cluster.url, "cluster": True, "timeout": 5.0}
    with ExitStack() as stack:
        yield lambda **options: Process(stack, url, backend=backend, prefix=prefix, **options)


@pytest.mark.parametrize(
    "options", [{"digest_key": "y" * 16}, {"expose_values": True}], ids=["another key", "exposed"]
)
def test_a_commit_under_another_key_is_seen_at_once(
    options: dict[str, Any], start: Callable[..., Process]
) -> None:
    one, other = start(digest_key="x" * 16), start(**options)
    one.name()
    assert one.reasons() == {None}
    for number, (writer, reader) in enumerate([(other, one), (one, other), (other, one)]):
        writer.rename(f"name {number}")
        assert reader.name() == writer.name() == f"name {number}"
    assert one.reasons() == other.reasons() == {"protocol_mismatch"}
    assert one.cache.health().status == "degraded"


def test_processes_with_one_key_share_what_they_store(start: Callable[..., Process]) -> None:
    one, other = start(digest_key="x" * 16), start(digest_key="x" * 16)
    one.name()
    assert other.reasons() == {None}
    other.rename("zed")
    assert one.reasons() == {"row_invalidated", "condition_invalidated", None}
    assert one.name() == "zed"
