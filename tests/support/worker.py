"""A worker process of an application: an engine, a cache and the tests' models, driven by lines of JSON.

Started by :mod:`tests.support.workers` as ``python -m tests.support.worker``. Each line is
``{"id": 1, "do": "get", ...}``, answered by ``{"id": 1, "value": ...}`` or ``{"id": 1, "error": ...}`` when it is done;
commands run at the same time unless the caller waits. The first is ``start``. The process ends when its input does.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import enum
import inspect as signatures
import json
import os
import sys
import threading
import traceback
from decimal import Decimal
from typing import Any

from sqlalchemy import delete, func, insert, inspect, select, update

from tests.support import models
from tests.support.armed import Arms
from tests.support.databases import make_engine, make_sessions
from tests.support.fronts import FRONT, Front

MODELS = {"*": {"timeout": 3600}, "tests.support.models.AuditLog": None}


class Process:
    """What the worker holds, and its commands: each ``do_<name>`` is one."""

    def __init__(self) -> None:
        self.engine: Any = None
        self.sessions: Any = None
        self.database: str | None = None
        self.open: dict[str, Any] = {}
        self.cache: Any = None
        self.seen: Any = None
        self.arms: Any = None
        self.evictions: list[Any] = []

    # -- the process ---------------------------------------------------------------------------------------------------

    async def do_start(
        self,
        url: str,
        database: str | None,
        configure: dict[str, Any],
        pool_size: int,
        bind: bool,
        front: Front = FRONT,
    ) -> None:
        """The first command: make the engine and the cache, and bind unless the command ``bind`` is to do it."""
        from sqlacache.testing import Recorder
        from tests.support.fronts import configure as make_cache

        self.engine = make_engine(url, pool_size=pool_size, front=front)
        self.sessions = make_sessions(self.engine)
        self.database = database
        self.arms = Arms(self.engine)
        given = {"models": MODELS, "telemetry": None, "name": f"worker-{os.getpid()}", **configure}
        self.cache = make_cache(front=front, **given)
        self.seen = Recorder(self.cache)
        self.cache.add_observer(self.seen)
        if bind:
            await self.do_bind()

    async def do_ping(self) -> int:
        return os.getpid()

    async def do_bind(self) -> None:
        await self.cache.bind(self.engine, database=self.database)
        await self.arms.find(self.cache)

    async def do_disconnect(self) -> None:
        await self.cache.disconnect()

    async def do_exit(self) -> None:
        for session in self.open.values():
            await session.close()
        await self.cache.disconnect()
        await self.engine.dispose()

    # -- reads ---------------------------------------------------------------------------------------------------------

    async def do_get(self, model: str, key: Any, session: str | None = None) -> Any:
        async with self._session(session) as current:
            return _row(await current.get(_model(model), _key(key)))

    async def do_list(
        self,
        model: str,
        where: dict[str, Any] | None = None,
        limit: int | None = None,
        session: str | None = None,
    ) -> Any:
        entity = _model(model)
        statement = select(entity).order_by(*inspect(entity).primary_key)
        statement = statement.where(*_conditions(entity, where)) if where else statement
        async with self._session(session) as current:
            found = (await current.execute(statement.limit(limit) if limit else statement)).scalars()
            return [_row(one) for one in found]

    async def do_count(
        self, model: str, where: dict[str, Any] | None = None, session: str | None = None
    ) -> Any:
        entity = _model(model)
        statement = select(func.count()).select_from(entity)
        statement = statement.where(*_conditions(entity, where)) if where else statement
        async with self._session(session) as current:
            return (await current.execute(statement)).scalar()

    async def do_decided(self, read: str, **arguments: Any) -> Any:
        """Do a read; return its value and the decisions that it led to (of reads at the same time, too)."""
        begin = len(self.seen.decisions)
        value = await getattr(self, f"do_{read}")(**arguments)
        return {"value": value, "decisions": [_plain(one) for one in self.seen.decisions[begin:]]}

    # -- writes --------------------------------------------------------------------------------------------------------

    async def do_update(
        self, model: str, key: Any, values: dict[str, Any], session: str | None = None
    ) -> Any:
        entity = _model(model)
        async with self._writing(session) as current:
            found = await current.get(entity, _key(key))
            for name, value in _values(entity, values).items():
                setattr(found, name, value)

    async def do_insert(self, model: str, values: dict[str, Any], session: str | None = None) -> Any:
        entity = _model(model)
        async with self._writing(session) as current:
            added = entity(**_values(entity, values))
            current.add(added)
            await current.flush()
            return [_plain(part) for part in inspect(added).identity]

    async def do_insert_many(self, model: str, rows: list[dict[str, Any]], session: str | None = None) -> Any:
        entity = _model(model)
        async with self._writing(session) as current:
            await current.execute(insert(entity.__table__), [_values(entity, row) for row in rows])

    async def do_delete(self, model: str, key: Any, session: str | None = None) -> Any:
        async with self._writing(session) as current:
            await current.delete(await current.get(_model(model), _key(key)))

    async def do_bulk_update(
        self,
        model: str,
        values: dict[str, Any],
        where: dict[str, Any] | None = None,
        session: str | None = None,
    ) -> Any:
        entity = _model(model)
        statement = update(entity).where(*_conditions(entity, where or {})).values(_values(entity, values))
        async with self._writing(session) as current:
            done = await current.execute(statement, execution_options={"synchronize_session": False})
            return done.rowcount

    async def do_bulk_delete(self, model: str, where: dict[str, Any], session: str | None = None) -> Any:
        entity = _model(model)
        statement = delete(entity).where(*_conditions(entity, where))
        async with self._writing(session) as current:
            done = await current.execute(statement, execution_options={"synchronize_session": False})
            return done.rowcount

    # -- named sessions ------------------------------------------------------------------------------------------------

    async def do_begin(self, session: str, isolation: str | None = None) -> None:
        current = self.open[session] = self.sessions()
        await current.begin()
        if isolation is not None:
            await current.connection(execution_options={"isolation_level": isolation})

    async def do_flush(self, session: str) -> None:
        await self.open[session].flush()

    async def do_expire_all(self, session: str) -> None:
        self.open[session].expire_all()

    async def do_commit(self, session: str) -> None:
        await self.open[session].commit()
        await self.open.pop(session).close()

    async def do_rollback(self, session: str) -> None:
        await self.open[session].rollback()
        await self.open.pop(session).close()

    # -- the cache -----------------------------------------------------------------------------------------------------

    async def do_decisions(self) -> Any:
        """Return the decisions since the last time."""
        return [_plain(one) for one in _drained(self.seen.decisions)]

    async def do_invalidations(self) -> Any:
        """Return the invalidations since the last time."""
        return [_plain(one) for one in _drained(self.seen.invalidations)]

    async def do_on_evict(self) -> None:
        """Add a hook that keeps what it is told."""
        self.cache.on_evict(self.evictions.append)

    async def do_evictions(self) -> Any:
        """Return what the hook was told since the last time."""
        return [_plain(one) for one in _drained(self.evictions)]

    async def do_health(self) -> Any:
        return await self.do_manager("health")

    async def do_set_mode(self, mode: str, **more: Any) -> Any:
        return await self.do_manager("set_mode", [mode], more)

    async def do_invalidate(self, model: str, pks: list[Any] | None = None) -> Any:
        keys = None if pks is None else [_key(key) for key in pks]
        return await self.cache.invalidate(_model(model), pks=keys)

    async def do_invalidate_all(self) -> Any:
        return await self.do_manager("invalidate_all")

    async def do_explain_get(self, model: str, key: Any) -> Any:
        async with self.sessions() as current:
            return _plain(await self.cache.explain_get(current, _model(model), _key(key)))

    async def do_manager(
        self, method: str, args: list[Any] | None = None, kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call any method of the cache, or read an attribute; ``{"model": "User"}`` stands for a model."""
        found = getattr(self.cache, method)
        if callable(found):
            found = found(
                *map(_argument, args or []), **{name: _argument(one) for name, one in (kwargs or {}).items()}
            )
        return _plain(await found if signatures.isawaitable(found) else found)

    # -- places to be killed or held at --------------------------------------------------------------------------------

    async def do_arm(self, step: str, when: str = "before", action: str = "kill", nth: int = 1) -> None:
        self.arms.arm(step, when, action, nth)

    async def do_reached(self, step: str, when: str = "before") -> None:
        await self.arms.reached(step, when)

    async def do_release(self, step: str, when: str = "before") -> None:
        self.arms.release(step, when)

    async def do_disarm(self) -> None:
        self.arms.disarm()

    # ------------------------------------------------------------------------------------------------------------------

    def _session(self, name: str | None) -> Any:
        return self.sessions() if name is None else _Kept(self.open[name])

    def _writing(self, name: str | None) -> Any:
        return _Committed(self.sessions()) if name is None else _Kept(self.open[name])


class _Kept:
    """A named session: it stays open, and commits when told to."""

    def __init__(self, session: Any) -> None:
        self._session = session

    async def __aenter__(self) -> Any:
        return self._session

    async def __aexit__(self, *exc: Any) -> None:
        pass


class _Committed(_Kept):
    """A session of one write: it commits and closes."""

    async def __aexit__(self, kind: Any, *exc: Any) -> None:
        try:
            if kind is None:
                await self._session.commit()
        finally:
            await self._session.close()


# -- values to and from JSON -------------------------------------------------------------------------------------------


def _model(name: str) -> Any:
    return getattr(models, name)


def _argument(given: Any) -> Any:
    return _model(given["model"]) if isinstance(given, dict) and set(given) == {"model"} else given


def _key(given: Any) -> Any:
    return tuple(given) if isinstance(given, list) else given


def _values(entity: Any, given: dict[str, Any]) -> dict[str, Any]:
    columns = inspect(entity).columns
    return {name: _value(columns[name].type, value) for name, value in given.items()}


def _conditions(entity: Any, where: dict[str, Any]) -> list[Any]:
    """One equality for each name; a list means IN."""
    columns = inspect(entity).columns
    return [
        columns[name].in_([_value(columns[name].type, one) for one in value])
        if isinstance(value, list)
        else columns[name] == _value(columns[name].type, value)
        for name, value in where.items()
    ]


def _value(kind: Any, given: Any) -> Any:
    try:
        wanted = kind.python_type
    except NotImplementedError:
        return given
    if given is None or isinstance(given, wanted):
        return given
    if wanted is Decimal:
        return Decimal(str(given))
    if wanted is datetime.datetime:
        return datetime.datetime.fromisoformat(given)
    if wanted is bytes:
        return bytes.fromhex(given)
    if issubclass(wanted, enum.Enum):
        return wanted[given]
    return given


def _row(found: Any) -> Any:
    if found is None:
        return None
    return {column.key: _plain(getattr(found, column.key)) for column in inspect(type(found)).column_attrs}


def _plain(value: Any) -> Any:
    """Return what JSON can carry: Decimal as text, bytes as hex, an enum's name, records as objects."""
    if value is None or (isinstance(value, (bool, int, float, str)) and not isinstance(value, enum.Enum)):
        return value
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, bytes):
        return value.hex()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "_asdict"):
        return {name: _plain(one) for name, one in value._asdict().items()}
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(one) for one in value]
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    return str(value)


def _drained(records: list[Any]) -> list[Any]:
    taken = list(records)
    records.clear()
    return taken


# -- the lines ---------------------------------------------------------------------------------------------------------


def _read_lines(lines: Any, loop: asyncio.AbstractEventLoop, arrived: asyncio.Queue[Any]) -> None:
    for line in lines:
        loop.call_soon_threadsafe(arrived.put_nowait, json.loads(line))
    os._exit(0)  # nobody is there any more; the loop may be blocked


async def _answer(process: Process, command: dict[str, Any], answers: Any) -> None:
    number, name = command.pop("id"), command.pop("do")
    try:
        reply = {"id": number, "value": await getattr(process, f"do_{name}")(**command)}
    except Exception as error:
        traceback.print_exc()
        reply = {"id": number, "error": type(error).__name__, "text": str(error)}
    answers.write(f"{json.dumps(reply)}\n")
    answers.flush()


async def _main(answers: Any, process: Process) -> None:
    arrived: asyncio.Queue[Any] = asyncio.Queue()
    reading = threading.Thread(
        target=_read_lines, args=(sys.stdin, asyncio.get_running_loop(), arrived), daemon=True
    )
    reading.start()
    under_way: set[asyncio.Task[None]] = set()
    while True:
        command = await arrived.get()
        task = asyncio.ensure_future(_answer(process, command, answers))
        if command["do"] == "exit":
            await task
            os._exit(0)
        under_way.add(task)
        task.add_done_callback(under_way.discard)


def serve(process: Process) -> None:
    """Do what the lines say, until they end."""
    # What anybody prints must not mix with the answers.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    asyncio.run(_main(replies, process))


if __name__ == "__main__":
    serve(Process())
