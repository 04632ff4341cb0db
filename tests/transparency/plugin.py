"""A pytest plugin that runs somebody else's tests with the cache under them, and writes down what became of each.

``SQLACACHE_TRANSPARENCY_MODE`` says how: ``plain`` (only write down), ``cached`` (every engine made is bound, reads are
answered as ever, and listeners of the engine are told of hits) or ``replayed`` (every eligible SELECT is loaded, and
then answered from the rows just loaded, so that replay is what the test sees). ``SQLACACHE_TRANSPARENCY_OUT`` names the
file that the outcomes go to, as JSON.

SQLAlchemy's private surface of this concern: ``Engine.__init__``, where all engines pass, and
``_AdhocProxiedConnection``, which stands for a connection while an engine's very first one is looked at.
"""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.pool import Pool
from sqlalchemy.pool.base import _AdhocProxiedConnection

import sqlacache
from sqlacache import events
from sqlacache.binding import Binding
from sqlacache.decisions import Decision
from sqlacache.errors import SerializationError
from sqlacache.models import is_mapped
from sqlacache.read.identify import Identifier
from sqlacache.read.path import ReadPath
from sqlacache.read.replay import MARKER, Capture, _ReplayDialectMixin, is_replay
from sqlacache.read.session import marked, real_bind

MODE = os.environ["SQLACACHE_TRANSPARENCY_MODE"]
OUT = Path(os.environ["SQLACACHE_TRANSPARENCY_OUT"])

counts: Counter[str] = Counter()


class Count(sqlacache.Observer):
    """Counts decisions by kind and reason."""

    def decided(self, decision: Decision, scope: Any) -> None:
        counts[f"{decision.decision} {decision.reason}" if decision.reason else decision.decision] += 1


# -- binding -----------------------------------------------------------------------------------------------------------

# "widen": reading old values back sends statements of its own, which tests that compare all statements would see.
manager = sqlacache.configure_sync(
    "mem://", {"*": {}}, telemetry=None, observers=[Count()], old_values="widen"
)
names = itertools.count(1)


def bind(engine: Engine) -> None:
    """Bind as ``manager.bind()`` does, but without a connection: tests count those, and mock them."""
    manager.models.refresh()
    manager.settings.resolve(manager.models.mappers, is_mapped)
    binding = Binding(manager, engine, f"database{next(names)}")
    binding.attach()
    events.add(binding)
    manager.hold(binding)
    counts["engines"] += 1


def bind_every_engine() -> None:
    initialise = Engine.__init__

    def __init__(
        self: Engine,
        pool: Any,
        dialect: Any,
        url: Any,
        logging_name: Any = None,
        echo: Any = None,
        query_cache_size: int = 500,
        execution_options: Any = None,
        hide_parameters: bool = False,
    ) -> None:  # create_engine() looks at the names of the parameters
        initialise(
            self,
            pool,
            dialect,
            url,
            logging_name,
            echo,
            query_cache_size,
            execution_options,
            hide_parameters,
        )
        if isinstance(pool, Pool) and not is_replay(self):
            bind(self)

    Engine.__init__ = __init__  # type: ignore[method-assign]  # SQLAlchemy has no event for it
    # An engine that bind() was given has connected before; these have not.
    _AdhocProxiedConnection.info = property(lambda self: {})  # type: ignore[assignment]
    _AdhocProxiedConnection.record_info = property(lambda self: {})  # type: ignore[assignment]


def listen_again() -> None:
    """Some fixtures take every listener away from ``Session`` and ``Mapper``."""
    for target, name, listener in (
        (Session, "do_orm_execute", events._do_orm_execute),
        (Mapper, "after_insert", events._after_insert),
    ):
        if not event.contains(target, name, listener):
            event.listen(target, name, listener)
            counts["listeners attached again"] += 1


# -- hits, as the engine's listeners would see the statement -----------------------------------------------------------


def announce_hits() -> None:
    """Show each hit to the listeners of the real engine, for the many tests that count or compare what is sent.

    They are asked of a hit then what they ask of a statement; that a hit sends nothing is tested elsewhere.
    """
    answer = _ReplayDialectMixin.do_execute

    def do_execute(self: Any, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        answer(self, cursor, statement, parameters, context)
        binding = events.binding_of(self._sqlacache_real)
        assert binding is not None
        dispatch, connection, options = (
            binding.engine.dispatch,
            context.root_connection,
            context.execution_options,
        )
        for listener in dispatch.before_execute:
            listener(connection, context.invoked_statement, [], options[MARKER].parameters, options)
        for name in ("before_cursor_execute", "after_cursor_execute"):
            for listener in getattr(dispatch, name):
                listener(connection, cursor, statement, parameters, context, False)

    _ReplayDialectMixin.do_execute = do_execute  # type: ignore[method-assign]  # silent as it is


# -- answering every eligible SELECT from replay -----------------------------------------------------------------------


def replay_everything() -> None:
    answer, session_state = ReadPath._answer, Identifier.session_state

    def _session_state(self: Identifier, *args: Any) -> Any:
        """A transaction that wrote is no hindrance: the rows are from this very moment."""
        reason = session_state(self, *args)
        return None if reason in ("dirty_transaction", "isolation") else reason

    def _answer(self: ReadPath, state: Any, bind: Any, inherited: Any, read: Any) -> Any:
        if read.reason is not None:
            return answer(self, state, bind, inherited, read)
        capture = Capture(read.plan.compiled, read.parameters)
        result = state.invoke_statement(
            execution_options=marked(state, capture), bind_arguments=real_bind(inherited, state)
        )
        if capture.mismatched or capture.rows is None or capture.description is None:
            counts["not replayed: rewritten"] += 1
            return result
        try:
            entry = self.binding.entry((), capture.description, capture.rows, 60.0, 0.0)
        except SerializationError:
            counts["not replayed: unserializable"] += 1
            return result
        result.close()
        return self._hit(state, bind, inherited, read, entry, None)

    ReadPath._answer = _answer  # type: ignore[method-assign]  # replay is to be judged, whatever the store has
    Identifier.session_state = _session_state  # type: ignore[method-assign]  # as above


# -- pytest ------------------------------------------------------------------------------------------------------------

outcomes: dict[str, str] = {}
details: dict[str, str] = {}


def pytest_configure(config: pytest.Config) -> None:
    if MODE != "plain":
        bind_every_engine()
    if MODE == "cached":
        announce_hits()
    elif MODE == "replayed":
        replay_everything()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if MODE != "plain":
        listen_again()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    known = outcomes.get(report.nodeid)
    if known is None or known == "passed":
        outcomes[report.nodeid] = report.outcome
    if report.failed:
        outcomes[report.nodeid] = "failed"
        details[report.nodeid] = details.get(report.nodeid, "") + report.longreprtext


def pytest_sessionfinish(session: pytest.Session) -> None:
    OUT.write_text(json.dumps({"outcomes": outcomes, "details": details, "counts": counts}, indent=1))
