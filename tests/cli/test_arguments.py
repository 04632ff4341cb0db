"""Whatever is typed: a status of 0, 1 or 2, one line for what is wrong, and never a traceback or a password."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sqlacache.cli.show import duration, safe, seconds, size
from sqlacache.errors import CacheError
from tests.support.models import User
from tests.support.redis_server import RedisServer

from .conftest import Command, Shop

pytestmark = pytest.mark.integration

COMMANDS = ("explain", "tail", "top", "stats", "touched", "invalidate", "mode", "health", "names")
OPTIONS = """
--url --prefix --database --sentinel --service --json --table --cause --count -n --for --metrics --by --limit --watch
--columns --pks --if-known --all --yes -y --ttl --help --nonsense -x --
"""
VALUES = """
users stock nobody users:get:00 1 1,2 , 0 -1 1e9 90s 1h 99999999999d on off write_only shadow misses churn row_update
redis:// redis://: mem:// http:// http://127.0.0.1:1 redis://127.0.0.1:1 redis://127.0.0.1:99999 unix:// unix:///no
rediss://127.0.0.1:1 redis://[ redis://h/x redis://h?timeout=-1 redis://h?cluster=true&db=3 redis://h?x=y : %00 %
127.0.0.1:1 127.0.0.1 a=1:b=2 sku=7:warehouse=north sku=7:warehouse=null
"""


def process(*arguments: str, url: str | None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SQLACACHE_")}
    given = {} if url is None else {"SQLACACHE_BACKEND": url}
    return subprocess.run(
        [sys.executable, "-m", "sqlacache.cli", *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=100,
        env={**inherited, **given, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )


DEAD = "redis://:hunter2@127.0.0.1:1/0"


@pytest.mark.parametrize(
    ("status", "arguments"),
    [
        (0, ("stats",)),
        (0, ("explain", "KEY")),
        (2, ("explain", "users:get:00")),
        (0, ("touched", "users", "--pks", "1")),
        (0, ("invalidate", "users")),
        (1, ("invalidate", "--all")),
        (0, ("mode",)),
        (0, ("health",)),
        (0, ("tail", "--count", "0")),
        (0, ("names", "--json")),
        (2, ("top",)),
        (2, ("nonsense",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_a_process_ends_with_the_status_that_it_should(
    shop: Shop, server: RedisServer, prefix: str, status: int, arguments: tuple[str, ...]
) -> None:
    key = shop.get(User, 1).key
    given = [str(key) if one == "KEY" else one for one in arguments]
    done = process(*given, url=server.url, SQLACACHE_PREFIX=prefix)
    assert done.returncode == status, done
    assert "Traceback" not in done.stderr and (done.stderr == "" or status), done


@pytest.mark.parametrize("command", ["stats", "health", "explain", "tail", "touched", "invalidate", "mode"])
def test_a_dead_server_is_one_line_and_status_2(cli: Command, command: str) -> None:
    argument = {"explain": ["users:get:00"], "touched": ["users"], "invalidate": ["users"]}.get(command, [])
    problem = cli(command, *argument, url=DEAD).problem
    assert "redis://:***@127.0.0.1:1/0: PING: " in problem and "Connection refused" in problem


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("", id="none"),
        pytest.param("localhost", id="no scheme"),
        pytest.param("mem://", id="memory"),
        pytest.param("http://me:hunter2@localhost", id="http"),
        pytest.param("redis://:hunter2@localhost:port/0", id="a port that is no number"),
        pytest.param("redis://:hunter/2@localhost:6379/0", id="a password with a slash"),
        pytest.param("redis://:hunt#hunter2@localhost:6379/0", id="a password with a hash"),
        pytest.param("redis://:hunt?hunter2@localhost:6379/0", id="a password with a question mark"),
        pytest.param("redis://:hunter2@localhost:99999/0", id="a port that is too high"),
        pytest.param("redis://:hunter2@localhost:6379/zero", id="a database that is no number"),
        pytest.param("redis://[::1", id="half an address"),
        pytest.param("redis://:hunter2@localhost?timeout=never", id="a timeout that is none"),
        pytest.param("redis://localhost?secret_hunter=hunter2", id="an option that there is not"),
        pytest.param("redis://:hunter2@localhost?cluster=true&db=1", id="a cluster with a database"),
        pytest.param("unix:///nowhere/redis.sock?password=hunter2", id="a socket that is not there"),
    ],
)
def test_a_url_that_cannot_be_is_one_line_and_keeps_its_password(cli: Command, url: str) -> None:
    for command in ("stats", "mode"):
        assert "hunter" not in cli(command, "--url", url, url=None).problem.replace("secret_hunter", "")


@pytest.mark.parametrize(
    "generation",
    [b"9" * 5000 + b"|run|00", b"\xb2|", b"|", b""],
    ids=["thousands of digits", "no plain digit", "a bar", "nothing"],
)
def test_a_generation_that_is_none_of_ours_brings_no_traceback(
    cli: Command, shop: Shop, server: RedisServer, prefix: str, generation: bytes
) -> None:
    shop.get(User, 1)
    with server.client() as client:
        client.set(f"{prefix}:generation", generation)
    for arguments in (
        ("touched", "users", "--pks", "1"),
        ("stats",),
        ("health",),
        ("explain", "users:get:00"),
    ):
        done = cli(*arguments)
        assert done.status in (0, 1, 2) and "Traceback" not in done.err, done


def test_a_server_without_the_password_is_told(cli: Command, make_server: Callable[..., RedisServer]) -> None:
    own = make_server(requirepass="hunter2")
    problem = cli("stats", url=own.url.replace("hunter2", "hunter3")).problem
    assert "hunter3" not in problem and "hunter2" not in problem and "password" in problem.lower()


@pytest.mark.parametrize(
    "arguments",
    [
        ("explain",),
        ("stats", "--limit", "0"),
        ("stats", "--limit", "x"),
        ("--nonsense",),
        ("touched", "a", "b"),
        ("mode", "-x"),
    ],
    ids=" ".join,
)
def test_a_command_line_that_cannot_be_is_one_line(cli: Command, arguments: tuple[str, ...]) -> None:
    assert cli(*arguments).problem


def test_without_arguments_and_with_help_the_commands_are_listed(cli: Command) -> None:
    for arguments in ((), ("--help",)):
        text = cli(*arguments, url=None).well
        assert all(f"  {command}" in text for command in COMMANDS)
    for command in COMMANDS:
        assert cli(command, "--help", url=None).well.startswith(f"Usage: sqlacache {command}")
    assert "cannot be seen from here" in cli("tail", "--help", url=None).well


def test_without_the_extra_one_line_says_what_to_install(tmp_path: Any) -> None:
    for missing in ("typer", "rich"):
        (tmp_path / f"{missing}.py").write_text("raise ImportError('not here')\n")
        program = "import sys; from sqlacache.cli import main; sys.exit(main(['names']))"
        path = os.pathsep.join([str(tmp_path), *sys.path])
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=100,
            env={**os.environ, "PYTHONPATH": path},
        )
        (tmp_path / f"{missing}.py").unlink()
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            "sqlacache: the command line takes an extra: pip install 'sqlacache[cli]' (not here)\n"
        )


WORDS = (
    st.sampled_from(COMMANDS)
    | st.sampled_from(OPTIONS.split())
    | st.sampled_from(VALUES.split())
    | st.text(max_size=8)
)


@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example("tail", ["--url", "redis://h", "--sentinel", "127.0.0.1:1", "--service", "m"])
@example("touched", ["users", "--pks", "\ud800", "--columns", "\0"])
@example("explain", ["\ud800"])
@example("stats", ["--database", "\ud800"])
@example("invalidate", ["--all", "--yes", "--database", "nobody's"])
@example("invalidate", ["--all"])
@given(st.sampled_from(COMMANDS), st.lists(WORDS, max_size=6))
def test_nothing_that_is_typed_brings_a_traceback(
    cli: Command, shop: Shop, command: str, words: list[str]
) -> None:
    shop.get(User, 1)
    bounds = {"tail": ["--count=0"], "top": ["--count=1"]}.get(command, [])
    done = cli(command, *words, *bounds)
    assert done.status in (0, 1, 2), done
    assert "Traceback" not in done.err
    if done.status == 2:
        assert done.err.count("\n") == 1 and done.err.startswith("sqlacache: "), done


@pytest.mark.parametrize(
    ("given", "expected"),
    [("90", 90), ("90s", 90), ("1.5m", 90), ("1h", 3600), ("2d", 172800), ("10ms", 0.01), (" 5 ", 5)],
    ids=str,
)
def test_a_time_is_read_as_people_write_it(given: str, expected: float) -> None:
    assert seconds("--ttl", given) == expected


@pytest.mark.parametrize("given", ["", "0", "-1", "1w", "h", "1 h", "1e3", "nan", "inf", "١s", "1h1h"])
def test_what_is_no_time_is_refused(given: str) -> None:
    with pytest.raises(CacheError, match="--ttl: takes a time above 0"):
        seconds("--ttl", given)


def test_numbers_are_shown_as_people_read_them() -> None:
    assert [size(one) for one in (0, 1023, 1536, 5 << 30, 1 << 41)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 GiB",
        "2.0 TiB",
    ]
    assert [duration(one) for one in (0.0012, 1.5, 600, 86400, 864000)] == [
        "1.2 ms",
        "1.5 s",
        "10 min",
        "24.0 h",
        "10.0 days",
    ]
    assert safe("a\tb\x1b[1m\u202e é") == "a\\tb\\x1b[1m\\u202e é"
