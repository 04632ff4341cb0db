"""What the source of a trigger or rule writes, told from its tokens: :func:`written_tables`.

Certain or ``None``: a source that runs SQL made of strings, calls a function that may write, or is cut into tokens in a
way that is not certain, may write anything.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from .rawsql import Token, tokens_of
from .sqlwords import HARMLESS_FUNCTIONS, NOT_CALLS, PURE_FUNCTIONS

_UNKNOWABLE = frozenset(
    {
        "execute",
        "prepare",
        "copy",
        "create",
        "alter",
        "drop",
        "refresh",
        "call",
        "do",
        "load",
        "reindex",
        "grant",
    }
)
"""Words of statements that write what no list of names tells; ``do`` but for ``ON CONFLICT DO``."""
_AROUND = """
    if elsif elseif else while loop return raise conflict key set begin declare notice exception into by type
    varchar char character bpchar numeric decimal dec bit varbit timestamp timestamptz time timetz interval float
"""
_NO_CALLS = NOT_CALLS.union(_AROUND.split())
"""Words of the language around the SQL, and types, that a parenthesis may follow."""
_KNOWN = PURE_FUNCTIONS | HARMLESS_FUNCTIONS
_SKIPPED = frozenset(
    {"only", "table", "or", "abort", "fail", "ignore", "replace", "rollback", "low_priority"}
)


def written_tables(
    source: str, dialect: str, table: str, key: Sequence[str] = (), harmless: Collection[str] = ()
) -> frozenset[str] | None:
    """Return the names of the tables that ``source``, fired by ``table``, writes; ``None`` if that cannot be told.

    Names are in lower case, with their schema where the source gives it. An UPDATE of no other row of ``table`` than
    the one that fired (``WHERE id = NEW.id``, ``key`` being its primary key) is left out. ``harmless`` are functions of
    the database's users that write nothing.
    """
    tokens = tokens_of(source, dialect)
    if tokens is None:
        return None
    written: set[str] = set()
    names: set[int] = (
        set()
    )  # where tables are named: a list of columns may follow, which makes no call of them
    for at, token in enumerate(tokens):
        if token.kind != "word":
            continue
        before = tokens[at - 1].text if at else ""
        after = [following.text for following in tokens[at + 1 : at + 4]]
        if token.text in _UNKNOWABLE and not (token.text == "do" and _of_a_conflict(after)):
            return None
        where = _names_after(tokens, at, before, after, several=dialect == "mysql")
        if where is None:
            return None
        for place in where:
            name, end = _name(tokens, place)
            names.add(end - 1)
            own = name.rpartition(".")[2] == table.rpartition(".")[2].lower()
            if not (token.text == "update" and own and _same_row(tokens, end, key)):
                written.add(name)
    return None if _calls_unknown(tokens, names, harmless) else frozenset(written)


def _of_a_conflict(after: Sequence[str]) -> bool:
    return after[:1] == ["nothing"] or after[:2] == ["update", "set"]


def _names_after(
    tokens: Sequence[Token], at: int, before: str, after: list[str], *, several: bool
) -> list[int] | None:
    """Where the tables are named that the word at ``at`` begins to write; ``None`` if that is not certain.

    ``several``: an UPDATE or DELETE may be of several tables, and INTO may be left out, as MySQL has it.
    """
    word = tokens[at].text
    if word in ("insert", "merge", "replace"):
        for step in range(1, 4):  # INSERT OR REPLACE INTO
            if after[step - 1 : step] == ["into"]:
                return [_first(tokens, at + step + 1)]
        if several:
            return [] if after[:1] == ["("] or before == "or" else None  # the function; CREATE OR REPLACE
        if word == "replace" or (word == "insert" and before == "then"):
            return []  # the function, or INSERT OR REPLACE met before; a branch of MERGE
        return None
    if word == "update":
        if after[:1] == ["set"] or before in ("for", "key"):
            return []  # of ON CONFLICT or MERGE; a locking read
        return None if several and _joins(tokens, at + 1, "set") else [_first(tokens, at + 1)]
    if word == "delete":
        if after[:1] == ["from"]:
            if several and _joins(tokens, at + 2, "where"):
                return None
            return [_first(tokens, at + 2)]
        return [] if before == "then" else None
    if word == "truncate":
        places = [_first(tokens, at + 1)]
        while tokens[(end := _name(tokens, places[-1])[1]) : end + 1] == [Token("punct", ",")]:
            places.append(_first(tokens, end + 1))
        return places
    return []


def _joins(tokens: Sequence[Token], at: int, until: str) -> bool:
    """Whether several tables are named from ``at`` on, before the word ``until`` or the end of the statement."""
    for token in tokens[at:]:
        if token in (("word", until), ("punct", ";")):
            return False
        if token in (
            ("punct", ","),
            ("punct", "("),
            ("word", "join"),
            ("word", "straight_join"),
            ("word", "using"),
        ):
            return True
    return False


def _first(tokens: Sequence[Token], at: int) -> int:
    while at < len(tokens) and tokens[at].kind == "word" and tokens[at].text in _SKIPPED:
        at += 1
    return at


def _name(tokens: Sequence[Token], at: int) -> tuple[str, int]:
    """The name that begins at ``at``, and where it ends."""
    parts = [token.text.lower() for token in tokens[at : at + 1]]
    at += 1
    while tokens[at : at + 1] == [Token("punct", ".")]:
        parts += [token.text.lower() for token in tokens[at + 1 : at + 2]]
        at += 2
    return ".".join(parts), at


def _same_row(tokens: Sequence[Token], at: int, key: Sequence[str]) -> bool:
    """Whether the UPDATE whose SET begins at ``at`` is of the row that fired, and leaves its key alone."""
    statement: list[str] = []
    for token in tokens[at:]:
        if token == Token("punct", ";"):
            break
        statement.append(token.text.lower())
    if statement.count("where") != 1 or "from" in statement or len(key) != 1:
        return False
    place = statement.index("where")
    column = key[0].lower()
    rows = [[name, "=", which, ".", name] for name in (column, "rowid") for which in ("new", "old")]
    return (
        statement[place + 1 :] in rows
        and column not in statement[:place]
        and "rowid" not in statement[:place]
    )


def _calls_unknown(tokens: Sequence[Token], names: Collection[int], harmless: Collection[str]) -> bool:
    for at, (kind, text) in enumerate(tokens[:-1]):
        if kind not in ("word", "quoted") or tokens[at + 1] != Token("punct", "(") or at in names:
            continue
        before = tokens[at - 1] if at else Token("punct", "")
        qualified = before == Token("punct", ".")
        if kind == "word" and text in _NO_CALLS and not qualified:
            continue
        if before.kind == "word" and before.text in ("as", "with", "recursive"):
            continue  # CAST(x AS varchar(20)), WITH name (columns) AS
        if before == Token("punct", "::"):
            continue
        if qualified and at > 1 and tokens[at - 2].text != "pg_catalog":
            text = f"{tokens[at - 2].text}.{text}"
        if text not in _KNOWN and text not in harmless:
            return True
    return False
