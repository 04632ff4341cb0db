"""``make demo`` as a newcomer runs it: a process of its own, real HTTP, an exit status that means something."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from examples import setup
from examples.servers.keeping import Unavailable
from examples.visitor.database import connect
from examples.visitor.figures import Board, Figures, table
from examples.visitor.visit import difference
from tests.support.otlp import otlp_receiver

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "examples.demo"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {
        name: value for name, value in os.environ.items() if not name.startswith(("SQLACACHE_", "OTEL_"))
    }
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env={**variables, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def check_output(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    phases = re.findall(r"^([a-z ]+): +\d+ requests", done.stdout, flags=re.M)
    assert phases == [
        "first reads",
        "the same again",
        "reads and writes",
        "a bulk update",
        "reads racing writes",
        "a write from elsewhere",
        "one price changed",
        "one price traced",
    ]
    assert re.search(r"^the same again: .* 0 misses +100% hit ratio", done.stdout, flags=re.M)
    assert re.search(r"^Product +[\d,]+ +[\d,]+ +\d+%", done.stdout, flags=re.M)
    assert "row_invalidated" in done.stdout.partition("Before its price was changed")[2]
    write = r"""^The write, as a trace \(worker A, trace [0-9a-f]{32}\):
  \| PATCH /products/{product_id} .* ms
(?:  \| ├─ .*\n)+  \| └─ sqlacache\.invalidate .* ms  phase one .* ms, COMMIT .* ms, phase two .* ms$"""
    assert re.search(write, done.stdout, flags=re.M)
    read = r"""^The read that missed because of it .*:
  \| GET /products/{product_id} .* ms
  \| └─ sqlacache\.lookup SELECT products .* miss \(row_invalidated\) .* -> sqlacache\.invalidate of worker A
  \|    └─ SELECT \(database\) .* ms$"""
    assert re.search(read, done.stdout, flags=re.M)
    assert re.search(
        r"^and the same read again .*:\n.*\n  \| └─ sqlacache\.lookup .* hit", done.stdout, flags=re.M
    )
    assert re.search(
        r"^What each worker decided lately, and why: http://\S+/sqlacache/", done.stdout, flags=re.M
    )
    assert 'sqlacache_hits_total{op="get"}' in done.stdout
    assert 'sqlacache_evictions_total{cause="row_update"}' in done.stdout
    assert done.stdout.splitlines()[-1].startswith("demo: OK: ")


def test_one_worker_on_sqlite_is_visited_an_eviction_is_explained_and_it_exits_0() -> None:
    with otlp_receiver() as receiver:
        done = run("--requests", "240", SQLACACHE_DEMO="simple", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
    check_output(done)
    # What it drew was exported, too: the traces are whole there.
    (drawn,) = re.findall(
        r"^The read that missed because of it .* trace ([0-9a-f]{32})", done.stdout, flags=re.M
    )
    request, lookup, load = [one for one in receiver.spans(service="shop") if one.trace_id == drawn]
    assert (request.name, request.kind) == ("GET /products/{product_id}", "SERVER")
    assert (receiver.parent(lookup), receiver.parent(load)) == (request, lookup)
    (writer,) = [one for one in receiver.spans("sqlacache.invalidate") if one.place in lookup.links]
    assert receiver.parent(writer) in receiver.spans("PATCH /products/{product_id}")
    assert done.stdout.startswith("The shop is up: 1 worker on SQLite and mem://.\n")


@pytest.mark.integration
@pytest.mark.usefixtures("full")
def test_a_commit_of_one_of_two_workers_on_postgresql_and_redis_evicts_in_the_other() -> None:
    done = run("--requests", "240", SQLACACHE_DEMO="full")
    check_output(done)
    assert done.stdout.startswith("The shop is up: 2 workers on PostgreSQL and Redis.\n")
    pids = dict(re.findall(r"worker ([AB]) \(process (\d+)\) serves", done.stdout))
    assert f"Why does worker B (process {pids['B']}) read product 1 from the database again?" in done.stdout
    cause = rf"cause +row_update: UPDATE products of products:1 \(price_cents\) at .* by {pids['A']}@"
    assert re.search(cause, done.stdout)
    assert re.search(r"^hits came from: .*\bRedis \d+", done.stdout, flags=re.M)
    heard = r"""^and in the other worker, linked to it \(worker B, trace [0-9a-f]{32}\):
  \| sqlacache\.receive .* ms  .* ms after it was announced -> sqlacache\.invalidate of worker A$"""
    assert re.search(heard, done.stdout, flags=re.M)
    assert "The read that missed because of it (worker B," in done.stdout


def test_without_a_server_the_demo_falls_back_to_one_worker_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing() -> None:
        raise Unavailable("no server in this wheel")

    monkeypatch.setattr(setup, "redis_server", missing)
    with setup.set_up() as on:
        assert (on.backend, on.workers) == ("mem://", 1)
        assert "no server in this wheel" in on.told
    with pytest.raises(Unavailable), setup.set_up("full"):
        pass


@pytest.mark.integration
@pytest.mark.usefixtures("full")
def test_the_visitor_reads_plain_values_from_both_databases() -> None:
    sql = "SELECT 1 = ?, CAST(2.5 AS NUMERIC), '2024-06-01 08:37:00'"
    for choice, timestamp in (("simple", ""), ("full", "::timestamp")):
        with setup.set_up(choice) as on:
            database = connect(on.database)
            assert database.rows(sql + timestamp, (1,)) == [(True, 2.5, "2024-06-01 08:37:00")]
            database.close()


def test_a_write_behind_the_caches_back_is_found_out_as_a_wrong_figure() -> None:
    done = run("--requests", "100", "--behind-the-back", SQLACACHE_DEMO="simple")
    assert done.returncode == 1, done.stdout + done.stderr
    complaints = [line for line in done.stderr.splitlines() if line.startswith("demo: ")]
    assert len(complaints) == 1
    assert complaints[0].startswith(
        "demo: WRONG FIGURE: GET /products/1 (a write from elsewhere): price_cents is "
    )
    assert "demo: OK" not in done.stdout


def test_a_cache_that_is_off_is_found_out_as_a_wrong_figure() -> None:
    done = run("--requests", "100", SQLACACHE_MODE="off", SQLACACHE_DEMO="simple")
    assert done.returncode == 1, done.stdout + done.stderr
    complaint = done.stderr.splitlines()[-1]
    assert complaint.startswith("demo: WRONG FIGURE: first reads: bypassed disabled ")


def test_a_shop_that_cannot_start_shows_its_log_and_exits_1() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = run("--port", str(taken.getsockname()[1]), SQLACACHE_DEMO="simple")
    assert done.returncode == 1
    assert "address already in use" in done.stderr
    assert "Traceback" not in done.stderr.partition("its log:")[0]


@pytest.fixture
def choice(request: pytest.FixtureRequest) -> str:
    if request.param == "full":
        request.getfixturevalue("full")
    return str(request.param)


@pytest.mark.parametrize(
    ("choice", "number"),
    [("simple", signal.SIGINT), pytest.param("full", signal.SIGTERM, marks=pytest.mark.integration)],
    ids=["simple, interrupted", "full, terminated"],
    indirect=["choice"],
)
def test_serve_leaves_the_shop_up_until_a_signal_stops_all_of_it(choice: str, number: signal.Signals) -> None:
    with subprocess.Popen(
        [*COMMAND, "--serve", "--set-up", choice],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as serving:
        try:
            assert serving.stdout is not None
            addresses = re.findall(r"http://\S+", serving.stdout.readline())
            assert len(addresses) == (2 if choice == "full" else 1), serving.communicate(timeout=30)
            for address in addresses:
                assert httpx.get(f"{address}/products/1").json()["id"] == 1
                assert httpx.get(f"{address}/health").json() == {"status": "ok", "reasons": [], "ready": True}
                assert "sqlacache_" in httpx.get(f"{address}/metrics/").text
            serving.send_signal(number)
            _, errors = serving.communicate(timeout=30)
            assert (serving.returncode, errors.strip()) == (0, "demo: stopped")
        finally:
            if serving.poll() is None:
                serving.terminate()  # not kill: it has a shop to end
    for address in addresses:
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{address}/products/1")


def test_the_table_is_drawn_over_itself_on_a_terminal_and_left_out_elsewhere() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        board = Board(stream)
        board.show(["one", "two"])
        board.say("said")
        board.show(["three"])
        board.show([])
        board.say("done")
    assert terminal.getvalue() == (
        "one\ntwo\n" + "\x1b[2F\x1b[Jsaid\none\ntwo\n" + "\x1b[2F\x1b[Jthree\n" + "\x1b[1F\x1b[Jdone\n"
    )
    assert file.getvalue() == "said\ndone\n"


def test_figures_are_read_from_an_exposition_by_model_and_reason() -> None:
    figures = Figures(
        "# TYPE sqlacache_hits counter\n"
        'sqlacache_hits_total{cache="shop",table="products",op="get",tier="local"} 3\n'
        "# TYPE sqlacache_misses counter\n"
        'sqlacache_misses_total{cache="shop",table="products",op="get",reason="absent"} 1\n'
        'sqlacache_misses_total{cache="shop",table="product_tags",op="fetch",reason="expired"} 2\n'
    )
    assert (figures.lookups, figures.hit_ratio) == (6, 0.5)
    assert [line.split() for line in table(figures)[1:3]] == [
        ["Product", "3", "1", "75%", "0", "0", "absent", "1"],
        ["product_tags", "0", "2", "0%", "0", "0", "expired", "2"],
    ]


def test_a_difference_is_named_by_its_place() -> None:
    got, expected = {"a": [{"b": 1}, {"b": 2}]}, {"a": [{"b": 1}, {"b": 3}]}
    assert difference(got, expected) == "a[1].b is 2, the database says 3"
    assert difference([1], [1, 2]) == "it is [1], the database says [1, 2]"
