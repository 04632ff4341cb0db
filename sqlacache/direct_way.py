"""The short way of a get: an object made of a local entry without a statement, where the long way would make the same.

::

    1. The first hit of an entry goes the long way, through SQLAlchemy. What its loader made of the row is looked at
       before the user's code sees it (:func:`learn`), and what is immutable in it is kept with the entry.
    2. The next get of that key finds the same entry by the same key and the same stamps as the long way would
       (:func:`look`), and makes the same object of it (:func:`serve`). Where the server is to be asked whether the
       entry holds (``local="validated"``), that comes in between (:func:`ask`), and nothing else is asked.
    3. A writer commits: the entry's stamps are replaced. What was learned is never looked at again, and leaves memory
       with the entry.

Whatever is not known to come out the same goes the long way, for a reason of a closed list (:data:`Reason`).
"""

from __future__ import annotations

import datetime
import decimal
import enum
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from sqlalchemy import inspect
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.pool import SingletonThreadPool

from . import direct_surface as surface
from .errors import TransportError
from .events import _do_orm_execute, binding_of
from .read.identify import Read, name_of
from .read.path import FAILED
from .read.session import bind_options, held_connection, in_greenlet
from .read.statement import Plan
from .store.stamps import Entry, decide

if TYPE_CHECKING:
    from .binding import Binding

Reason = Literal[
    "arguments",
    "session",
    "bind",
    "mode",
    "listeners",
    "transaction",
    "model",
    "key",
    "held",
    "bypass",
    "miss",
    "new",
    "values",
]
REASONS: tuple[Reason, ...] = get_args(Reason)

ways: Counter[str] = Counter()
"""Gets of this process: ``direct`` for those that took the short way and asked nobody, ``confirmed`` for those of which
the server said that the entry holds, else the reason for the long way."""

MAX_RECIPES = 1000
"""Models of one engine that are remembered; beyond, all are learned again."""

_IMMUTABLE = frozenset(
    {type(None), bool, int, float, complex, str, bytes, decimal.Decimal, uuid.UUID}
    | {datetime.date, datetime.time, datetime.datetime, datetime.timedelta}
)


class Left(NamedTuple):
    """The long way is to be gone."""

    reason: Reason
    why: str
    learns: bool = False
    """What it loads may be looked at, for the next time."""

    @property
    def told(self) -> str:
        """Reason and more, for people."""
        return f"{self.reason}: {self.why}"


NOT_PLAIN = Left("arguments", "get() was given more than a model and a key")
_SESSION = Left(
    "session", "the session's class, or the session itself, has methods of its own that a get calls"
)
_OPTIONS = Left("session", "the session has execution options")
_BIND = Left("bind", "the session is bound to no engine, to several, or to a connection")
_UNBOUND = Left("bind", "its engine is bound to no cache")
_NO_GREENLET = Left("bind", "nothing can be awaited here, and the driver is asynchronous")
_MODE = Left("mode", "the mode is not on, the task is inside bypassed(), or hits are verified")
_VARY = Left("mode", "vary= is given")
_THREADS = Left("mode", "the engine has a database for each thread")
_LISTENERS = Left("listeners", "somebody listens to what the session reads, or to what it loads")
_EVENTS = Left("listeners", "somebody listens to loads of the model")
_TRANSACTION = Left("transaction", "something is to be flushed, or the transaction cannot go on")
_KEY = Left("key", "a value is not of the type that the model's own primary key has")
_OTHER_KEY = Left("key", "the database calls it otherwise")
_HELD = Left("held", "the session has it already")
_NO_MODEL = Left("model", "it is no mapped class")
_OWED = Left("bypass", "an invalidation of its table is owed")
_TRANSLATED = Left("bypass", "its tables are under a schema_translate_map")
_MISS = Left("miss", "nothing that holds is in this process")
_MODEL_IS_NEW = Left("new", "no get of the model has been a hit yet", learns=True)
_NEW = Left("new", "no get of this entry has been a hit yet", learns=True)
_VOID = Left("miss", "what is in this process does not hold any more")
_GONE = Left("bypass", "the server that says whether it holds does not answer")
_VALUES = Left("values", "it has a value that may be changed in place")


class Recipe:
    """What all objects of a model have in common, and how its gets are named."""

    __slots__ = (
        "given",
        "identity_class",
        "kinds",
        "like",
        "manager",
        "mapper",
        "mark",
        "names",
        "parameters",
        "plan",
        "size",
    )

    def __init__(self, mapper: Any, plan: Plan, loaded: surface.Loaded) -> None:
        self.mark = object()
        self.mapper = mapper
        self.manager = mapper.class_manager
        self.size = surface.size_of(mapper)
        self.plan = plan
        self.parameters = surface.parameter_names(mapper)
        self.identity_class, key, _ = loaded.identity
        self.kinds = tuple(map(type, key))
        """Types of the primary key's values, as they come from the database."""
        self.given = tuple(
            frozenset({kind, uuid.UUID} if issubclass(kind, uuid.UUID) else {kind}) for kind in self.kinds
        )
        """Types that the values may be given in: asyncpg has a subclass of UUID, whose values are equal."""
        self.names = tuple(loaded.attributes)
        self.like = loaded.state

    def key_of(self, ident: Any) -> tuple[Any, ...] | None:
        """Return the primary key, if each of its values is of the very type that is loaded."""
        given = self.given
        if type(ident) is not tuple:
            return (ident,) if len(given) == 1 and type(ident) in given[0] else None
        if len(ident) != len(given):
            return None
        for value, types in zip(ident, given):
            if type(value) not in types:
                return None
        return ident

    def name(self, read: Read, key: tuple[Any, ...]) -> None:
        """Fill in what the long way finds out of a statement: :func:`learn` compares it."""
        plan = read.plan = self.plan
        read.parameters = dict(zip(self.parameters, key))
        read.depends(plan, name_of(plan, read.parameters))


class Unfit(NamedTuple):
    """A model of which no object is made here."""

    mapper: Any
    size: int
    left: Left


class Learned(NamedTuple):
    """What was made of an entry's row: kept in :attr:`.Entry.learned`."""

    mark: object
    """Of its recipe, which has the engine's statement: an entry may be there longer than the engine."""
    identity: tuple[Any, ...]
    values: tuple[Any, ...] | None
    """In the order of :attr:`Recipe.names`; ``None`` if they may not be shared."""


class Ready(NamedTuple):
    """A get that can take the short way."""

    binding: Binding
    read: Read
    recipe: Recipe
    entry: Entry
    learned: Learned | None
    """``None`` where no row is there; not what the entry has by now, which another thread may have learned anew."""
    looked_up: float
    way: str = "direct"


class Unconfirmed(NamedTuple):
    """A get that can take the short way if the server says that its entry holds."""

    binding: Binding
    read: Read
    recipe: Recipe
    identity: tuple[Any, ...]
    entry: Entry
    learned: Learned | None


class Heard(NamedTuple):
    """What a statement was answered from."""

    binding: Binding
    read: Read
    entry: Entry


def look(
    session: Session, mine: type, entity: Any, ident: Any, *, awaited: bool = False
) -> Ready | Unconfirmed | Left:
    """Say whether a get can take the short way; asks nobody outside of this process and loads nothing.

    Args:
        session: Where the object is to be.
        mine: The class whose ``get`` asks.
        entity: As given to ``get``.
        ident: As given to ``get``.
        awaited: The long way will be gone inside of SQLAlchemy's greenlet.
    """
    if not surface.is_ordinary(session, mine):
        return _SESSION
    if surface.own_options(session):
        return _OPTIONS
    bind = surface.only_engine(session)
    if bind is None:
        return _BIND
    binding = binding_of(bind.dialect)
    if binding is None:
        return _UNBOUND
    if not awaited and bind.dialect.is_async and not in_greenlet():
        return _NO_GREENLET
    manager, settings = binding.manager, binding.settings
    if manager.mode != "on" or manager.is_bypassed() or settings.verify > 0:
        return _MODE
    if settings.vary is not None:
        return _VARY
    if isinstance(binding.engine.pool, SingletonThreadPool):
        return _THREADS
    if surface.is_overheard(session, _do_orm_execute):
        return _LISTENERS
    if not surface.is_at_rest(session):
        return _TRANSACTION
    recipe = _recipe_of(binding, entity)
    if isinstance(recipe, Left):
        return recipe
    if recipe.manager.dispatch.load:
        return _EVENTS
    key = recipe.key_of(ident)
    if key is None:
        return _KEY
    identity = (recipe.identity_class, key, None)
    if surface.holds(session, identity):
        return _HELD
    return _look_up(session, bind, binding, recipe, identity)


def _recipe_of(binding: Binding, entity: Any) -> Recipe | Left:
    recipe: Recipe | Unfit | None
    try:
        recipe = binding.recipes.get(entity)
    except TypeError:  # it does not hash
        return _NO_MODEL
    if recipe is None or surface.size_of(recipe.mapper) != recipe.size:
        mapper: Any = inspect(entity, raiseerr=False) if isinstance(entity, type) else None
        if not isinstance(mapper, Mapper):
            return _NO_MODEL
        return _EVENTS if mapper.class_manager.dispatch.load else _MODEL_IS_NEW
    return recipe if isinstance(recipe, Recipe) else recipe.left


def _look_up(
    session: Session, bind: Any, binding: Binding, recipe: Recipe, identity: tuple[Any, ...]
) -> Ready | Unconfirmed | Left:
    """Find the entry as the long way does."""
    read, plan, identifier = Read(), recipe.plan, binding.reads.identifier
    read.held = held_connection(session, binding.engine.dialect)
    if read.held is not None and (read.held.closed or read.held.invalidated):
        return _TRANSACTION
    read.options = bind_options(bind, read.held)
    if read.options.get("schema_translate_map"):
        return _TRANSLATED
    reason = identifier.session_state(session, bind, {}, read, plan)
    if reason is not None:
        return Left("bypass", reason)
    try:
        recipe.name(read, identity[1])
    except Exception as error:  # the long way raises what it raises
        return Left("key", f"{type(error).__name__}: a value cannot be part of a key")
    if binding.owed.meets(plan.tables):
        return _OWED
    assert read.key is not None  # as named
    sample = binding.store.at_hand(read.key, read.names)
    if sample is None:
        entry = binding.store.unconfirmed(read.key)
    else:
        entry = decide(read.names, read.keys, sample).entry if sample.bypass is None else None
    if entry is None:
        return _MISS
    learned = _learned(entry, recipe, identity)
    if isinstance(learned, Left):
        return learned
    if sample is None:
        return Unconfirmed(binding, read, recipe, identity, entry, learned)
    read.tier = sample.tier
    return Ready(binding, read, recipe, entry, learned, time.perf_counter())


def _learned(entry: Entry, recipe: Recipe, identity: tuple[Any, ...]) -> Learned | Left | None:
    if not entry.count:
        return None
    learned: Learned | None = entry.learned
    if learned is None or learned.mark is not recipe.mark:
        return _NEW
    if learned.values is None:
        return _VALUES
    return learned if learned.identity == identity else _OTHER_KEY


async def ask(session: Session, unconfirmed: Unconfirmed) -> Ready | Left:
    """Ask the server whether the entry holds.

    A server that does not answer is not asked again by the long way: it hears of the failure.
    """
    binding, read, recipe, identity, entry, learned = unconfirmed
    assert read.key is not None  # as named
    try:
        sample = await binding.store.confirm(read.key, read.names, entry)
    except TransportError as error:
        vars(session)[FAILED] = str(error)
        return _GONE
    if (
        sample is None
        or sample.bypass is not None
        or decide(read.names, read.keys, sample).entry is not entry
    ):
        return _VOID
    if surface.holds(session, identity):  # another task uses the session, which SQLAlchemy does not allow
        return _HELD
    if not surface.is_at_rest(session):
        return _TRANSACTION
    read.tier = sample.tier
    return Ready(binding, read, recipe, entry, learned, time.perf_counter(), "confirmed")


def serve(session: Session, ready: Ready) -> Any:
    """Make the object, and record the hit as the long way does."""
    binding, read, recipe, entry, learned, looked_up, way = ready
    surface.begin(session)
    made = None
    if learned is not None and learned.values is not None:
        made = surface.make(
            session, recipe.manager, learned.identity, recipe.names, learned.values, recipe.like
        )
    identifier, observers = binding.reads.identifier, binding.observers
    identifier.count(recipe.plan)
    if observers:
        observers.decided(
            binding.reads.hit(
                read, entry, entry.count, read.tier or binding.store.tier, looked_up - read.started
            )
        )
    ways[way] += 1
    return made


def learn(entity: Any, ident: Any, heard: Sequence[Heard], loaded: Any) -> None:
    """Look at what a hit of the long way has made of an entry, just after it was made."""
    if not heard or loaded is None:
        return
    binding, read, entry = heard[0]  # what came after it was loaded for it
    plan, mapper, dialect = read.plan, inspect(entity), binding.engine.dialect
    assert plan is not None  # of a hit
    seen = surface.look_at(loaded)
    why = surface.why_unfit(mapper, dialect) or ("it leaves more than values" if seen is None else None)
    if why is not None or seen is None:
        _remember(binding, entity, Unfit(mapper, surface.size_of(mapper), Left("model", why or "")))
        return
    recipe = binding.recipes.get(entity)
    if (
        type(recipe) is not Recipe
        or recipe.plan is not plan
        or recipe.names != tuple(seen.attributes)
        or recipe.like != seen.state
        or recipe.size != surface.size_of(mapper)
    ):
        recipe = Recipe(mapper, plan, seen)
        _remember(binding, entity, recipe)
    key = recipe.key_of(ident)
    if key is None:
        return
    again = Read()
    recipe.name(again, key)
    if (again.key, again.names, again.keys) != (read.key, read.names, read.keys):
        return
    assert read.key is not None  # of a hit
    what = Learned(recipe.mark, seen.identity, _shareable(mapper, seen.attributes, dialect))
    binding.store.learn(read.key, entry, what)


def _remember(binding: Binding, entity: type, what: Recipe | Unfit) -> None:
    if len(binding.recipes) >= MAX_RECIPES:
        binding.recipes.clear()
    binding.recipes[entity] = what


def _shareable(mapper: Any, attributes: Mapping[str, Any], dialect: Any) -> tuple[Any, ...] | None:
    """Return the values of attributes, if any number of objects may have the same ones."""
    for name, value in attributes.items():
        if not _is_immutable(value) or (value is not None and surface.is_json(mapper, name, dialect)):
            return None
    return tuple(attributes.values())


def _is_immutable(value: Any) -> bool:
    kind = type(value)
    if kind in _IMMUTABLE or isinstance(value, enum.Enum):
        return True
    if isinstance(value, uuid.UUID):  # asyncpg has a subclass of its own
        return not hasattr(value, "__dict__")
    return kind in (tuple, frozenset) and all(map(_is_immutable, value))
