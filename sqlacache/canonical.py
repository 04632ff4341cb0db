"""Canonical text of a column's values: two values have the same text exactly when the database finds them equal.

A read is narrowed by a condition (``orders.user_id = 5``) only where Python can tell what the database will call equal.
That holds for few types: integers, booleans, UUIDs, dates, enums and strings compared byte by byte. For the others
(DESIGN section 3: decimals that the database rounds, padded CHAR, zones, citext and NOCASE, SQLite's ``'1' = 1``) there
is no canonical text, and whatever depends on them is taken as unknown, which evicts wider.

The text is readable and bounded, because it ends up in tags such as ``users:42`` and ``users?active=true``: ``42``,
``true``, ``2024-02-29``, ``null``. Strings are percent-escaped so that ``,`` ``=`` ``:`` ``?`` ``&`` ``*`` ``#`` and
``"`` never occur in them; ``null`` the string is ``%6Eull``, the empty string is ``""``, and a string whose text would
exceed :data:`LONGEST` characters is cut and ends in ``#`` and a hash of the whole.

Texts stay in the process that made them. The text of anything but an integer, a UUID or NULL is a :class:`Private` one:
in names, which leave the process, a digest stands for it (:mod:`.digests`).
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable, Collection, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple
from urllib.parse import quote
from weakref import WeakKeyDictionary

from sqlalchemy import types as sqltypes
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import Column, Table
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.types import TypeDecorator, TypeEngine

Canonicaliser = Callable[[Any], str]

NULL = "null"
"""Canonical text of SQL NULL; the string ``'null'`` has another."""
LONGEST = 64
"""Longest canonical text, in characters, that is not a hash."""

BINARY_STRING_DIALECTS = frozenset({"sqlite", "postgresql"})
"""Dialects whose strings, without an explicit collation, are equal exactly when their bytes are."""
BINARY_COLLATIONS = frozenset({"C", "POSIX", "BINARY", "ucs_basic"})
MYSQL = frozenset({"mysql", "mariadb"})
_UUID_NAMES = ("uuid", "UUID")

_STRING_NAMES = frozenset(
    {"string", "text", "unicode", "unicode_text", "VARCHAR", "NVARCHAR", "TEXT", "CLOB"}
)  # by __visit_name__: CHAR and NCHAR are padded, CITEXT ignores case, all of them subclasses of String


class Private(str):
    """Canonical text of a value that is not to be shown, not even as a primary key."""

    __slots__ = ()


class Strings(NamedTuple):
    """How MySQL compares a column's strings of printable ASCII; what it does to others is not known."""

    folds: bool
    """``a`` and ``A`` are equal."""
    pads: bool
    """``a`` and ``a `` are equal."""
    longest: int
    """Characters up to which a string is stored as it is, whatever the mode of the session that writes it."""


class NotCanonical(ValueError):
    """A value that the database may find equal to another one in ways that Python does not see."""


class Canonical:
    """Canonicalisers for the columns of one database, made once per column.

    ``binary_strings=False`` says that strings are not compared byte by byte there. ``inexact`` names the columns, as
    (``Table.fullname``, column name), that the database itself declares otherwise than the metadata does: a NOCASE
    or nondeterministic collation, a citext or CHAR column; ``strings`` tells, by the same names, how MySQL compares
    those that it compares in a known way (see :func:`sqlacache.write.catalog.read_catalog`).
    """

    def __init__(
        self,
        dialect: Dialect,
        binary_strings: bool = True,
        inexact: Collection[tuple[str, str]] = frozenset(),
        strings: Mapping[tuple[str, str], Strings] | None = None,
    ) -> None:
        self.dialect = dialect
        self.binary_strings = binary_strings
        self.inexact = frozenset(inexact)
        self.strings = strings or {}
        self._by_column: dict[Column[Any], Canonicaliser | None] = {}
        self._raw: dict[Column[Any], bool] = {}
        self.plans: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
        """What :mod:`.write.dml` knows of compiled statements: here, so that it goes with the engine."""

    def of(self, column: Column[Any]) -> Canonicaliser | None:
        """Return the canonicaliser of ``column``, or ``None`` when nothing may be narrowed by it.

        A column of an alias or a subquery counts as the table's column it stands for.
        """
        if column in self._by_column:
            return self._by_column[column]
        table: Any = column.table  # may be an alias
        if not isinstance(table, Table):
            base = [base for base in column.base_columns if isinstance(base, Column)]
            usable = len(base) == 1 and isinstance(base[0].table, Table)
            return self.of(base[0]) if usable else None
        made: Canonicaliser | None = None
        name = (table.fullname, column.name)
        if name not in self.inexact:
            made = canonicaliser(
                column, self.dialect, binary_strings=self.binary_strings, strings=self.strings.get(name)
            )
        self._by_column[column] = made
        return made

    def is_raw(self, column: Column[Any]) -> bool:
        """Whether equal texts of ``column`` mean that the database holds the very same value.

        Only where values are sent and returned as they are, without a type of ours or SQLAlchemy's in between, which
        might take two values for one (SQLite's 2 for true, a decorator that folds case).
        """
        known = self._raw.get(column)
        if known is None:
            plain = (
                not isinstance(column.type, (TypeDecorator, sqltypes.Enum)) and self.of(column) is not None
            )
            folded = self.dialect.name in MYSQL and isinstance(column.type, sqltypes.String)
            known = self._raw[column] = plain and not folded and not _is_processed(column.type, self.dialect)
        return known

    def compares_alike(self, one: Column[Any], other: Column[Any]) -> bool:
        """Whether what equals a value of ``one`` and a value of ``other`` has the same text for both columns."""
        types = one.type, other.type
        integers = isinstance(types[0], sqltypes.Integer) and isinstance(types[1], sqltypes.Integer)
        if not integers and not same_type(*types):
            return False
        return not self.strings or self._strings(one)[:2] == self._strings(other)[:2]

    def _strings(self, column: Column[Any]) -> tuple[Any, ...]:
        table: Any = column.table
        return self.strings.get((table.fullname, column.name), ())

    def compared(self, column: Column[Any], bind: BindParameter[Any]) -> Canonicaliser | None:
        """Return the canonicaliser of ``column`` for values passed through ``bind``.

        ``None`` as well when the parameter is processed by another type than the column's, as in
        ``Order.user_id == "5"``, where SQLAlchemy sends a string.
        """
        return self.of(column) if same_type(column.type, bind.type) else None


def _is_processed(type_: TypeEngine[Any], dialect: Dialect) -> bool:
    impl = type_.dialect_impl(dialect)
    return impl.bind_processor(dialect) is not None or impl.result_processor(dialect, None) is not None


def same_type(one: TypeEngine[Any], other: TypeEngine[Any]) -> bool:
    """Whether two types process, store and compare values alike, as far as can be told without asking them."""
    if one is other:
        return True
    if type(one) is not type(other) or isinstance(one, TypeDecorator):
        return False
    return repr(one) == repr(other)


def canonicaliser(
    column: Column[Any], dialect: Dialect, *, binary_strings: bool = True, strings: Strings | None = None
) -> Canonicaliser | None:
    """Return a function from Python-level values of ``column`` to canonical text; ``None``: not narrowable.

    The function takes what ``compiled.construct_params()`` holds, before bind processing, applies the bind processor
    that the dialect has for the column's type, and raises :class:`NotCanonical` for values that are not of the type's
    plain kind, such as ``"1"``, ``1.0`` or ``True`` for an integer.
    """
    declared = declared_type(column.type, dialect)
    impl = column.type.dialect_impl(dialect)
    if declared is None or _has_sql_expression(column, impl):
        return None
    on_mysql = dialect.name in MYSQL
    text = _mysql_text(declared, strings) if on_mysql else _text_of(declared, dialect, binary_strings)
    if text is None:
        return None
    process = impl.bind_processor(dialect)
    spelled = text if is_open(column, dialect) else _private(text)

    def canonical(value: Any) -> str:
        if process is not None:
            try:
                value = process(value)
            except Exception as error:
                raise NotCanonical(f"{column} does not take this value: {type(error).__name__}") from error
        return NULL if value is None else spelled(value)

    return canonical


def is_open(column: Column[Any], dialect: Dialect) -> bool:
    """Tell whether values of ``column`` may be shown where they are a primary key: integers and UUIDs."""
    declared = declared_type(column.type, dialect)
    return isinstance(declared, sqltypes.Integer) or getattr(declared, "__visit_name__", "") in _UUID_NAMES


def _private(text: Canonicaliser) -> Canonicaliser:
    return lambda value: Private(text(value))


def declared_type(type_: TypeEngine[Any], dialect: Dialect) -> TypeEngine[Any] | None:
    """Return SQLAlchemy's own type under decorators and variants; ``None`` when it is not one of its own."""
    for _ in range(10):
        variant = getattr(type_, "_variant_mapping", {}).get(dialect.name)  # SQLAlchemy 2.x
        if variant is not None:
            type_ = variant
        elif isinstance(type_, TypeDecorator):
            type_ = type_.load_dialect_impl(dialect)
        else:
            return type_ if type(type_).__module__.startswith("sqlalchemy.") else None
    return None


def _has_sql_expression(column: Column[Any], impl: TypeEngine[Any]) -> bool:
    """Whether the type wraps values or the column in SQL, so that what is compared is not what was sent."""
    bind: BindParameter[Any] = BindParameter("value", None, type_=column.type)
    return impl.bind_expression(bind) is not None or impl.column_expression(column) is not None


def _text_of(declared: TypeEngine[Any], dialect: Dialect, binary_strings: bool) -> Canonicaliser | None:
    """The canonical text of values after bind processing; ``None`` when the type has none."""
    if isinstance(declared, sqltypes.Enum):
        binary = binary_strings and dialect.name in BINARY_STRING_DIALECTS
        return _string_text(None) if binary else _enum_text(declared)
    if isinstance(declared, sqltypes.Integer):
        return _integer_text
    if isinstance(declared, sqltypes.Boolean):
        return _boolean_text
    if isinstance(declared, sqltypes.Date):
        return _date_as_text if dialect.name == "sqlite" else _date_text
    if declared.__visit_name__ in _UUID_NAMES:
        native = dialect.name == "postgresql" and getattr(declared, "native_uuid", True)
        return _uuid_text if native else _uuid_as_text
    if isinstance(declared, sqltypes.String) and declared.__visit_name__ in _STRING_NAMES:
        if not binary_strings or dialect.name not in BINARY_STRING_DIALECTS:
            return None
        if declared.collation is not None and declared.collation not in BINARY_COLLATIONS:
            return None
        return _string_text(declared.length if dialect.name == "postgresql" else None)
    return None


def _mysql_text(declared: TypeEngine[Any], strings: Strings | None) -> Canonicaliser | None:
    """The same on MySQL, where a string may equal others, and a session may cut what is too long or too large."""
    if isinstance(declared, sqltypes.Integer):
        bounds = integer_range(declared)
        return None if bounds is None else _bounded_integer_text(*bounds)
    if isinstance(declared, sqltypes.Boolean):
        return _boolean_text
    if isinstance(declared, sqltypes.Date):
        return _date_text
    if declared.__visit_name__ in _UUID_NAMES:
        return _uuid_as_text
    if strings is None:
        return None
    if isinstance(declared, sqltypes.Enum):
        return _enum_text(declared)
    if isinstance(declared, sqltypes.String) and declared.__visit_name__ in _STRING_NAMES:
        return _ascii_text(strings)
    return None


_BITS = {
    "TINYINT": 8,
    "SMALLINT": 16,
    "small_integer": 16,
    "MEDIUMINT": 24,
    "INTEGER": 32,
    "integer": 32,
    "BIGINT": 64,
    "big_integer": 64,
}


def integer_range(declared: TypeEngine[Any]) -> tuple[int, int] | None:
    """Return the least and the greatest value of MySQL's column of an integer type; ``None`` for one not known."""
    bits = _BITS.get(declared.__visit_name__)
    if bits is None:
        return None
    unsigned = getattr(declared, "unsigned", False) or getattr(declared, "zerofill", False)
    return (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _bounded_integer_text(least: int, greatest: int) -> Canonicaliser:
    def text(value: Any) -> str:
        if type(value) is int and not least <= value <= greatest:
            raise NotCanonical("an integer that MySQL may cut")
        return _integer_text(value)

    return text


def _ascii_text(strings: Strings) -> Canonicaliser:
    def text(value: Any) -> str:
        if type(value) is not str or not (value.isascii() and value.isprintable()):
            raise NotCanonical("not a string of printable ASCII, which alone MySQL compares in a known way")
        if len(value) > strings.longest:
            raise NotCanonical("a string that MySQL may cut")
        if strings.pads:
            value = value.rstrip(" ")
        return escaped(value.lower() if strings.folds else value)

    return text


def _integer_text(value: Any) -> str:
    if type(value) is not int:
        raise NotCanonical(f"{type(value).__name__} for an integer")
    return str(value)


def _boolean_text(value: Any) -> str:
    if type(value) is bool or (type(value) is int and value in (0, 1)):
        return "true" if value else "false"
    raise NotCanonical(f"{type(value).__name__} for a boolean")


def _date_text(value: Any) -> str:
    if type(value) is not datetime.date:
        raise NotCanonical(f"{type(value).__name__} for a date")
    return value.isoformat()


def _date_as_text(value: Any) -> str:
    """SQLite stores dates as the text that the bind processor made, and compares them so."""
    return escaped(value) if type(value) is str else _date_text(value)


def _uuid_text(value: Any) -> str:
    if isinstance(value, uuid.UUID):  # asyncpg has a subclass of its own
        return str(value)
    if type(value) is str:
        try:
            return str(uuid.UUID(value))
        except ValueError as error:
            raise NotCanonical("a string that is no UUID") from error
    raise NotCanonical(f"{type(value).__name__} for a UUID")


def _uuid_as_text(value: Any) -> str:
    """Without a native type the database compares text, so that only the one usual spelling is safe."""
    text = _uuid_text(value)
    if type(value) is str and value not in (text, text.replace("-", "")):
        raise NotCanonical("a UUID in an unusual spelling")
    return text


def _string_text(longest: int | None) -> Canonicaliser:
    def text(value: Any) -> str:
        if type(value) is not str or "\0" in value:
            raise NotCanonical(f"{type(value).__name__} for a string")
        if longest is not None and len(value) > longest:
            raise NotCanonical(
                "a string that PostgreSQL may cut"
            )  # spaces beyond the length are cut silently
        return escaped(value)

    return text


def _enum_text(declared: sqltypes.Enum) -> Canonicaliser | None:
    """Where strings are not compared by bytes, the declared values are safe as long as no two differ by case only."""
    known = {name.casefold().rstrip() for name in declared.enums}
    if len(known) != len(declared.enums) or not all(name.isascii() for name in declared.enums):
        return None  # accents may make no difference either

    def text(value: Any) -> str:
        if type(value) is not str or value not in declared.enums:
            raise NotCanonical("not one of the enum's values")
        return escaped(value)

    return text


def escaped(value: str) -> str:
    """Return ``value`` escaped and bounded as the module's docstring says."""
    if value == NULL:
        return "%6Eull"
    if value.isalnum() and value.isascii() and len(value) <= LONGEST:
        return value
    if value == "":
        return '""'
    try:
        text = quote(value, safe="@/+")
        if len(text) <= LONGEST:
            return text
        digest = blake2b(value.encode(), digest_size=16).hexdigest()
    except UnicodeEncodeError as error:
        raise NotCanonical("a string that has no UTF-8 form") from error
    return f"{text[: LONGEST - 33]}#{digest}"
