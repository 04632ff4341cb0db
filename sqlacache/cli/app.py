"""The commands and their options; what they do is in the modules beside."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from ..errors import CacheError, ConfigError, TransportError
from .connect import Server, Where, connected
from .show import notice, safe

_REFUSED: Any = typer.BadParameter.__mro__[2]
"""``ClickException``, the base of what is wrong with a command line: click's, or that of the click inside typer."""

app = typer.Typer(
    name="sqlacache",
    help="What the cache on a Redis server does, and why: from its URL and the prefix given to configure() alone.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="SQLACACHE_BACKEND",
        show_envvar=True,
        show_default=False,
        help="redis://, rediss:// or unix://, with what configure() takes in its query: ?cluster=true, ?timeout=2.",
    ),
]
Prefix = Annotated[
    str, typer.Option("--prefix", envvar="SQLACACHE_PREFIX", help="The prefix given to configure().")
]
Database = Annotated[
    str | None,
    typer.Option("--database", help="Which database, as bind() named it; needed if there are several."),
]
Sentinels = Annotated[
    str | None, typer.Option("--sentinel", help="host:port,host:port of sentinels, which know the master.")
]
Service = Annotated[str | None, typer.Option("--service", help="What the sentinels call the master.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
DigestKey = Annotated[
    str | None,
    typer.Option(
        "--digest-key",
        envvar="SQLACACHE_DIGEST_KEY",
        show_envvar=True,
        help="The digest_key given to configure(), if one was: what --pks names is found by it. In the environment, "
        "other users of the machine do not see it.",
    ),
]
Keys = Annotated[
    str | None,
    typer.Option(
        "--pks",
        help="Primary keys, as 1,2,3; of several columns, as a=1:b=2,a=1:b=3. In values, %2C %3A %25 stand for , : %.",
    ),
]


def _asked(
    act: Callable[[Server], Any],
    url: str,
    prefix: str,
    database: str | None,
    sentinel: str | None,
    service: str | None,
    digest_key: str | None = None,
) -> Any:
    if not url:
        raise ConfigError("takes the URL of a Redis: --url redis://host:port/0, or SQLACACHE_BACKEND")
    with connected(Where(url, prefix, database, sentinel, service, digest_key)) as server:
        return act(server)


@app.command()
def explain(
    key: Annotated[str, typer.Argument(help="As in spans, logs and explain(): users:get:c23c0ea1...")],
    url: Url = "",
    prefix: Prefix = "sqlacache",
    database: Database = None,
    sentinel: Sentinels = None,
    service: Service = None,
    json: Json = False,
) -> None:
    """Say what is stored under an entry's key, what has changed since, and which write did it."""
    from .explain import explain as act

    _asked(lambda server: act(server, server.one(), key, json=json), url, prefix, database, sentinel, service)


@app.command()
def tail(
    table: Annotated[
        list[str] | None, typer.Option("--table", help="Only of this table; may be repeated.")
    ] = None,
    cause: Annotated[
        list[str] | None, typer.Option("--cause", help="Only of this cause, as row_update; may be repeated.")
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", "-n", min=0, help="End after so many lines.")
    ] = None,
    for_: Annotated[str | None, typer.Option("--for", help="End after this time, as 90s or 1h.")] = None,
    url: Url = "",
    prefix: Prefix = "sqlacache",
    database: Database = None,
    sentinel: Sentinels = None,
    service: Service = None,
    json: Json = False,
) -> None:
    """Print evictions as processes announce their commits, with cause and lag, until Ctrl-C.

    Decisions about reads are not announced and cannot be seen from here: they are in each process's metrics and spans.
    Without --database, those of all databases that are cached when it begins.
    """
    from ..decisions import EVICTION_CAUSES
    from .show import seconds
    from .tail import tail as act

    for one in cause or ():
        if one not in EVICTION_CAUSES:
            raise CacheError(f"--cause: takes one of {', '.join(EVICTION_CAUSES)}, got {one!r}")
    until = None if for_ is None else seconds("--for", for_)

    def listen(server: Server) -> None:
        databases = [database] if database is not None else server.databases()
        if not databases:
            server.one()  # says what is missing
        act(
            server,
            databases,
            tables=table or (),
            causes=cause or (),
            count=count,
            seconds=until,
            json=json,
        )

    try:
        _asked(listen, url, prefix, database, sentinel, service)
    except KeyboardInterrupt:
        return


@app.command()
def top(
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metrics", help="http://host:port/metrics of a process; may be repeated, and is added up."
        ),
    ] = None,
    by: Annotated[
        str, typer.Option("--by", help="misses, churn (evictions per hit) or saved (time).")
    ] = "misses",
    limit: Annotated[int, typer.Option("--limit", min=1, help="Tables shown, at most.")] = 20,
    watch: Annotated[
        str | None, typer.Option("--watch", help="Go on, every so many seconds, with what was counted since.")
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", "-n", min=1, help="With --watch: end after so many.")
    ] = None,
    json: Json = False,
) -> None:
    """Print the tables with the most misses, churn or saved time, as the processes' metrics count them."""
    from .show import seconds
    from .top import top as act

    every = None if watch is None else seconds("--watch", watch)
    try:
        act(metrics or (), by=by, limit=limit, watch=every, count=count, json=json)
    except KeyboardInterrupt:
        return


@app.command()
def stats(
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="Keys of the server that are looked at, at most.")
    ] = 100_000,
    url: Url = "",
    prefix: Prefix = "sqlacache",
    database: Database = None,
    sentinel: Sentinels = None,
    service: Service = None,
    json: Json = False,
) -> None:
    """Count what is stored, table by table, and show what holds for all of it."""
    from .stats import stats as act

    _asked(
        lambda server: act(server, server.one(), limit, json=json), url, prefix, database, sentinel, service
    )


@app.command()
def touched(
    table: Annotated[str, typer.Argument(help="The table that was written, as users or shop.users.")],
    columns: Annotated[
        str | None,
        typer.Option("--columns", help="Columns written, as a,b; leave it out if rows came or went."),
    ] = None,
    pks: Keys = None,
    digest_key: DigestKey = None,
    if_known: Annotated[
        bool, typer.Option("--if-known", help="End well if the cache has nothing of the table.")
    ] = False,
    url: Url = "",
    prefix: Prefix = "sqlacache",
    database: Database = None,
    sentinel: Sentinels = None,
    service: Service = None,
    json: Json = False,
) -> None:
    """Tell of a write made elsewhere (a migration, psql, COPY): evict what depends on it, in every process.

    The command knows no foreign keys and no triggers: name the tables that those wrote, too.
    """
    place = (url, prefix, database, sentinel, service, digest_key)
    _evict("touched", table, columns, pks, if_known, json, place)


@app.command()
def invalidate(
    table: Annotated[str | None, typer.Argument(help="The table, as users or shop.users.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Evict everything of the database instead.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --all: do not ask.")] = False,
    pks: Keys = None,
    digest_key: DigestKey = None,
    if_known: Annotated[
        bool, typer.Option("--if-known", help="End well if the cache has nothing of the table.")
    ] = False,
    url: Url = "",
    prefix: Prefix = "sqlacache",
    database: Database = None,
    sentinel: Sentinels = None,
    service: Service = None,
    json: Json = False,
) -> None:
    """Evict what depends on a table or on rows of it, or everything, in every process."""
    place = (url, prefix, database, sentinel, service, digest_key)
    if (table is None) != everything:
        raise CacheError("invalidate: takes a table, or --all")
    if not everything:
        assert table is not None  # or --all
        _evict("invalidate", table, None, pks, if_known, json, place)
        return
    if pks is not None:
        raise CacheError("--pks: goes with a table, not with --all")

    def act(server: Server) -> None:
        from .writes import replace_everything, told

        store = server.one()
        if not yes:
            _confirm(
                f"Evict everything of {store.layout.database!r} under {prefix!r} at {server.name}? [y/N] "
            )
        told(replace_everything(store, "sqlacache invalidate"), json=json)

    _asked(act, *place)


def _confirm(question: str) -> None:
    """Ask on standard error, so that the output stays what it is. Raises :class:`typer.Abort` unless told yes."""
    sys.stderr.write(safe(question))
    sys.stderr.flush()
    try:
        answer = sys.stdin.readline() if sys.stdin is not None else ""
    except (OSError, ValueError):  # nobody is there to answer
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise typer.Abort


def _evict(
    command: str,
    table: str,
    columns: str | None,
    pks: str | None,
    if_known: bool,
    json: bool,
    place: tuple[str, str, str | None, str | None, str | None, str | None],
) -> None:
    from .writes import listed, nothing, replace_rows, told

    keys, written = listed(pks, "--pks"), listed(columns, "--columns")

    def act(server: Server) -> None:
        store = server.one()
        if if_known and not server.is_known(store, table):
            told(nothing(table), json=json)
            return
        cause: Any = "touched" if command == "touched" else "explicit"
        told(replace_rows(server, store, table, keys, written, cause, f"sqlacache {command}"), json=json)

    _asked(act, *place)


@app.command()
def mode(
    wanted: Annotated[
        str | None,
        typer.Argument(metavar="[on|write_only|off]", help="Switch to it; without, show what it is."),
    ] = None,
    ttl: Annotated[
        str | None, typer.Option("--ttl", help="Back by itself after this time, as 90s, 15m, 1h.")
    ] = None,
    url: Url = "",
    prefix: Prefix = "sqlacache",
    sentinel: Sentinels = None,
    service: Service = None,
    json: Json = False,
) -> None:
    """Show or switch the mode of every process under the prefix; `on` leaves each with its own.

    They go on invalidating also when `off`, so that nothing is stale when they are switched on again.
    """
    from .health import mode as act

    _asked(lambda server: act(server, wanted, ttl, json=json), url, prefix, None, sentinel, service)


@app.command()
def health(
    url: Url = "",
    prefix: Prefix = "sqlacache",
    sentinel: Sentinels = None,
    service: Service = None,
    json: Json = False,
) -> int:
    """Say whether the server answers and suits the cache. Exit status: 0 ok, 1 degraded, 2 unreachable."""
    from ..backend import masked
    from .health import health as act
    from .health import unreachable

    try:
        status: int = _asked(lambda server: act(server, json=json), url, prefix, None, sentinel, service)
    except TransportError as error:
        unreachable(masked(url), error, json=json)
        raise
    return status


@app.command()
def names(json: Json = False) -> None:
    """Print every metric, span and attribute, with what it means."""
    from .names import names as act

    act(json=json)


def run(arguments: Sequence[str]) -> int:
    """Carry out a command line; return the exit status. What is wrong is told in one line."""
    for argument in arguments:
        if any("\ud800" <= char <= "\udfff" for char in argument):
            notice(f"takes text that can be encoded, got {argument!r}")
            return 2
    try:
        status = app(list(arguments) or ["--help"], prog_name="sqlacache", standalone_mode=False)
        sys.stdout.flush()
    except _REFUSED as error:
        notice(error.format_message())
        return 2
    except (typer.Abort, KeyboardInterrupt):
        notice("stopped: nothing was done")
        return 1
    except (BrokenPipeError, SystemExit):  # the latter is how typer ends for the former
        # Who read the output has seen enough; and nothing more is to be written when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except CacheError as error:
        notice(error)
        return 2
    return status if isinstance(status, int) else 0
