"""What a piece of SQL text does, told without parsing it fully: ``text()`` and ``exec_driver_sql()`` come through here.

:func:`classify` is certain or says ``write``. It reads tokens only, so it need not know a grammar: a SELECT is a read
when no data-modifying keyword occurs outside strings, comments and quoted identifiers, no second statement follows, and
every function called is known to write nothing. Text that different databases would cut into tokens differently
(``\\'`` in a plain string, nested comments, ``#``) is ``write``, unless the dialect is given and settles it.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from .sqlwords import HARMLESS_FUNCTIONS, HARMLESS_PRAGMAS, HARMLESS_SETTINGS, NOT_CALLS, PURE_FUNCTIONS

__all__ = ["PURE_FUNCTIONS", "RawKind", "Token", "classify", "modifies", "tokens_of"]

RawKind = Literal[
    "read", "state", "begin", "commit", "rollback", "savepoint", "release", "rollback_to", "write"
]
"""``read`` touches nothing, ``state`` changes what the connection's later statements mean, ``write`` may touch all."""


class Token(NamedTuple):
    kind: Literal["word", "quoted", "string", "number", "punct"]
    text: str
    """Words in lower case, the content of quoted identifiers as it is, nothing for strings."""


_SPACE = re.compile(r"\s+")
_WORD = re.compile(r"[^\W\d][\w$]*")
_NUMBER = re.compile(r"\d[\w.]*")
_DOLLAR_QUOTE = re.compile(r"\$(?:[^\W\d]\w*)?\$")
_DOLLAR_PARAMETER = re.compile(r"\$\w+")
_PLAIN_BRACKETS = re.compile(r"\[[\w\s,:.$~]*\]")

_MODIFYING = frozenset({"insert", "update", "delete", "merge", "into"})
_SUSPICIOUS = re.compile("insert|update|delete|merge|into|;|:=", re.IGNORECASE)


class _Odd(Exception):
    """Text that databases disagree about, or that is not understood."""


def _tokens(sql: str, dialect: str) -> list[Token]:
    found: list[Token] = []
    at, end = 0, len(sql)
    standard = dialect in ("postgresql", "sqlite")
    while at < end:
        char = sql[at]
        if match := _SPACE.match(sql, at):
            at = match.end()
        elif sql.startswith("--", at):
            if not standard and at + 2 < end and not sql[at + 2].isspace():
                raise _Odd("-- that is no comment for MySQL")
            newline = sql.find("\n", at)
            at = end if newline < 0 else newline
        elif sql.startswith("/*", at):
            close = sql.find("*/", at + 2)
            body = sql[at + 2 : close]
            if close < 0 or "/*" in body or body.startswith(("!", "M!")):
                raise _Odd("a comment that is nested, open or executed")
            at = close + 2
        elif char == "#" and not standard:
            raise _Odd("# that is a comment for MySQL")
        elif char == "'":
            escapes = bool(found) and found[-1] == ("word", "e") and sql[at - 1] in "eE"
            if escapes:
                found.pop()
            at = _close(sql, at, "'", escapes, backslash_is_plain=dialect == "sqlite")
            found.append(Token("string", ""))
        elif char == '"' or (char == "`" and dialect != "postgresql"):
            start, at = at, _close(sql, at, char, False, backslash_is_plain=standard)
            found.append(Token("quoted", sql[start + 1 : at - 1]))
        elif char == "[" and dialect in ("sqlite", "mssql"):
            close = sql.find("]", at)
            if close < 0:
                raise _Odd("an open bracket")
            found.append(Token("quoted", sql[at + 1 : close]))
            at = close + 1
        elif char == "[" and not dialect and not _PLAIN_BRACKETS.match(sql, at):
            raise _Odd("brackets that may quote a name or hold an expression")
        elif char == "$" and (match := _DOLLAR_QUOTE.match(sql, at)):
            close = sql.find(match.group(), match.end())
            if dialect not in ("", "postgresql") or close < 0:
                raise _Odd("a dollar quote")
            found.append(Token("string", ""))
            at = close + len(match.group())
        elif char == "$" and (match := _DOLLAR_PARAMETER.match(sql, at)):
            found.append(Token("punct", "$"))
            at = match.end()
        elif match := _WORD.match(sql, at):
            found.append(Token("word", match.group().lower()))
            at = match.end()
        elif match := _NUMBER.match(sql, at):
            found.append(Token("number", match.group()))
            at = match.end()
        elif char in "\\\0":
            raise _Odd("a character that has no place here")
        elif sql.startswith((":=", "::"), at):
            found.append(Token("punct", sql[at : at + 2]))
            at += 2
        else:
            found.append(Token("punct", char))
            at += 1
    return found


def tokens_of(sql: str, dialect: str) -> list[Token] | None:
    """Cut SQL into tokens; ``None`` when that is not certain."""
    try:
        return _tokens(sql, dialect)
    except _Odd:
        return None


def _close(sql: str, at: int, quote: str, escapes: bool, backslash_is_plain: bool) -> int:
    """The position after the quoted text that begins at ``at``; doubled quotes stay inside."""
    at += 1
    while at < len(sql):
        char = sql[at]
        if char == "\\" and (escapes or not backslash_is_plain):
            if not escapes and sql[at + 1 : at + 2] == quote:
                raise _Odd("a backslash before a quote, which ends the string or does not")
            at += 2
        elif char != quote:
            at += 1
        elif sql[at + 1 : at + 2] == quote:
            at += 2
        else:
            return at + 1
    raise _Odd("an open string")


def _modifying(tokens: list[Token]) -> bool:
    """Whether a data-modifying keyword occurs, ``FOR UPDATE`` of a locking read aside."""
    for index, (kind, text) in enumerate(tokens):
        if kind == "word" and text in _MODIFYING:
            before = tokens[index - 1].text if index else ""
            if not (text == "update" and before in ("for", "key")):
                return True
        elif (kind, text) in (("punct", ";"), ("punct", ":=")):
            return True
    return False


def modifies(sql: str, dialect: str = "") -> bool:
    """Whether ``sql``, which begins as a SELECT, may hold data-modifying SQL (or cannot be told not to)."""
    if not _SUSPICIOUS.search(sql):
        return False
    tokens = tokens_of(sql, dialect)
    return tokens is None or _modifying(tokens)


_TEMPORARY = re.compile(r"\s*CREATE\s.*\bTEMP", re.IGNORECASE | re.DOTALL)


def temporary_relation(sql: str, dialect: str) -> str | None:
    """Return the name, in lower case and without its schema, of the temporary table or view that ``sql`` makes, if any.

    From then on the name stands for it on that connection, whatever else has that name.
    """
    if not _TEMPORARY.match(sql):
        return None
    tokens = tokens_of(sql, dialect) or []
    words = [token.text.lower() for token in tokens]
    made = next((at for at, word in enumerate(words[:6]) if word in ("table", "view")), None)
    if made is None or {"temp", "temporary"}.isdisjoint(words[1:made]):
        return None
    at = made + (4 if words[made + 1 : made + 4] == ["if", "not", "exists"] else 1)
    while words[at + 1 : at + 2] == ["."]:
        at += 2
    return words[at] if at < len(words) else None


def classify(sql: str, dialect: str = "") -> RawKind:
    """Tell what ``sql`` does. ``dialect`` is SQLAlchemy's name of it; without, only what all agree on is certain."""
    tokens = tokens_of(sql, dialect)
    if tokens is None:
        return "write"
    while tokens and tokens[-1] == ("punct", ";"):
        tokens.pop()
    while len(tokens) > 1 and tokens[0] == ("punct", "("):
        tokens.pop(0)  # (SELECT ...) UNION (SELECT ...)
    if not tokens:
        return "read"
    if tokens[0].kind != "word" or Token("punct", ";") in tokens:
        return "write"
    words = [token.text if token.kind == "word" else "" for token in tokens]
    first, second = words[0], words[1] if len(words) > 1 else ""
    if first in ("select", "with", "values", "table"):
        return _select(tokens)
    if first in ("explain", "describe", "desc"):
        return _explain(tokens, words)
    if first == "show":
        return "read"
    if first == "pragma":
        return _pragma(tokens)
    if first == "set":
        return _set(tokens, words, dialect)
    if first in ("reset", "discard", "use", "attach", "detach"):
        return "state"
    if first == "begin" or (first == "start" and second == "transaction"):
        return "begin"
    if first in ("commit", "end") and second != "prepared":
        return "commit"
    if first in ("rollback", "abort") and second != "prepared":
        return "rollback_to" if "to" in words else "rollback"
    if first == "savepoint":
        return "savepoint"
    if first == "release":
        return "release"
    if first in ("lock", "listen", "unlisten", "notify"):
        return "read"
    if first == "prepare" and second == "transaction":
        return "read"  # what it makes visible, COMMIT PREPARED does
    if first == "xa":
        return "read" if second in ("start", "begin", "end", "prepare", "recover") else "write"
    return "write"


def _select(tokens: list[Token]) -> RawKind:
    if _modifying(tokens):
        return "write"
    called = set(_calls(tokens))
    if called <= _KNOWN:
        return "read"
    return "state" if called - _KNOWN == {"set_config"} else "write"


def _explain(tokens: list[Token], words: list[str]) -> RawKind:
    """EXPLAIN ANALYZE executes what it explains."""
    if not {"analyze", "analyse"} & set(words):
        return "read"
    for index, word in enumerate(words):
        if word in ("select", "with", "values", "table"):
            return _select(tokens[index:])
    return "write"


_KNOWN = PURE_FUNCTIONS | HARMLESS_FUNCTIONS


def _calls(tokens: list[Token]) -> list[str]:
    """Names of the functions called; a name that is not certain to be the database's own gets a ``?``."""
    called = []
    for index, (kind, text) in enumerate(tokens[:-1]):
        if kind not in ("word", "quoted") or tokens[index + 1] != ("punct", "("):
            continue
        before = tokens[index - 1] if index else Token("punct", "")
        if kind == "word" and text in NOT_CALLS and before.text != ".":
            continue
        if before.text in ("as", "::") and before.kind != "quoted":
            continue  # CAST(x AS varchar(20)), x::numeric(10, 2), f(x) AS t(a, b)
        if _names_a_cte(tokens, index + 1):
            continue
        if before == ("punct", "."):
            text = text if index > 1 and tokens[index - 2].text == "pg_catalog" else f"?{text}"
        called.append(text)
    return called


def _names_a_cte(tokens: list[Token], at: int) -> bool:
    """Whether the parenthesis at ``at`` is the column list in ``WITH name (columns) AS (``."""
    while at < len(tokens) and tokens[at] != ("punct", ")"):
        at += 1
    after = tuple(token.text for token in tokens[at + 1 : at + 5])
    return any(
        after[: len(form)] == form
        for form in (("as", "("), ("as", "materialized", "("), ("as", "not", "materialized", "("))
    )


def _pragma(tokens: list[Token]) -> RawKind:
    rest = tokens[1:]
    if len(rest) > 2 and rest[1] == ("punct", "."):
        rest = rest[2:]
    if len(rest) == 1 or (rest and rest[0].text.lower() in HARMLESS_PRAGMAS):
        return "read"
    return "state"


def _set(tokens: list[Token], words: list[str], dialect: str) -> RawKind:
    if words[1:2] == ["statement"] and dialect != "postgresql":  # MariaDB: SET STATEMENT name = value FOR ...
        after = tokens[words.index("for") + 1 :] if "for" in words else []
        reads = after and after[0].text in ("select", "with", "values", "table") and _select(after) == "read"
        return "read" if reads else "write"
    if not set(_calls(tokens)) <= _KNOWN:
        return "write"  # MySQL: SET @name = f()
    return "read" if _harmless_setting(tokens, words) else "state"


def _harmless_setting(tokens: list[Token], words: list[str]) -> bool:
    rest = tokens[2:] if len(words) > 1 and words[1] in ("local", "session") else tokens[1:]
    return (
        len(rest) > 2
        and rest[0].text in HARMLESS_SETTINGS
        and rest[1].text in ("=", "to")
        and Token("punct", ",") not in rest
    )
