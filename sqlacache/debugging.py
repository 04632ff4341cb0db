"""What ``debug=True`` adds to decisions and causes: the line of the application that asked, and the parameters.

A read is decided, and a write noted, inside the call that the application made, so that its frame lies further up the
stack. In an ``AsyncSession`` the stack ends at SQLAlchemy's greenlet; it goes on where the greenlet's parent waits,
inside the ``await`` of the application's own coroutine. At an event loop the search is over: below it is whoever
started the loop, not whoever asked. A coroutine of SQLAlchemy's that was made a task by itself
(``gather(session.get(...))``) has no caller there, and its site is not known.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from greenlet import getcurrent

from .decisions import CallSite, Decision, Parameters
from .tags import ChangeLike
from .write.ledger import Ledger, existing_ledger

if TYPE_CHECKING:
    from .binding import Binding
    from .read.identify import Read

_LOOPS = frozenset({"asyncio.base_events", "asyncio.events", "asyncio.runners", "threading"})
_BETWEEN = frozenset(
    {"sqlalchemy", "sqlacache", "sqlacache_telemetry", "greenlet", "sqlmodel", "flask_sqlalchemy"}
).union(sys.stdlib_module_names)
"""Packages that hand on what the application asks for."""

MAX_PARAMETERS = 20
MAX_TEXT = 200
"""Characters of a value shown."""


class Written(NamedTuple):
    """Where a statement that wrote came from."""

    site: CallSite | None
    parameters: Parameters | None


class _Noted(NamedTuple):
    start: int
    """Of what was noted of the statement, among its ledger's changes."""
    statement: str
    written: Written


Origins = Mapping[tuple[str, str, str], Written]
"""By table, cause and summary of what was written."""


def call_site() -> CallSite | None:
    """Return the innermost frame of the application; ``None`` if it is not on the stack."""
    frame: Any = sys._getframe(1)
    greenlet: Any = getcurrent()
    while greenlet is not None:
        while frame is not None:
            module = frame.f_globals.get("__name__")
            if module in _LOOPS:
                return None
            if isinstance(module, str) and module.partition(".")[0] not in _BETWEEN:
                code = frame.f_code
                return CallSite(code.co_filename, frame.f_lineno, getattr(code, "co_qualname", code.co_name))
            frame = frame.f_back
        greenlet = greenlet.parent
        frame = greenlet.gr_frame if greenlet is not None else None
    return None


class Debug:
    """What one bound engine's decisions and causes are completed with."""

    def __init__(self, binding: Binding) -> None:
        self._binding = binding
        self._exposes = binding.settings.expose_values
        self._noted: WeakKeyDictionary[Ledger, list[_Noted]] = WeakKeyDictionary()

    def completed(self, decision: Decision, read: Read) -> Decision:
        """Return a decision with where it was asked for and with which parameters."""
        cause, history = decision.cause, self._binding.manager.history
        if cause is not None and cause.site is None and history is not None:
            cause = history.completed(cause)
        parameters = self.parameters(read.parameters) if read.key is not None else None
        return decision._replace(site=call_site(), parameters=parameters, cause=cause)

    def parameters(self, given: Mapping[str, Any], *, conceal: bool = False) -> Parameters:
        """Return parameters as they may be shown; with ``conceal``, without their values in any case."""
        show = _shown if self._exposes and not conceal else _type_of
        shown = {name: show(value) for name, value in list(given.items())[:MAX_PARAMETERS]}
        if len(given) > MAX_PARAMETERS:
            shown["..."] = f"{len(given) - MAX_PARAMETERS} more"
        return shown

    def _conceals(self, changes: Iterable[ChangeLike]) -> bool:
        """Tell whether what is written may be a column of which nothing is to be kept."""
        tables = [self._binding.table(change.table) for change in changes]
        return any(table is None or self._binding.settings.excluded(table) for table in tables)

    def note(self, connection: Any, context: Any) -> None:
        """Remember where the statement of ``context``, just noted in its connection's ledger, comes from."""
        ledger = existing_ledger(connection)
        if ledger is None or ledger.last_context is not context or ledger.fresh is None:
            return
        start = ledger.fresh
        if start == len(ledger.changes):
            return  # it writes what was noted before
        noted = self._noted.setdefault(ledger, [])
        while noted and noted[-1].start >= start:
            noted.pop()  # rolled back, or of a transaction before
        rows: Any = getattr(context, "compiled_parameters", None)
        named = None
        if rows and isinstance(rows[0], Mapping):
            named = self.parameters(rows[0], conceal=self._conceals(ledger.changes[start:]))
        written = Written(call_site(), named)
        noted.append(_Noted(start, ledger.changes[start].statement, written))

    def origins(self, ledger: Ledger) -> Origins:
        """Return where the uncommitted writes of a connection come from."""
        changes = ledger.changes
        found: dict[tuple[str, str, str], Written] = {}
        noted = [
            one
            for one in self._noted.get(ledger, ())
            if one.start < len(changes) and changes[one.start].statement == one.statement
        ]
        ends = [*(one.start for one in noted[1:]), len(changes)]
        for one, end in zip(noted, ends):
            for change in changes[one.start : end]:
                found.setdefault((change.table, change.cause, change.statement), one.written)
        return found

    def origins_of_call(self, changes: Iterable[ChangeLike]) -> Origins:
        """Return where a call comes from that replaces stamps at once."""
        written = Written(call_site(), None)
        return {(change.table, change.cause, change.statement): written for change in changes}


def _type_of(value: Any) -> str:
    return f"<{type(value).__name__}>"


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as error:  # the application's own class: its error is shown, and no query's
        return f"<{type(value).__name__}, of which repr() raised {type(error).__name__}>"
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}\u2026"
