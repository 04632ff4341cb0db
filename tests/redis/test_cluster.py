"""A cache on a Redis Cluster: every table in its slot, nothing stale across slots, nodes and failovers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from redis.crc import key_slot
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from sqlacache.decisions import Received
from sqlacache.errors import ConfigError, TransportError
from sqlacache.store.cluster_layout import ClusterLayout
from tests.support.cached import cached
from tests.support.fronts import FRONT
from tests.support.models import Order, Tag, Team, User
from tests.support.processes import eventually
from tests.support.reading import Reader, Watcher
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.integration

Make = Callable[..., RedisCluster]
NODE_ALONE = {"absent", "generation_changed", "backend_evicted"}
"""Why a read is loaded again after its slot went to another node."""


def backend(cluster: RedisCluster, **options: Any) -> dict[str, Any]:
    return {"url": cluster.url, "cluster": True, "timeout": 0.5, **options}


def node_of(cluster: RedisCluster, prefix: str, table: str) -> RedisServer:
    """The node that has a table's keys."""
    return cluster.master_of(ClusterLayout(prefix, "main").generation(table))


async def user(session: AsyncSession) -> Any:
    return await session.get(User, 1)


async def team(session: AsyncSession) -> Any:
    return await session.get(Team, 1)


async def order(session: AsyncSession) -> Any:
    return await session.get(Order, 1)


async def tags(session: AsyncSession) -> Any:
    return (await session.execute(select(Tag.name).order_by(Tag.id))).all()


async def members_orders(session: AsyncSession) -> Any:
    """A join over three tables."""
    joined = select(Team.name, User.name, Order.status).join(User, User.team_id == Team.id)
    joined = joined.join(Order, Order.user_id == User.id)
    return (await session.execute(joined.order_by(Order.id))).all()


async def rename(reader: Reader, model: Any, key: int, **values: Any) -> None:
    async with reader.database.transaction() as session:
        one = await session.get(model, key)
        for name, value in values.items():
            setattr(one, name, value)


# -- many slots --------------------------------------------------------------------------------------------------------


def test_keys_of_a_table_share_a_slot_whatever_its_name() -> None:
    for table in ("users", "public.users", "a{b}c", "}{", "*x", "ü"):
        layout = ClusterLayout("shop:v1", "/data/shop{1}.db")
        keys = [
            layout.generation(table),
            layout.fence(table),
            layout.writers(table),
            layout.registry(table),
            layout.stamp(f"{table}#table", table),
            layout.stamp(f"{table}:a{{b}}", table),
            layout.entry(f"{table}:get:x", table),
        ]
        assert len({key_slot(key.encode()) for key in keys}) == 1, table
        assert len(set(keys)) == len(keys)
        assert layout.stamps(["*", f"{table}#table", f"{table}:1"])[1:] == [
            layout.stamp(f"{table}#table", table),
            layout.stamp(f"{table}:1", table),
        ]
    everything = [layout.generation("*"), layout.fence("*"), layout.mode, layout.stamp("*", "*")]
    assert len({key_slot(key.encode()) for key in [*everything, layout.writers("*")]}) == 1


def test_what_a_cluster_cannot_do_is_refused_by_configure() -> None:
    from sqlacache import configure

    for given, text in (
        ({"url": "unix:///tmp/redis.sock", "cluster": True}, "unix"),
        ({"url": "redis://localhost/3", "cluster": True}, "database 0"),
    ):
        with pytest.raises(ConfigError, match=text):
            configure(backend=given, models={})


async def test_two_tables_in_different_slots_in_one_commit(
    shared_cluster: RedisCluster, file: str, prefix: str
) -> None:
    where = backend(shared_cluster)
    async with cached(file, where, prefix) as one, cached(file, where, prefix) as other:
        await one.warm(user, order, tags)
        for read in (user, order, tags):
            await other.hit(read)
        async with one.database.transaction() as session:
            (await session.get(User, 1)).name = "new"
            (await session.get(Order, 1)).status = "sent"
        for reader in (other, one):
            await reader.hit(tags)
            for read, table in ((user, "users"), (order, "orders")):
                answer = await reader.current(read)
                if reader is other:
                    [miss] = answer.misses
                    assert (miss.reason, miss.cause and miss.cause.table) == ("row_invalidated", table)
                await reader.hit(read)


async def test_a_join_over_three_slots_goes_with_each_of_them(
    shared_cluster: RedisCluster, file: str, prefix: str
) -> None:
    async with cached(file, backend(shared_cluster), prefix) as reader:
        nodes = {node_of(shared_cluster, prefix, table).port for table in ("teams", "users", "orders")}
        assert len(nodes) > 1
        await reader.warm(members_orders)
        for model, values in ((Team, {"name": "x"}), (User, {"name": "y"}), (Order, {"status": "z"})):
            await rename(reader, model, 1, **values)
            await reader.miss(members_orders, {"row_invalidated", "condition_invalidated"})
            await reader.hit(members_orders)
        async with reader.database.transaction() as session:
            await session.execute(update(User).values(plan="new"))
        await reader.hit(members_orders)  # reads no plan
        await reader.cache.invalidate_all()
        await reader.miss(members_orders, {"manual_invalidated"})
        await reader.hit(members_orders)


async def test_calls_reach_every_node(shared_cluster: RedisCluster, file: str, prefix: str) -> None:
    where = backend(shared_cluster)
    async with cached(file, where, prefix) as reader, cached(file, where, f"{prefix}-other") as stranger:
        await reader.warm(user, order, team, tags)
        await stranger.warm(user)
        assert await reader.cache.purge(User) == 1
        await reader.miss(user, NODE_ALONE | {"manual_invalidated"})
        await stranger.hit(user)
        assert (await reader.cache.health()).status == "ok"
        await stranger.cache.set_mode("off", fleet=True)
        await stranger.bypass(user, "disabled")
        await reader.hit(user)
        await stranger.cache.set_mode("on", fleet=True)
        await stranger.hit(user)
        for key in "abc" if FRONT == "async" else "":  # in three slots; cashews' own calls are asynchronous
            await reader.cache.cashews.set(f"{prefix}{key}", key, expire=10)
            assert shared_cluster.command("EXISTS", f"{prefix}{key}") == 1
            assert await reader.cache.cashews.get(f"{prefix}{key}") == key


async def test_commits_are_announced_to_processes_at_any_node(
    shared_cluster: RedisCluster, file: str, prefix: str
) -> None:
    received: list[Received] = []

    class Listener(Watcher):
        def received(self, record: Received) -> None:
            received.append(record)

    where = backend(shared_cluster)
    async with (
        cached(file, where, prefix, observers=[Listener()]) as one,
        cached(file, where, prefix) as other,
    ):
        subscription = one.cache.backend.subscription
        await eventually(
            lambda: subscription._sequences is not None and subscription.is_under_way, "listening"
        )
        await one.warm(user)

        async def heard() -> bool:
            await rename(other, User, 1, name=f"n{len(received)}")
            await rename(other, Order, 1, status=f"s{len(received)}")
            return {table for record in received for table in record.tables} >= {"users", "orders"}

        await eventually(heard, "both tables to be announced")


# -- round trips -------------------------------------------------------------------------------------------------------


@contextmanager
def counting(cluster: RedisCluster) -> Iterator[Callable[[], Counter[str]]]:
    """Count the commands at all nodes."""
    with ExitStack() as stack:
        each = [stack.enter_context(proxy.counting()) for proxy in cluster.proxies]

        def seen() -> Counter[str]:
            total: Counter[str] = Counter()
            for counts in each:
                total.update(dict(counts))
            return total

        yield seen


async def test_round_trips_by_name(make_cluster: Make, file: str, prefix: str) -> None:
    cluster = make_cluster(proxied=True)
    async with cached(file, backend(cluster, timeout=5), prefix, local=None) as reader:
        with counting(cluster) as seen:
            await reader.current(user)
        first = seen()
        assert first["MGET"] == 2, "first miss: what is there, in two slots"
        assert first["EVALSHA"] == 3, "one script in each, and the fill"
        assert first["EVAL"] <= 3, "scripts are sent whole the first time"

        async def another(session: AsyncSession) -> Any:
            return await session.get(User, 2)

        for read, expected in (
            (user, {"MGET": 2}),  # a hit
            (another, {"MGET": 2, "EVALSHA": 3}),  # a miss of a registered shape: its tag is seeded
            (members_orders, {"MGET": 4, "EVALSHA": 5}),  # three tables and everything
            (members_orders, {"MGET": 4}),
        ):
            with counting(cluster) as seen:
                await reader.current(read)
            found = seen()
            found.pop("EVAL", None)
            assert found == expected

        await rename(reader, User, 1, name="a")  # learns the registry
        with counting(cluster) as seen:
            await rename(reader, User, 1, name="b")
        found = seen()
        assert found.pop("MGET") == 2, "of the row itself, before it is changed"
        assert found == {"EVALSHA": 3}, "its fill, and the commit: one script per phase"
        await reader.current(user)
        with counting(cluster) as seen:
            await reader.current(user)
        assert seen() == {"MGET": 2}
        with counting(cluster) as seen:
            async with reader.database.transaction() as session:
                session.add_all(Tag(id=number, name=f"t{number}") for number in range(1000, 2000))
                session.add_all(Team(id=number, name=f"t{number}") for number in range(1000, 2000))
        found = seen()
        found.pop("EVAL", None)
        assert found.pop("HGETALL") <= 2, "tables that this process has not written before"
        assert found == {"EVALSHA": 4}, "one per phase and table, however many rows"


# -- nodes that fail, slots that move ----------------------------------------------------------------------------------


async def test_a_master_fails_over_to_its_replica(make_cluster: Make, file: str, prefix: str) -> None:
    cluster = make_cluster(3, 1)
    async with cached(file, backend(cluster, timeout=0.1), prefix) as one:
        async with cached(file, backend(cluster, timeout=0.1), prefix) as other:
            await one.warm(user, order, team, tags)
            await rename(other, User, 1, name="before")
            await one.current(user)
            cluster.failover(node_of(cluster, prefix, "users"))
            for reader in (one, other):
                await reader.current(user)  # never stale, whatever the replica knew
                await eventually(lambda reader=reader: _hits(reader, user), "full service", patience=10)
                for read in (user, order, team, tags):
                    await eventually(lambda reader=reader, read=read: _hits(reader, read), "a hit")
            await rename(other, User, 1, name="after")
            assert (await one.current(user)).value
            await eventually(lambda: _hits(one, user), "a hit")
            assert (await one.cache.health()).status == "ok"


async def _hits(reader: Reader, read: Any) -> bool:
    answer = await reader.current(read)
    return bool(answer.hits) and answer.hits == answer.decisions


async def test_while_a_node_is_down_tables_of_the_others_are_served(
    make_cluster: Make, file: str, prefix: str
) -> None:
    cluster = make_cluster(cluster_require_full_coverage="no")
    models = {"users": (User, user), "orders": (Order, order), "teams": (Team, team), "tags": (Tag, tags)}
    everything = node_of(cluster, prefix, "*")
    nodes = {table: node_of(cluster, prefix, table) for table in models}
    lost = next(table for table in models if nodes[table] is not everything)
    kept = [table for table in models if nodes[table] is not nodes[lost]]
    async with cached(file, backend(cluster, timeout=0.2), prefix) as reader:
        await reader.warm(*(read for _, read in models.values()))
        nodes[lost].pause()
        for _ in range(3):
            await reader.bypass(models[lost][1], "backend_unavailable")
        assert reader.cache.backend.breaker.is_open
        health = await reader.cache.health()
        assert health.status == "degraded"
        assert str(nodes[lost].port) in str(health.reasons)
        for table in kept:
            await reader.hit(models[table][1])
        if lost != "tags":
            await rename(reader, models[lost][0], 1, **_change(lost))
            assert (await reader.cache.health()).status == "owed"
        nodes[lost].resume()
        await eventually(lambda: _hits(reader, models[lost][1]), "full service", patience=10)
        assert not reader.cache.backend.breaker.is_open
        assert (await reader.cache.health()).status == "ok"


def _change(table: str) -> dict[str, str]:
    return {"status": "new value"} if table == "orders" else {"name": "new value"}


async def test_a_slot_moves_with_its_keys(make_cluster: Make, file: str, prefix: str) -> None:
    cluster = make_cluster()
    async with cached(file, backend(cluster), prefix) as one, cached(file, backend(cluster), prefix) as other:
        await one.warm(user, order)
        await other.hit(user)
        slot = key_slot(ClusterLayout(prefix, "main").generation("users").encode())
        source = node_of(cluster, prefix, "users")
        target = next(node for node in cluster.nodes if node is not source)
        source_id, target_id = (str(node.command("CLUSTER MYID").decode()) for node in (source, target))
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        keys = source.command("CLUSTER", "GETKEYSINSLOT", slot, 1000)
        assert len(keys) > 3
        for number, key in enumerate(keys):
            if number == len(keys) // 2:  # half of them are here, half of them there
                await rename(one, User, 1, name="half way")
                for reader in (one, other):
                    await reader.current(user)
                    await reader.hit(order)
            source.command("MIGRATE", target.host, target.port, key, 0, 5000)
        await other.current(user)
        for node in (target, source, *cluster.nodes):
            node.command("CLUSTER", "SETSLOT", slot, "NODE", target_id)
        assert node_of(cluster, prefix, "users") is target
        for reader in (one, other):
            await eventually(lambda reader=reader: _hits(reader, user), "full service", patience=10)
        await rename(one, User, 1, name="moved")
        await other.miss(user, {"row_invalidated"})
        await other.hit(order)


async def test_binding_succeeds_while_the_cluster_is_down_and_serves_when_it_is_up(
    make_cluster: Make, file: str, prefix: str
) -> None:
    cluster = make_cluster()
    for node in cluster.nodes:
        node.kill()
    with pytest.raises(TransportError):
        async with cached(file, backend(cluster), prefix, on_error="raise"):
            pass
    async with cached(file, backend(cluster), prefix) as reader:
        await reader.bypass(user, "backend_unavailable")
        for node in cluster.nodes:
            node.start()
        cluster.await_ok()
        await eventually(lambda: _hits(reader, user), "full service", patience=10)
