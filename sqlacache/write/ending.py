"""Where a transaction ends without COMMIT: statements that MySQL commits by themselves, connections that always do so.

MySQL and MariaDB commit what a transaction wrote so far before they run DDL, BEGIN, LOCK TABLES and others, and a
procedure may COMMIT:

::

    1. A transaction changes a row, which is noted.
    2. It creates a table: the row is committed now, and seen by everybody.
    3. It rolls back. What was noted in 1 is forgotten; but nothing took the row back.

So a statement that may commit has both phases around it (:meth:`.path.WritePath.run_statement`), and what was noted
stays noted unless the driver says that the transaction has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..read.session import driver_connection, driver_in_transaction
from .rawsql import Token, tokens_of

COMMITTING = frozenset({"mysql", "mariadb"})
"""Dialects on which statements other than COMMIT commit."""

_STAYING = frozenset(
    {
        "select",
        "insert",
        "update",
        "delete",
        "replace",
        "with",
        "values",
        "table",
        "do",
        "show",
        "describe",
        "desc",
        "explain",
        "use",
        "savepoint",
        "release",
        "rollback",
        "commit",
        "prepare",
        "deallocate",
        "handler",
        "help",
        "kill",
        "checksum",
        "signal",
        "resignal",
    }
)
"""First words of statements that leave the transaction open, or end it in a way of which :mod:`.path` knows."""
_BEGINNING = ("insert", "update", "delete", "replace")
_IN_TRANSACTION = 1
"""SERVER_STATUS_IN_TRANS of the protocol, in the status that the server sends with each answer."""


def may_commit(sql: str, dialect: str) -> bool:
    """Tell whether a statement, that is no COMMIT, may commit what was written before it, or what it writes."""
    if dialect not in COMMITTING:
        return False
    tokens = tokens_of(sql, dialect)
    return tokens is None or _may_commit(tokens)


def _may_commit(tokens: Sequence[Token]) -> bool:
    while tokens and tokens[-1] == ("punct", ";"):
        tokens = tokens[:-1]
    while tokens and tokens[0] == ("punct", "("):
        tokens = tokens[1:]
    if Token("punct", ";") in tokens:
        return True
    words = [token.text if token.kind == "word" else "" for token in tokens]
    if not words or words[0] in _STAYING:
        return False
    if words[0] in ("create", "drop"):
        return "temporary" not in words[1:4]  # CREATE OR REPLACE TEMPORARY
    if words[0] == "load":
        return words[1:2] not in (["data"], ["xml"])
    if words[0] == "xa":
        return words[1:2] in ([""], ["commit"], ["rollback"])  # what another transaction wrote
    if words[0] == "set":
        if words[1:2] == ["statement"]:
            return "for" not in words or _may_commit(tokens[words.index("for") + 1 :])
        return not {"autocommit", "password"}.isdisjoint(words)
    return True


def has_ended(driver: Any) -> bool:
    """Tell whether MySQL's or SQLite's driver is sure that no transaction is open after a statement that wrote."""
    status = getattr(driver, "server_status", None)
    if isinstance(status, int):
        return not status & _IN_TRANSACTION
    return getattr(driver, "in_transaction", None) is False


def takes_effect_at_once(connection: Any, dialect: Any, statement: str) -> bool:
    """Tell whether a statement on a connection is committed, perhaps, by the database as soon as it has run.

    Python's ``sqlite3`` sends BEGIN only before a statement whose first word is one of :data:`_BEGINNING`. DDL and
    ``WITH ... INSERT`` outside a transaction stay, whatever SQLAlchemy rolls back later.
    """
    driver = driver_connection(connection)
    if dialect.name in COMMITTING:
        ask = getattr(driver, "get_autocommit", None)
        if ask is not None:
            return bool(ask())
    options = connection.get_execution_options()
    level = options.get("isolation_level") or getattr(dialect, "_on_connect_isolation_level", None)
    if level is not None and str(level).upper() == "AUTOCOMMIT":
        return True
    if dialect.name == "sqlite":
        legacy = getattr(driver, "isolation_level", "") is not None
        begins = legacy and statement.lstrip()[:7].lower().startswith(_BEGINNING)
        return not begins and not driver_in_transaction(connection)
    if level is not None:
        return False
    pooled = getattr(connection.connection, "dbapi_connection", None)
    return (
        getattr(driver, "autocommit", False) is True or getattr(pooled, "isolation_level", "") == "autocommit"
    )
