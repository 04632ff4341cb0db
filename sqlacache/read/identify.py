"""What a read is, and whether the cache may speak of it: the first two steps of the way of a read."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from sqlalchemy.pool import SingletonThreadPool

from ..decisions import BypassReason, Tier
from ..errors import ConfigError, SerializationError
from ..store.codec import encode_values
from ..store.stamps import StampView, Verdict
from ..tags import EVERYTHING
from .compiled import statement_key
from .session import (
    STRICT_LEVELS,
    bind_options,
    driver_in_transaction,
    flush_as_a_query_would,
    held_connection,
    in_greenlet,
    isolation_level,
    refreshes,
)
from .statement import Dependency, Plan, analyse, selects, stamps_of

if TYPE_CHECKING:
    from ..binding import Binding

_SAME_ROWS = {"aiosqlite": "pysqlite"}
"""Drivers that only hand on what another one returns, for the same SQL and parameters: their entries are shared.

``psycopg`` has one name for both of its fronts. ``asyncmy`` and ``pymysql`` send different SQL."""

_threads = itertools.count(1)

MAX_PLANS = 2000
"""Shapes of statements remembered per binding; beyond, the half that was not used for longest leaves."""


class Read:
    """One read under way: what is known of it so far."""

    __slots__ = (
        "at",
        "dependencies",
        "held",
        "key",
        "keys",
        "left",
        "names",
        "options",
        "parameters",
        "plan",
        "reason",
        "snapshot",
        "stamps",
        "started",
        "tier",
        "timeout",
        "under",
        "verdict",
        "waited",
        "why",
    )

    def __init__(self) -> None:
        self.at = time.time()
        self.started = time.perf_counter()
        self.plan: Plan | None = None
        self.parameters: dict[str, Any] = {}
        self.dependencies: Sequence[Dependency] = ()
        self.names: list[str] = []
        self.keys: frozenset[str] = frozenset()
        self.key: str | None = None
        self.timeout = 0.0
        self.left = 0.0
        """Seconds that the calls of the store may still take."""
        self.held: Any = None
        self.options: Mapping[str, Any] = {}
        self.reason: BypassReason | None = None
        self.tier: Tier | None = None
        self.under: Any = None
        self.snapshot = False
        """The session's transaction may have begun before the stamps were sampled, and sees no later commit."""
        self.waited = False
        """Other tasks may have run since the read began."""
        self.why = ""
        self.verdict: Verdict | None = None
        self.stamps: Sequence[StampView | None] = ()
        """The stamps of ``names`` as sampled: what a fill is stored under."""

    def depends(self, plan: Plan, name: str) -> None:
        """Take the entry's name, and what it depends on with these parameters."""
        self.dependencies = plan.dependencies_of(self.parameters)
        self.names = [EVERYTHING, *stamps_of(self.dependencies)]
        self.keys = frozenset(tag for shape, tags in self.dependencies if shape.keyed for tag in tags)
        self.key = name

    def tags(self) -> tuple[str, ...]:
        """Return what the read depends on, for people."""
        if len(self.dependencies) == 1:
            (shape, tags), *_ = self.dependencies
            return tags or (shape.name,)
        return tuple(tag for shape, tags in self.dependencies for tag in (tags or (shape.name,)))


def name_of(plan: Plan, parameters: Mapping[str, Any], more: Sequence[Any] = ()) -> str:
    """Return the name of the entry of a plan with these parameters (by bind name), and whatever ``more`` it varies by.

    Raises :class:`~sqlacache.errors.SerializationError`, KeyError, and what the parameters' types raise.
    """
    processed = plan.processed(parameters)
    digest = plan.hasher.copy()
    digest.update(encode_values([*[_keyable(processed[name]) for name in plan.order], *more]))
    return f"{plan.tables[0]}:{plan.op}:{digest.hexdigest()}"


class Identifier:
    """Finds a statement's plan, key and dependencies, or the reason why the cache stays out of it."""

    def __init__(self, binding: Binding) -> None:
        self.binding = binding
        self.settings = binding.settings
        self._plans: dict[Any, Plan] = {}
        self.asked = 0
        """Lookups so far: what of the plans was not asked for the longest leaves first."""
        self._threads = threading.local()

    def _thread(self) -> int:
        """Return the number of this thread: idents are used again, by threads that have another connection."""
        number: int | None = getattr(self._threads, "number", None)
        if number is None:
            number = self._threads.number = next(_threads)
        return number

    def run(self, state: Any, bind: Any, options: Mapping[str, Any], read: Read) -> BypassReason | None:
        """Fill in ``read``; return why it must bypass the cache, or ``None`` if it may be looked up."""
        return self._gate(state, options) or self._identify(state, bind, options, read)

    def _gate(self, state: Any, options: Mapping[str, Any]) -> BypassReason | None:
        """Reasons that need no look at the statement's shape."""
        if self.binding.manager.mode not in ("on", "shadow") or self.binding.manager.is_bypassed():
            return "disabled"
        if options.get("sqlacache_skip"):
            return "opted_out"
        if not state.is_select and not selects(state.statement):
            return "raw_sql"
        if options.get("yield_per") or options.get("stream_results"):
            return "streaming"
        if refreshes(options.get("_sa_orm_load_options")):
            return "refresh"
        if getattr(state.statement, "_for_update_arg", None) is not None:
            return "locking_read"
        return None

    def _identify(self, state: Any, bind: Any, options: Mapping[str, Any], read: Read) -> BypassReason | None:
        """Find the statement's plan, parameters, key and dependencies; and whether this session may use the cache.

        A statement on models that are not configured leaves at its plan: up to there, little may be done.
        """
        session = state.session
        dialect = self.binding.engine.dialect
        key = statement_key(state.statement)
        if key is None:
            return "unkeyable_params"
        read.held = held_connection(session, dialect)
        read.options = bind_options(bind, read.held)
        given = state.parameters or {}
        if type(given) is not dict and not isinstance(given, Mapping):
            return "unkeyable_params"
        names = tuple(sorted(given)) if given else ()
        translate = options.get("schema_translate_map") or read.options.get("schema_translate_map")
        declared = options.get("sqlacache_depends_on") or ()
        if declared:
            if isinstance(declared, str) or not all(isinstance(name, str) for name in declared):
                raise ConfigError(f"sqlacache_depends_on: takes a collection of names, got {declared!r}")
            declared = tuple(declared)
        translated = repr(sorted(translate.items(), key=repr)) if translate else None
        lookup = (key.shape, names, translated, declared)
        plan = self._plans.get(lookup)
        if plan is None:
            given_cache = {**read.options, **options}.get(
                "compiled_cache", self.binding.engine._compiled_cache
            )
            plan = self._analyse(state, lookup, translate, given_cache)
        self.count(plan)
        read.plan = plan
        policy = plan.policy
        if plan.bypass is not None and not plan.sources:
            read.why = plan.notes
            return plan.bypass
        if policy.off:
            return "opted_out"
        if plan.op not in policy.ops and not options.get("sqlacache_force"):
            return "not_configured"
        if plan.bypass is not None:
            read.why = plan.notes
            return plan.bypass
        if dialect.is_async and not in_greenlet():
            return "disabled"  # an asynchronous driver would fail here, and so must the cached read
        reason = self.session_state(session, bind, options, read, plan)
        if reason is not None:
            return reason
        read.timeout = self.settings.seconds(options.get("sqlacache_timeout"), policy.timeout)
        try:
            read.parameters = plan.parameters(key, given)
            more = []
            vary = self.settings.vary
            if vary is not None:
                more.append(vary(session))
            if isinstance(self.binding.engine.pool, SingletonThreadPool):
                more.append(self._thread())  # in memory, SQLite has a database for each
            name = name_of(plan, read.parameters, more)
        except SerializationError as error:
            read.why = str(error)
            return "unkeyable_params"
        except Exception as error:
            # A parameter that is missing or that its type refuses: the real query raises what it raises.
            read.why = f"{type(error).__name__} in a parameter or in vary()"
            return "unkeyable_params"
        read.depends(plan, name)
        return None

    def count(self, plan: Plan) -> None:
        """Note that a plan was asked for."""
        self.asked = plan.asked = self.asked + 1

    def _analyse(
        self,
        state: Any,
        lookup: tuple[Any, tuple[str, ...], str | None, tuple[str, ...]],
        translate: Any,
        compiled_cache: Any,
    ) -> Plan:
        """Make the plan of a statement's shape, and remember it."""
        _, names, translated, declared = lookup
        binding = self.binding
        plan = analyse(
            state.statement,
            binding.engine.dialect,
            compiled_cache,
            names,
            translate,
            binding.canonical,
            depends_on=declared,
            pure_functions=binding.pure_functions,
            views=binding.views,
            declared_views=self.settings.depends_on,
            conceal=self.settings.digests.conceal,
            excluded=self.settings.excluded,
        )
        if plan.bypass is None:
            for name in plan.declared:  # of which nobody can tell what is used
                if any(self.settings.excluded(table) for table in binding.models.named(name)):
                    plan.bypass, plan.notes = "opted_out", f"it may use what is excluded of {name}"
        named = [table for name in plan.declared if (table := binding.models.table(name)) is not None]
        mapped = any(binding.models.mappers(table) for table in plan.sources)
        plan.policy = self.settings.policy(plan.sources if mapped or not named else named)
        for table in plan.sources:
            binding.use(table)
        if plan.bypass is None:
            plan.limit(binding.admit)
            plan.order = tuple(sorted(plan.compiled.bind_names.values()))
            identity = (
                binding.database,
                binding.engine.dialect.name,
                _SAME_ROWS.get(binding.engine.dialect.driver, binding.engine.dialect.driver),
                translated or "",
                *declared,
            )
            plan.hasher = blake2b(
                "\0".join((*identity, plan.sql)).encode(),
                digest_size=16,
                key=self.settings.digests.entry_key,
            )
        if len(self._plans) >= MAX_PLANS:
            latest = sorted(self._plans.items(), key=lambda item: item[1].asked)[MAX_PLANS // 2 :]
            self._plans = dict(latest)
        self._plans[lookup] = plan
        return plan

    def session_state(
        self, session: Any, bind: Any, options: Mapping[str, Any], read: Read, plan: Plan
    ) -> BypassReason | None:
        """Reasons that lie in what the session or its connection has done so far."""
        binding = self.binding
        if read.options.get("stream_results") or read.options.get("yield_per"):
            return "streaming"
        if not options.get("sqlacache_explain"):
            read.waited = flush_as_a_query_would(session, options.get("_sa_orm_load_options"))
            if read.held is None:
                read.held = held_connection(session, binding.engine.dialect)
            if read.held is None and self.settings.vary is None and session.dispatch.after_begin:
                # What a listener does to the connection (SET search_path) must be done before anything is served.
                read.waited = True
                read.held = session.connection(bind_arguments={"bind": bind})
        dirty = binding.dirty_tables(read.held)
        if dirty and (EVERYTHING in dirty or not dirty.isdisjoint(plan.tables)):
            return "dirty_transaction"
        if read.held is not None and binding.has_session_state(read.held):
            return "connection_state"
        if self.settings.vary is None and not binding.row_security.isdisjoint(plan.tables):
            read.why = "row security decides what this session may see; give vary= what it decides by"
            return "connection_state"
        level = isolation_level(binding.engine.dialect, read.options)
        if level == "READ UNCOMMITTED":
            return "isolation"
        if binding.engine.dialect.name == "sqlite":
            if (
                read.held is not None
                and binding.began_with_a_read(read.held)
                and driver_in_transaction(read.held)
            ):
                return "isolation"
        elif level in STRICT_LEVELS:
            if not self.settings.relaxed_isolation:
                return "isolation"
            read.snapshot = read.held is not None
        return None


def _keyable(value: Any) -> Any:
    """Return what a bind processor made, as something that a key can be made of: SQLite's bytes are memoryviews."""
    if type(value) is memoryview:
        return value.tobytes()
    if type(value) is list:
        return [_keyable(one) for one in value]
    return value
