"""The way of a read, from ``session.execute`` to rows.

:meth:`ReadPath.read` is the whole way on one screen: may this be cached at all, what is it, what does the store have,
then a hit (replay) or a miss (load, capture, fill). Every way out of it records one decision.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Literal

from ..decisions import BypassReason, Decision, FillOutcome, Load, MissReason, Tier
from ..errors import SerializationError, TransportError
from ..forks import renew
from ..store.stamps import Entry, Verdict, decide
from .flight import Flights
from .identify import Identifier, Read
from .replay import MARKER, Capture, Replay, Rewritten, lend, replay_engine
from .session import bind_options, invoke_plainly, marked, real_bind, takes_bind
from .verify import Verifier

if TYPE_CHECKING:
    from ..binding import Binding


HEARS = "_sqlacache_hears"
"""Where a :class:`sqlacache.DirectSession` that learns has a list, for what it is answered from."""


FAILED = "_sqlacache_failed"
"""Where such a session has why the server did not answer when it was asked for the read that now begins."""


class Explained(Exception):
    """Ends a dry read once it is known what it is (never leaves :mod:`sqlacache.explain`, which looks it up)."""

    def __init__(self, binding: Binding, read: Read, *, refresh: bool) -> None:
        super().__init__("explained")
        self.binding, self.read, self.refresh = binding, read, refresh


class ReadPath:
    """Answers the reads of one bound engine."""

    def __init__(self, binding: Binding) -> None:
        self.binding = binding
        self.settings = binding.settings
        self.identifier = Identifier(binding)
        self._verifier = Verifier(binding)
        self._flights = Flights(asynchronous=binding.engine.dialect.is_async)
        self._replay: Any = None
        self.forked()
        renew(self)

    def forked(self) -> None:
        self._making = threading.Lock()

    def read(self, state: Any, bind: Any, inherited: Replay | None) -> Any:
        """Answer one ``do_orm_execute``: a result, or ``None`` to let SQLAlchemy go on by itself."""
        read = Read()
        options = state.execution_options
        if takes_bind(state.session):
            read.reason = self.identifier.run(state, bind, options, read)
        else:
            read.reason, read.why = "rewritten", "the session's get_bind() does not take a bind"
        failed = vars(state.session).pop(FAILED, None)
        if failed is not None and read.reason is None:
            read.reason, read.why = "backend_unavailable", failed
        if options.get("sqlacache_explain"):
            raise Explained(self.binding, read, refresh=bool(options.get("sqlacache_refresh")))
        if read.key is None or read.reason is not None or not self.binding.store.keeps_bytes:
            return self._answer(state, bind, inherited, read)
        self._flights.approach(read.key)
        try:
            return self._answer(state, bind, inherited, read)
        finally:
            self._flights.depart(read.key)

    def leave(self, reason: BypassReason, why: str) -> None:
        """Record that a read was left to SQLAlchemy before anything was found out about it."""
        read = Read()
        read.reason, read.why = reason, why
        if self.binding.observers:
            self.binding.observers.decided(self._decision(read, "bypass", reason))

    def _answer(self, state: Any, bind: Any, inherited: Replay | None, read: Read) -> Any:
        refresh = bool(state.execution_options.get("sqlacache_refresh"))
        while read.reason is None:
            verdict = self._look_up(read, refresh=refresh)
            if verdict is None:
                break
            if verdict.entry is not None:
                if self._verifier.wants(read):
                    return self._verify(state, inherited, read, verdict, verdict.entry)
                if not self._verifier.is_shadow:
                    return self._hit(state, bind, inherited, read, verdict.entry, None)
                read.reason, read.why = "isolation", "its transaction may rightly say what was"
                break
            if not verdict.fillable or self._verifier.is_shadow:
                return self._miss(state, inherited, read, verdict)
            assert read.key is not None  # made by _identify
            nonces = (read.under, *(stamp.nonce for stamp in read.stamps if stamp is not None))
            flight, leads = self._flights.enter(read.key, nonces, may_wait=read.held is None, anew=refresh)
            if flight is None:
                return self._miss(state, inherited, read, verdict)
            if not leads:
                read.waited = True
                entry = flight.wait()
                if entry is not None:
                    return self._hit(state, bind, inherited, read, entry, "collapsed")
                continue
            entry = None
            try:
                result, entry = self._load(state, inherited, read, verdict)
                return result
            finally:
                self._flights.finish(flight, entry)
        return self._bypass(state, inherited, read)

    # -- what does the store have --------------------------------------------------------------------------------------

    def _look_up(self, read: Read, *, refresh: bool = False) -> Verdict | None:
        """Ask the store and decide; ``None`` (with a bypass reason) if nothing may be said."""
        store = self.binding.store
        assert read.key is not None and read.plan is not None  # made by _identify
        if self.binding.owed.meets(read.plan.tables):
            read.reason, read.why = "backend_unavailable", "an invalidation of these tables is owed"
            return None
        began = time.perf_counter()
        try:
            sample = store.lookup(read.key, read.names)
            if sample.bypass is not None:
                read.reason, read.why = sample.bypass, sample.why
                return None
            verdict = decide(read.names, read.keys, sample)
            if refresh and verdict.entry is not None:
                verdict = Verdict(None, "manual_invalidated", (), None, True)
            shapes = [] if verdict.entry else [shape for shape, _ in read.dependencies]
            if verdict.entry is None and not store.registered(shapes, read.names, sample):
                sampled, registered = store.sample(
                    read.names,
                    read.plan.tables,
                    shapes,
                    self.settings.stamp_ttl,
                    store.budget - (time.perf_counter() - began),
                )
                if sampled.bypass is not None:
                    read.reason, read.why = sampled.bypass, sampled.why
                    return None
                if not registered and verdict.reason == "absent":
                    read.reason = "writer_under_way"
                    return None
                fillable = registered and not any(
                    stamp is None or stamp.in_flight for stamp in sampled.stamps
                )
                verdict = verdict._replace(fillable=fillable)
                sample = sampled
        except TransportError as error:
            read.reason, read.why = "backend_unavailable", str(error)
            return None
        if read.snapshot and verdict.fillable:
            verdict = verdict._replace(fillable=False)
        read.verdict = verdict
        read.stamps, read.under, read.tier = sample.stamps, sample.under, sample.tier
        read.left = store.budget - (time.perf_counter() - began)
        return verdict

    # -- the three ways out --------------------------------------------------------------------------------------------

    def _hit(
        self, state: Any, bind: Any, inherited: Replay | None, read: Read, entry: Entry, tier: Tier | None
    ) -> Any:
        plan = read.plan
        assert plan is not None  # made by _identify
        engine = self._replay_engine()
        rows = self.binding.rows_of(entry)
        original = inherited.bind if inherited is not None else state.bind_arguments.get("bind")
        replay = Replay(plan.compiled, read.parameters, entry.description, rows, original)
        looked_up = time.perf_counter()
        try:
            if not self.binding.can_replay(state, engine):
                raise Rewritten("get_bind")
            lend(state.session, engine, bind_options(bind, read.held))
            result = state.invoke_statement(
                bind_arguments={"bind": engine}, execution_options=marked(state, replay)
            )
        except Rewritten:
            read.reason, read.why = (
                "rewritten",
                "a listener changed the statement, its parameters or its bind",
            )
            return self._bypass(state, inherited, read)
        hears = vars(state.session).get(HEARS)
        if hears is not None:
            hears.append((self.binding, read, entry))
        observers = self.binding.observers
        if observers:
            came_from = tier or read.tier or self.binding.store.tier
            if came_from == "remote":
                self.binding.manager.capacity.tell()
            observers.decided(self.hit(read, entry, len(rows), came_from, looked_up - read.started))
        return result

    def _replay_engine(self) -> Any:
        """Return the engine that hits are replayed on: one and the same, whichever threads ask first."""
        if self._replay is None:
            made = replay_engine(self.binding.engine)
            with self._making:
                if self._replay is None:
                    self._replay = made
        return self._replay

    def _verify(
        self, state: Any, inherited: Replay | None, read: Read, verdict: Verdict, entry: Entry
    ) -> Any:
        """Answer from the database what would have been a hit, and compare."""
        plan = read.plan
        assert plan is not None
        looked_up = time.perf_counter()
        capture = Capture(plan.compiled, read.parameters)
        result = state.invoke_statement(
            execution_options=marked(state, capture), bind_arguments=real_bind(inherited, state)
        )
        lookup_seconds, load_seconds = looked_up - read.started, time.perf_counter() - looked_up
        if capture.mismatched or capture.rows is None:
            read.reason, read.why = "rewritten", "a listener changed the statement or its parameters"
        else:
            if self._verifier.compare(read, entry, capture.rows) == "mismatch":
                self._fill(read, verdict._replace(fillable=True), capture, load_seconds)
            if self._verifier.is_shadow:
                read.reason, read.why = "disabled", "the mode of this process is shadow"
        observers = self.binding.observers
        if observers and read.reason is not None:
            observers.decided(self._decision(read, "bypass", read.reason))
        elif observers:
            tier = read.tier or self.binding.store.tier
            observers.decided(self.hit(read, entry, len(capture.rows or ()), tier, lookup_seconds))
        return result

    def _miss(self, state: Any, inherited: Replay | None, read: Read, verdict: Verdict) -> Any:
        return self._load(state, inherited, read, verdict)[0]

    def _load(
        self, state: Any, inherited: Replay | None, read: Read, verdict: Verdict
    ) -> tuple[Any, Entry | None]:
        """Load a miss from the database, capturing its rows, and fill."""
        plan = read.plan
        assert plan is not None and read.key is not None and verdict.reason is not None
        looked_up = time.perf_counter()
        observers = self.binding.observers
        scopes = trace = None
        if observers:
            load = Load(
                self.settings.name,
                plan.op,
                verdict.reason,
                self.binding.database,
                plan.tables,
                read.key,
                read.tags(),
                verdict.changed,
                verdict.cause,
                read.at,
                plan.sql,
            )
            scopes = observers.load_started(load)
            trace = load.extra.get("traceparent")
        capture = Capture(plan.compiled, read.parameters)
        error: BaseException | None = None
        try:
            result = state.invoke_statement(
                execution_options=marked(state, capture), bind_arguments=real_bind(inherited, state)
            )
        except BaseException as raised:
            error = raised
            raise
        finally:
            if scopes is not None:
                observers.load_finished(scopes, error)
                if error is not None:
                    observers.decided(
                        self._decision(
                            read,
                            "miss",
                            verdict.reason,
                            verdict=verdict,
                            lookup_seconds=looked_up - read.started,
                        ),
                        scopes,
                    )
        load_seconds = time.perf_counter() - looked_up
        fill, entry = self._fill(read, verdict, capture, load_seconds, trace)
        if observers:
            self.binding.manager.capacity.tell()
            if capture.mismatched or capture.rows is None:
                if self.binding.attached:
                    read.reason, read.why = "rewritten", "a listener changed the statement or its parameters"
                else:
                    read.reason, read.why = "disabled", "the engine was unbound meanwhile"
                observers.decided(self._decision(read, "bypass", read.reason), scopes)
            else:
                observers.decided(
                    self._decision(
                        read,
                        "miss",
                        verdict.reason,
                        verdict=verdict,
                        fill=fill,
                        entry=entry,
                        rows=len(capture.rows),
                        lookup_seconds=looked_up - read.started,
                        load_seconds=load_seconds,
                    ),
                    scopes,
                )
        return result, entry

    def _fill(
        self, read: Read, verdict: Verdict, capture: Capture, load_seconds: float, trace: str | None = None
    ) -> tuple[FillOutcome | None, Entry | None]:
        if capture.mismatched or capture.rows is None or capture.description is None:
            return None, None
        if (
            not capture.clean
            or self.binding.manager.mode not in ("on", "shadow")
            or not self.binding.attached
        ):
            return "not_selected", None
        if not verdict.fillable:
            return "fenced", None
        assert read.key is not None
        stamps = tuple(
            (name, stamp.version, stamp.nonce)
            for name, stamp in zip(read.names, read.stamps)
            if stamp is not None
        )
        try:
            entry = self.binding.entry(
                stamps,
                capture.description,
                capture.rows,
                self.settings.jittered(read.timeout),
                load_seconds,
                read.under,
                trace,
            )
        except SerializationError as error:
            read.why = str(error)
            return "unserializable", None
        if entry.size > self.settings.max_entry_bytes:
            return "too_large", None
        try:
            return self.binding.store.fill(read.key, entry, read.left), entry
        except TransportError:
            return "backend_error", entry

    def _bypass(self, state: Any, inherited: Replay | None, read: Read) -> Any:
        """Leave the read to SQLAlchemy, as it would have gone without the cache."""
        observers = self.binding.observers
        if observers:
            observers.decided(self._decision(read, "bypass", read.reason))
        # After a wait, None is no answer: SQLAlchemy would go on iterating over listeners that another task may
        # have added to or removed from meanwhile.
        plain = inherited is None and MARKER not in state.execution_options
        tried = read.reason == "rewritten" and read.key is not None
        if plain and not tried and not read.waited:
            return None
        return invoke_plainly(state, inherited)

    def hit(self, read: Read, entry: Entry, rows: int, tier: Tier, lookup_seconds: float) -> Decision:
        """Return the decision of a hit: by position and with no more steps than it takes, since most reads are hits."""
        plan = read.plan
        assert plan is not None  # made by _identify
        decision = Decision._make(
            (
                self.settings.name,
                plan.op,
                "hit",
                None,
                tier,
                self.binding.database,
                plan.tables,
                read.key,
                read.tags(),
                None,
                read.at - entry.stored_at,
                entry.size,
                rows,
                (),
                None,
                read.at,
                lookup_seconds,
                entry.load_seconds,
                plan.sql,
                None,
                None,
            )
        )
        debug = self.binding.debug
        return decision if debug is None else debug.completed(decision, read)

    def _decision(
        self,
        read: Read,
        kind: Literal["miss", "bypass"],
        reason: MissReason | BypassReason | None,
        *,
        verdict: Verdict | None = None,
        entry: Entry | None = None,
        fill: FillOutcome | None = None,
        rows: int | None = None,
        lookup_seconds: float | None = None,
        load_seconds: float | None = None,
    ) -> Decision:
        plan = read.plan
        decision = Decision(
            self.settings.name,
            plan.op if plan is not None else "fetch",
            kind,
            reason,
            None,
            self.binding.database,
            plan.tables if plan is not None else (),
            read.key,
            read.tags() if read.dependencies else (),
            fill,
            None,
            entry.size if entry is not None else None,
            rows,
            verdict.changed if verdict is not None else (),
            verdict.cause if verdict is not None else None,
            read.at,
            lookup_seconds if lookup_seconds is not None else time.perf_counter() - read.started,
            load_seconds,
            plan.sql if plan is not None else None,
        )
        debug = self.binding.debug
        return decision if debug is None else debug.completed(decision, read)
