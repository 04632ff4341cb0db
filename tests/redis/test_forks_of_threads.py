"""A bound cache of ordinary sessions is forked (gunicorn with ``--preload``, Celery): children go on by themselves.

Each test is a program of its own, that forks while it has threads.
"""

from __future__ import annotations

import pytest

from tests.support.programs import run_with_redis

pytestmark = pytest.mark.integration

BEGINNING = """
import logging, os, signal, sys, threading, time, warnings
from sqlalchemy import create_engine, event
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool
from sqlacache import configure_sync
from sqlacache.testing import record
from tests.support.models import Team
from tests.support.redis_server import redis_server

warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of a fork among threads, which is the point
engine = create_engine(sys.argv[1].replace("+aiosqlite", ""), poolclass=NullPool)

def opened(url, **options):
    cache = configure_sync(
        backend=url, models={"*": {"timeout": 3600}}, telemetry=None, prefix="forks", **options
    )
    cache.bind(engine)
    return cache

def read(cache):
    with record(cache) as seen, Session(engine) as session:
        name = session.get(Team, 1).name
    (decision,) = seen.decisions
    return name, decision.decision

def write(name):
    with Session(engine) as session:
        session.get(Team, 1).name = name
        session.commit()

def until(true, what):
    ends = time.monotonic() + 20
    while not true():
        assert time.monotonic() < ends, what
        time.sleep(0.01)

def child(work):
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)  # a child that waits for what only its parent has
        try:
            work()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, "the child failed"
"""


def run(program: str, *arguments: str) -> str:
    return run_with_redis(BEGINNING + program, *arguments, timeout=90)


@pytest.mark.parametrize("local", ["None", "'validated'", "'pushed'"])
def test_children_of_a_bound_process_read_and_write_as_it_does(file: str, local: str) -> None:
    run(
        f"""
with redis_server() as server:
    cache = opened({{"url": server.url, "timeout": 2}}, local={local})
    assert read(cache) == ("red", "miss")

    def first():
        assert read(cache) == ("red", "hit")
        write("blue")
        assert read(cache)[0] == "blue"
        child(lambda: write("green"))  # a child of the child

    child(first)
    store = cache.bindings[0].store
    if store.pushed is not None:
        until(lambda: store.pushed.arrived, "the announcement of the child's commit")
    until(lambda: read(cache)[0] == "green", "the commit of the child's child")
    child(lambda: until(lambda: read(cache) == ("green", "hit"), "an entry of the parent"))
    cache.disconnect()
""",
        file,
    )


def test_a_child_hears_of_its_parents_commits(file: str) -> None:
    """The thread that listens is not forked: a child that did not begin to listen by itself would never hear again."""
    run(
        """
with redis_server() as server:
    cache = opened({"url": server.url, "timeout": 2}, local="pushed")
    store = cache.bindings[0].store
    until(lambda: store.pushed.is_live, "the subscription")
    to_parent, from_child = os.pipe()
    to_child, from_parent = os.pipe()
    told = []
    cache.on_evict(told.append)

    def listening():
        store.pushed.suspend()
        until(lambda: store.pushed.is_live, "the child's subscription")
        os.write(from_child, b"x")
        os.read(to_child, 1)
        until(lambda: any(one.elsewhere and one.cause.pid == os.getppid() for one in told), "the parent's commit")
        assert read(cache)[0] == "blue"

    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        try:
            listening()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.read(to_parent, 1)
    write("blue")
    os.write(from_parent, b"x")
    assert os.waitpid(pid, 0)[1] == 0
    cache.disconnect()
""",
        file,
    )


@pytest.mark.parametrize(
    "lock",
    [
        "cache._lock",
        "cache.recovery._lock",
        "cache.bindings[0].owed._lock",
        "cache.backend.breaker._lock",
        "cache.backend.subscription._lock",
        "cache.backend.transport._lock",
        "cache.bindings[0].store.local._lock",
        "cache.bindings[0].reads._flights._lock",
    ],
)
def test_a_lock_that_another_thread_holds_while_it_forks_does_not_stop_the_child(
    file: str, lock: str
) -> None:
    run(
        f"""
with redis_server() as server:
    cache = opened({{"url": server.url, "timeout": 2}}, local="pushed")
    read(cache)
    held, let_go = threading.Event(), threading.Event()

    def hold():
        with {lock}:
            held.set()
            let_go.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()

    def work():
        write("blue")
        assert read(cache)[0] == "blue"
        cache.backend.breaker.failed(OSError("once"))
        cache.recovery.start()
        cache.health()
        cache.disconnect()

    child(work)
    let_go.set()
    thread.join()
    cache.disconnect()
""",
        file,
    )


def test_a_load_that_another_thread_leads_while_it_forks_is_not_waited_for_in_the_child(file: str) -> None:
    """
    1. A thread of the parent misses, leads, and waits for the database. The parent forks.
    2. The child misses the same entry. Nobody in the child will ever finish that load: the child loads by itself.
    """
    run(
        """
with redis_server() as server:
    cache = opened({"url": server.url, "timeout": 2})
    parent = os.getpid()
    loading, go_on = threading.Event(), threading.Event()

    @event.listens_for(engine, "before_cursor_execute")
    def wait(connection, cursor, statement, parameters, context, many):
        if os.getpid() == parent and "team" in statement.lower() and not go_on.is_set():
            loading.set()
            go_on.wait(60)

    found = []
    thread = threading.Thread(target=lambda: found.append(read_of_thread()))

    def read_of_thread():
        with Session(engine) as session:
            return session.get(Team, 1).name

    thread.start()
    loading.wait()
    child(lambda: read(cache))
    go_on.set()
    thread.join()
    assert found == ["red"]
    cache.disconnect()
""",
        file,
    )


def test_a_forked_cache_in_memory_warns_that_processes_do_not_hear_of_each_other(file: str) -> None:
    told = run(
        """
logging.basicConfig()
cache = opened("mem://")
child(lambda: read(cache))
cache.disconnect()
child(lambda: None)
""",
        file,
    )
    assert told.count("mem:// belongs to one process") == 1
