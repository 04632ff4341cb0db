"""What is read and written: real statements, as the library's own analysis understands them.

Everything here is made once. A statement's plan, key, shapes and tags, and what a transaction's statements change, come
from sessions that really ran them on SQLite; exploring goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Column, ForeignKey, Integer, create_engine, select, update
from sqlalchemy.orm import Session, declarative_base
from sqlalchemy.pool import StaticPool

from sqlacache import configure_sync
from sqlacache.binding import Binding
from sqlacache.read.identify import Identifier, Read
from sqlacache.write.coarse import Whole

Base: Any = declarative_base()


class Owner(Base):
    __tablename__ = "owners"
    id = Column(Integer, primary_key=True)
    limit = Column(Integer, nullable=False)


class Account(Base):
    __tablename__ = "accounts"
    id = Column(Integer, primary_key=True)
    owner_id = Column(ForeignKey("owners.id"), nullable=False)
    balance = Column(Integer, nullable=False)


STATEMENTS: dict[str, Callable[[], Any]] = {
    "row": lambda: select(Account).where(Account.id == 1),
    "list": lambda: select(Account.id, Account.balance).where(Account.owner_id == 1),
    "join": lambda: (
        select(Account.balance, Owner.limit).join(Owner, Owner.id == Account.owner_id).where(Account.id == 1)
    ),
}
"""Reads, by name."""

_deposit = update(Account).where(Account.id == 1).values(balance=Account.balance + 1)
_raise = update(Owner).where(Owner.id == 1).values(limit=Owner.limit + 1)
TRANSACTIONS: dict[str, Sequence[Any]] = {
    "deposit": [_deposit],
    "interest": [update(Account).values(balance=Account.balance + 1)],
    "limit": [_raise],
    "both": [_deposit, _raise],
}
"""Writes, by name; what each of them writes, every read of the same table sees."""


class _Watching(Identifier):
    seen: Read | None = None

    def run(self, state: Any, bind: Any, options: Any, read: Read) -> Any:
        self.seen = read
        return super().run(state, bind, options, read)


class Bank:
    """One process's cache, bound to a database that has an account, and what the statements above mean to it."""

    def __init__(self, **settings: Any) -> None:
        self.engine = create_engine("sqlite://", poolclass=StaticPool)
        Base.metadata.create_all(self.engine)
        with Session(self.engine) as session:
            session.add(Owner(id=1, limit=0))
            session.flush()
            session.add(Account(id=1, owner_id=1, balance=0))
            session.commit()
        self.cache: Any = configure_sync(
            models={Account: {"timeout": 3600}, Owner: {"timeout": 3600}},
            telemetry=None,
            history=None,
            **settings,
        )
        self.cache.bind(self.engine, database="bank")
        self.cache.recovery.start = lambda: None  # what is owed is delivered by an actor
        self.binding: Binding = self.cache.bindings[0]
        self.reads = {name: self._read(make()) for name, make in STATEMENTS.items()}
        self.changes = {name: self._changes(statements) for name, statements in TRANSACTIONS.items()}
        self.changes["whole"] = [
            Whole(one.table, one.op, one.columns, None, one.cause, one.statement)
            for one in self.changes["interest"]
        ]
        """As of a table that no model configures, and that is read all the same."""

    def _read(self, statement: Any) -> Read:
        path = self.binding.reads
        watching = _Watching(self.binding)
        before, path.identifier = path.identifier, watching
        try:
            with Session(self.engine) as session:
                session.execute(statement).all()
        finally:
            path.identifier = before
        read = watching.seen
        assert read is not None and read.key is not None and read.reason is None, read and read.reason
        return read

    def _changes(self, statements: Sequence[Any]) -> list[Any]:
        found: list[Any] = []
        with _overridden(self.binding.writes, "_begin") as begin:

            def watched(ledger: Any) -> Any:
                found.extend(ledger.resolved(self.binding.keys))
                return begin(ledger)

            self.binding.writes._begin = watched  # type: ignore[method-assign]  # for a moment
            with Session(self.engine) as session:
                for statement in statements:
                    session.execute(statement, execution_options={"synchronize_session": False})
                session.commit()
        assert found
        return found

    def close(self) -> None:
        self.cache.disconnect()
        self.engine.dispose()


@contextmanager
def _overridden(thing: Any, name: str) -> Any:
    try:
        yield getattr(thing, name)
    finally:
        delattr(thing, name)


_banks: dict[str, Bank] = {}


def bank(process: str) -> Bank:
    """Return what the process of this name has; the same for every world, which puts its own store into it."""
    if process not in _banks:
        _banks[process] = Bank()
    return _banks[process]


def close_banks() -> None:
    while _banks:
        _banks.popitem()[1].close()
