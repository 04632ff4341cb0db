"""Sessions whose ``get`` answers a hit of an entry that this process has without a statement.

Give them to what makes your sessions::

    sessions = async_sessionmaker(engine, class_=sqlacache.AsyncDirectSession)
    sessions = sessionmaker(engine, class_=sqlacache.DirectSession)

They are SQLAlchemy's own sessions in everything else, and ``get`` returns what theirs would: where that is not certain,
it is theirs that is called. :meth:`DirectSession.why_not_direct` says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from . import direct_surface as surface
from .direct_way import NOT_PLAIN, Heard, Left, Unconfirmed, ask, learn, look, serve, ways
from .read.path import FAILED, HEARS

if TYPE_CHECKING:
    from sqlalchemy.orm.session import _EntityBindKey

__all__ = ["AsyncDirectSession", "DirectSession", "ways"]

_O = TypeVar("_O")

_LEFT = "_sqlacache_left"
"""Where an asynchronous session tells its ordinary one that the short way was looked at."""


class DirectSession(Session):
    """A :class:`~sqlalchemy.orm.Session` whose ``get`` makes an object that is cached in this process directly."""

    def get(self, entity: _EntityBindKey[_O], ident: Any, *arguments: Any, **named: Any) -> _O | None:
        """Return the object of a primary key, or ``None``, as :meth:`sqlalchemy.orm.Session.get` does."""
        left = vars(self).pop(_LEFT, None) if _LEFT in vars(self) else None
        if left is None:
            found = _look(self, entity, ident, arguments, named)
            if type(found) is Unconfirmed:
                found = found.binding.manager.front.wait(ask(self, found))
            if type(found) is not Left:
                return serve(self, found)  # type: ignore[no-any-return]  # an object of the entity
            left = found
        ways[left.reason] += 1
        if not left.learns:
            try:
                return super().get(entity, ident, *arguments, **named)
            finally:
                vars(self).pop(FAILED, None)
        hears: list[Any] = []
        vars(self)[HEARS] = hears
        try:
            loaded = super().get(entity, ident, *arguments, **named)
        finally:
            vars(self).pop(HEARS, None)
        learn(entity, ident, [Heard(*one) for one in hears], loaded)
        return loaded

    def why_not_direct(self, entity: Any, ident: Any) -> str | None:
        """Say why ``get(entity, ident)`` would go through SQLAlchemy, if it would.

        Loads nothing and asks nobody: where Redis says whether an entry holds, it may say that it does not.
        """
        found = _look(self, entity, ident, (), {})
        return found.told if type(found) is Left else None


class AsyncDirectSession(AsyncSession):
    """An :class:`~sqlalchemy.ext.asyncio.AsyncSession` whose ``get`` makes an object that is cached in this process.

    With ``local="validated"``, Redis is asked whether what is cached holds. Where nobody is asked, neither such a
    ``get`` nor the end of a session that has used no connection gives way to other tasks.
    """

    sync_session_class: type[Session] = DirectSession

    async def get(self, entity: _EntityBindKey[_O], ident: Any, *arguments: Any, **named: Any) -> _O | None:
        """Return the object of a primary key, or ``None``, as :meth:`sqlalchemy.ext.asyncio.AsyncSession.get` does."""
        session = self.sync_session
        if _is_ours(session) and surface.passes_on(type(self), AsyncDirectSession, "get"):
            found = _look(session, entity, ident, arguments, named, awaited=True)
            if type(found) is Unconfirmed:
                found = await ask(session, found)
            if type(found) is not Left:
                return serve(session, found)  # type: ignore[no-any-return]  # an object of the entity
            vars(session)[_LEFT] = found
        return await super().get(entity, ident, *arguments, **named)

    def why_not_direct(self, entity: Any, ident: Any) -> str | None:
        """Say why ``get(entity, ident)`` would go through SQLAlchemy, if it would; loads nothing."""
        session = self.sync_session
        if not _is_ours(session) or not surface.passes_on(type(self), AsyncDirectSession, "get"):
            return f"session: {type(self).__name__} or {type(session).__name__} has a get() of its own"
        found = _look(session, entity, ident, (), {}, awaited=True)
        return found.told if type(found) is Left else None

    async def close(self) -> None:
        """Close the session, as :meth:`sqlalchemy.ext.asyncio.AsyncSession.close` does."""
        if surface.passes_on(type(self), AsyncDirectSession, "close") and surface.closes_at_once(
            self.sync_session
        ):
            self.sync_session.close()
        else:
            await super().close()

    async def __aexit__(self, type_: Any, value: Any, traceback: Any) -> None:
        if type(self).close is AsyncDirectSession.close and surface.closes_at_once(self.sync_session):
            self.sync_session.close()  # nothing in it waits, so that no task has to shield it
        else:
            await super().__aexit__(type_, value, traceback)


def _is_ours(session: Session) -> bool:
    return getattr(session.get, "__func__", None) is DirectSession.get


def _look(
    session: Session,
    entity: Any,
    ident: Any,
    arguments: tuple[Any, ...],
    named: Mapping[str, Any],
    *,
    awaited: bool = False,
) -> Any:
    if arguments or (named and not _are_defaults(named)):
        return NOT_PLAIN
    return look(session, DirectSession, entity, ident, awaited=awaited)


def _are_defaults(named: Mapping[str, Any]) -> bool:
    """Tell whether what was named says nothing: a scoped session names everything."""
    return all(
        name in surface.ARGUMENTS
        and (
            value is None
            or (name == "populate_existing" and value is False)
            or (name == "execution_options" and isinstance(value, Mapping) and not value)
        )
        for name, value in named.items()
    )
