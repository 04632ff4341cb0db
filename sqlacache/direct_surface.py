"""What :class:`sqlacache.DirectSession` asks of SQLAlchemy's private surface, and nothing else does.

====================================================  ================================================================
what                                                  why
====================================================  ================================================================
``Session.execute``, ``_execute_internal``, ...       a subclass that has its own is to be asked
``Session._transaction``, ``_autobegin[_t]``          the transaction that a real query would have begun
``Session._flushing``, ``_is_clean``, ``autocommit``  what a query would do first
``Session.binds`` (``__binds`` before 2.1)            a session that chooses its bind by model
``IdentityMap._dict``, ``_add_unpresent``             is it there already; put it there, as the loader does
``InstanceState`` and its ``__dict__``                what the loader left there, and the same again
``ClassManager.new_instance``, ``loading._new_runid`` an instance as the loader makes one
``Mapper._get_clause``, ``_props``                    names of a get's parameters; has the mapping changed
``TypeEngine.dialect_impl``, ``result_processor``     whether values of a type come from SQLAlchemy's code alone
``SessionTransaction._connections``, ``_parent``      whether closing has anything to give back
====================================================  ================================================================

Each is tried out on SQLAlchemy 1.4, 2.0 and 2.1 (``tests/direct/``), where what is made here is compared with what the
loader makes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import types as sqltypes
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import ColumnProperty, Mapper, RelationshipProperty, Session, SynonymProperty, loading
from sqlalchemy.orm.attributes import instance_state
from sqlalchemy.orm.instrumentation import ClassManager
from sqlalchemy.orm.state import InstanceState
from sqlalchemy.schema import Column, Table
from sqlalchemy.types import TypeDecorator

from .read.replay import is_replay

Arguments = frozenset[str]

ARGUMENTS: Arguments = frozenset(signature(Session.get).parameters) - {"self", "entity", "ident"}
"""Names of what ``get`` takes beside the model and the key."""

_HOOKS = frozenset(
    name
    for name in (
        "execute",
        "_execute_internal",
        "get_bind",
        "_get_impl",
        "_identity_lookup",
        "_connection_for_bind",
        "_autobegin",
        "_autobegin_t",
        "_autoflush",
        "_is_clean",
    )
    if hasattr(Session, name)
)
"""Methods of a session that its ``get`` calls: with one of its own, anything may happen in it."""
_CLOSING = ("close", "_close_impl", "expunge_all")
_AT_CLOSE = ("after_transaction_end", "persistent_to_detached", "deleted_to_detached", "pending_to_transient")

_STATE = frozenset({"identity_token", "load_options", "load_path"})
"""What the loader leaves in a state that is the same for every object of a class."""
_STATE_ITS_OWN = frozenset(
    {"key", "session_id", "runid", "_instance_dict", "class_", "manager", "obj"}
    | {"committed_state", "expired_attributes"}
)
"""What it leaves there that belongs to one object; 1.4 has all of it in ``__dict__``."""
_QUIET_LAZY = frozenset({"select", True, "raise", "raise_on_sql", "dynamic", "write_only"})
"""Relationships that a load of their parent does nothing for."""

_OF_RESULTS = ("result_processor", "_object_value_for_elem")
"""Methods of a type that make a value of what the driver returned."""

_ordinary: WeakKeyDictionary[type, bool] = WeakKeyDictionary()
_closes: WeakKeyDictionary[type, bool] = WeakKeyDictionary()


# -- sessions ----------------------------------------------------------------------------------------------------------


def is_ordinary(session: Session, mine: type) -> bool:
    """Tell whether ``session`` loads as ``Session`` does, apart from the ``get`` of ``mine``."""
    kind = type(session)
    known = _ordinary.get(kind)
    if known is None:
        after: Any = super(mine, kind)
        known = after.get is Session.get and all(
            getattr(kind, one) is getattr(Session, one) for one in _HOOKS
        )
        _ordinary[kind] = known
    return known and vars(session).keys().isdisjoint(_HOOKS)


def only_engine(session: Session) -> Engine | None:
    """Return the engine that every statement of ``session`` goes to, if there is one."""
    bind = session.bind
    if not isinstance(bind, Engine) or getattr(session, "binds", None):
        return None
    return None if vars(session).get("_Session__binds") else bind


def is_overheard(session: Session, ours: Callable[..., Any]) -> bool:
    """Tell whether anybody but ``ours`` listens to what ``session`` reads or loads."""
    dispatch: Any = session.dispatch
    if dispatch.after_begin or dispatch.loaded_as_persistent:
        return True
    listeners = dispatch.do_orm_execute
    return len(listeners) != 1 or next(iter(listeners)) is not ours


def is_at_rest(session: Any) -> bool:
    """Tell whether a query would neither flush first, nor be refused for the state of the transaction."""
    if session._flushing or not session._is_clean():
        return False
    transaction = session._transaction
    if transaction is not None:
        return bool(transaction.is_active)
    return getattr(session, "autobegin", True) and not getattr(session, "autocommit", False)


def own_options(session: Session) -> Any:
    """Return the execution options that a session gives to all that it executes (2.1)."""
    return getattr(session, "execution_options", None)


def begin(session: Any) -> None:
    """Begin the session's transaction as a query would."""
    if session._transaction is None:
        (getattr(session, "_autobegin_t", None) or session._autobegin)()


def holds(session: Any, identity: tuple[Any, ...]) -> bool:
    """Tell whether there is something in the identity map, expired or not."""
    return identity in session.identity_map._dict


def closes_at_once(session: Any) -> bool:
    """Tell whether ``session.close()`` gives no connection back and calls nobody: then there is nothing to await."""
    kind = type(session)
    known = _closes.get(kind)
    if known is None:
        known = _closes[kind] = all(
            getattr(kind, name, None) is getattr(Session, name, None) for name in _CLOSING
        )
    if not known or not vars(session).keys().isdisjoint(_CLOSING):
        return False
    transaction = session._transaction
    while transaction is not None:
        for bind in transaction._connections:
            if not is_replay(bind):
                return False
        transaction = transaction._parent
    dispatch = session.dispatch
    return not any(getattr(dispatch, name) for name in _AT_CLOSE)


def passes_on(kind: type, mine: type, name: str) -> bool:
    """Tell whether the next class after ``mine`` that has a method ``name`` is ``AsyncSession`` itself."""
    after: Any = super(mine, kind)
    return getattr(after, name) is getattr(AsyncSession, name)


# -- objects -----------------------------------------------------------------------------------------------------------


class Loaded(NamedTuple):
    """What the loader made."""

    identity: tuple[Any, ...]
    attributes: Mapping[str, Any]
    """What is in the object's ``__dict__``, in that order, but for its state."""
    state: Mapping[str, Any]
    """What is in the state's, of that which is the same for all objects of a class."""


def look_at(loaded: Any) -> Loaded | None:
    """Return what a loader has just made; ``None`` if it is not all understood."""
    state: Any = instance_state(loaded)
    if type(state) is not InstanceState:
        return None
    left = vars(state)
    if not left.keys() <= _STATE | _STATE_ITS_OWN or state.expired_attributes or state.committed_state:
        return None
    if state.identity_token is not None or tuple(state.load_options) or state.key is None:
        return None
    attributes = {name: value for name, value in vars(loaded).items() if value is not state}
    return Loaded(state.key, attributes, {name: left[name] for name in _STATE if name in left})


def make(
    session: Any,
    manager: Any,
    identity: tuple[Any, ...],
    names: Sequence[str],
    values: Sequence[Any],
    like: Mapping[str, Any],
) -> Any:
    """Make an object as the loader does, in ``session``."""
    made = manager.new_instance()
    vars(made).update(zip(names, values))
    state: Any = instance_state(made)
    vars(state).update(like)
    state.key = identity
    state.session_id = session.hash_key
    state.runid = loading._new_runid()
    session.identity_map._add_unpresent(state, identity)
    return made


# -- mappings ----------------------------------------------------------------------------------------------------------


def size_of(mapper: Any) -> int:
    """Return how many properties a mapping has: it may get more of them."""
    return len(mapper._props)


def parameter_names(mapper: Any) -> tuple[str, ...]:
    """Return the names of the parameters of a get, in the order of the primary key."""
    parameters = mapper._get_clause[1]
    return tuple(parameters[column].key for column in mapper.primary_key)


def why_unfit(mapper: Mapper[Any], dialect: Any) -> str | None:
    """Say why objects of a mapping may be more than the values of their row; ``None`` if they are not."""
    if type(mapper.class_manager) is not ClassManager:
        return "its instrumentation is its own"
    if mapper.inherits is not None or mapper.polymorphic_on is not None or mapper.always_refresh:
        return "it is polymorphic, inherits, or is always refreshed"
    table = mapper.local_table
    if not isinstance(table, Table):
        return "it is mapped to something other than a table"
    for one in mapper.iterate_properties:
        if isinstance(one, RelationshipProperty):
            if one.lazy not in _QUIET_LAZY:
                return f"{one.key} is loaded with it"
        elif isinstance(one, ColumnProperty):
            for column in one.columns:
                if not isinstance(column, Column) or column.table is not table:
                    return f"{one.key} is an expression"
                if not _is_of_sqlalchemy(column.type, dialect):
                    return f"the type of {one.key} has code of its own for what is loaded"
        elif not isinstance(one, SynonymProperty):
            return f"{one.key} is neither a column, a relationship nor a synonym"
    return None


def is_json(mapper: Mapper[Any], name: str, dialect: Any) -> bool:
    """Tell whether an attribute is made by the deserialiser that an engine may be given."""
    declared = mapper.get_property(name).columns[0].type
    return any(isinstance(one, sqltypes.JSON) for one in (declared, declared.dialect_impl(dialect)))


def _is_of_sqlalchemy(given: Any, dialect: Any) -> bool:
    """Tell whether a value of a type passes through nobody's code but SQLAlchemy's on its way from the driver."""
    if isinstance(given, sqltypes.PickleType):
        return False
    item = getattr(given, "item_type", None)
    if item is not None and not _is_of_sqlalchemy(item, dialect):
        return False
    if isinstance(given, TypeDecorator) and not _is_theirs(type(given).process_result_value):
        return False
    implementation = given.dialect_impl(dialect)
    if isinstance(implementation, TypeDecorator):
        mine = all(_is_theirs(type(one).result_processor) for one in (given, implementation))
        return mine and _is_of_sqlalchemy(implementation.impl, dialect)
    return all(
        _is_theirs(getattr(type(one), name))
        for one in (given, implementation)
        for name in _OF_RESULTS
        if hasattr(type(one), name)
    )


def _is_theirs(method: Any) -> bool:
    return str(method.__module__).startswith("sqlalchemy.")
