"""Which conditions tell alone, row by row, what a bulk statement writes, and that they are rebuilt as they were."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    Boolean,
    Column,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    and_,
    bindparam,
    create_engine,
    delete,
    event,
    exists,
    func,
    insert,
    literal_column,
    not_,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, declarative_base

from sqlacache.canonical import Canonical
from sqlacache.write.dml import analyse
from tests.write.announced import since_20

Base = declarative_base()


class Thing(Base):
    __tablename__ = "things"
    id = Column(Integer, primary_key=True)
    kind = Column(String(5))
    number = Column("n", Integer, key="number")
    flag = Column(Boolean)
    owner = Column(ForeignKey("things.id"))


things = Thing.__table__
others = Table("others", Base.metadata, Column("id", Integer, primary_key=True), Column("thing", Integer))
DIALECTS = {"sqlite": sqlite.dialect(), "postgresql": postgresql.dialect()}


def matched(statement: Any, dialect: Any, **values: Any) -> list[Any] | None:
    """The conditions that tell what ``statement`` writes."""
    compiled = statement.compile(dialect=dialect, column_keys=None)
    plan = analyse(compiled, Canonical(dialect))
    assert plan is not None
    return plan.matched([compiled.construct_params(values)])


UNDERSTOOD = {
    "all": [],
    "equal": [Thing.kind == "a"],
    "two": [Thing.kind == "a", Thing.number > 1],
    "null": [Thing.kind.is_(None)],
    "different": [Thing.kind != "a"],
    "list": [Thing.number.in_([1, 2])],
    "either": [or_(Thing.kind == "a", and_(Thing.number >= 1, Thing.number <= 2))],
    "not": [not_(or_(Thing.kind == "a", Thing.flag))],
    "flag": [Thing.flag],
    "no_flag": [~Thing.flag],
    "columns": [Thing.number < Thing.owner],
    "named": [Thing.kind == bindparam("was", "a")],
}


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=list(DIALECTS))
@pytest.mark.parametrize("where", UNDERSTOOD.values(), ids=list(UNDERSTOOD))
def test_conditions_on_the_row_alone_are_understood(where: list[Any], dialect: Any) -> None:
    assert matched(update(things).where(*where).values(owner=1), dialect) is not None
    assert matched(delete(things).where(*where), dialect) is not None


NOT_UNDERSTOOD = {
    "function": update(things).where(func.lower(things.c.kind) == "a").values(owner=1),
    "subquery": update(things).where(things.c.id.in_(select(others.c.thing))).values(owner=1),
    "exists": delete(things).where(exists(select(others.c.id).where(others.c.thing == things.c.id))),
    "text": update(things).where(text("n > 1")).values(owner=1),
    "literal_column": update(things).where(literal_column("n") > 1).values(owner=1),
    "operator": update(things).where(things.c.kind.op("~~")("a")).values(owner=1),
    "like": update(things).where(things.c.kind.like("a%")).values(owner=1),
    "arithmetic": update(things).where(things.c.number + 1 == 2).values(owner=1),
    "prefix": update(things).where(things.c.kind == "a").prefix_with("ONLY").values(owner=1),
    "primary_key": update(things).where(things.c.id == 1).values(owner=1),
    "insert": insert(things).values(id=1),
}


@pytest.mark.parametrize("statement", NOT_UNDERSTOOD.values(), ids=list(NOT_UNDERSTOOD))
def test_what_looks_further_is_not_understood(statement: Any) -> None:
    assert matched(statement, DIALECTS["postgresql"]) is None


def test_an_update_of_two_tables_is_not_understood() -> None:
    statement = update(things).where(things.c.kind == "a", things.c.id == others.c.thing).values(owner=1)
    assert matched(statement, DIALECTS["postgresql"]) is None


@since_20
def test_an_update_of_an_alias_is_not_understood() -> None:
    alias = things.alias("t")
    assert matched(update(alias).where(alias.c.kind == "a").values(owner=1), DIALECTS["postgresql"]) is None


def test_another_table_of_the_same_name_is_not_taken_for_it() -> None:
    same = Table("things", MetaData(), Column("id", Integer, primary_key=True), Column("kind", String))
    assert matched(update(things).where(same.c.kind == "a").values(owner=1), DIALECTS["postgresql"]) is None


def test_many_parameters_are_not_understood() -> None:
    statement = update(things).where(things.c.kind == bindparam("was")).values(owner=1)
    compiled = statement.compile(dialect=DIALECTS["sqlite"])
    plan = analyse(compiled, Canonical(DIALECTS["sqlite"]))
    assert plan is not None
    given = [compiled.construct_params({"was": was}) for was in ("a", "b")]
    assert plan.matched(given[:1]) is not None
    assert plan.matched(given) is None


# Rebuilt

_atoms = st.one_of(
    st.sampled_from(["a", "b", None]).map(
        lambda value: Thing.kind == value if value else Thing.kind.is_(None)
    ),
    st.sampled_from(["a", "b"]).map(lambda value: Thing.kind != value),
    st.integers(0, 3).map(lambda value: Thing.number >= value),
    st.integers(0, 3).map(lambda value: Thing.number < value),
    st.lists(st.integers(0, 3), min_size=1, max_size=3).map(lambda values: Thing.number.in_(values)),
    st.lists(st.integers(0, 3), min_size=1, max_size=3).map(lambda values: not_(Thing.number.in_(values))),
    st.sampled_from([True, False, None]).map(lambda value: Thing.flag.is_(value)),
    st.just(Thing.flag),
    st.just(not_(Thing.flag)),
    st.just(Thing.number == Thing.owner),
)
_conditions = st.recursive(
    _atoms,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: and_(*parts)),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: or_(*parts)),
        inner.map(not_),
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def filled() -> Any:
    engine = create_engine("sqlite://", future=True)
    Base.metadata.create_all(engine)
    rows = [
        {"kind": kind, "number": number, "flag": flag, "owner": owner}
        for kind in ("a", "b", None)
        for number in (0, 1, 2, None)
        for flag in (True, False, None)
        for owner in (1, None)
    ]
    with engine.begin() as connection:
        connection.execute(insert(things), rows)
    yield engine
    engine.dispose()


@settings(max_examples=150, deadline=None)
@given(where=st.lists(_conditions, max_size=2), orm=st.booleans())
def test_the_rows_that_the_conditions_find_are_those_that_are_written(
    filled: Any, where: list[Any], orm: bool
) -> None:
    found: list[set[int]] = []
    canonical = Canonical(filled.dialect)

    def look(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if statement.startswith("UPDATE"):
            plan = analyse(context.compiled, canonical)
            conditions = plan.matched(context.compiled_parameters) if plan is not None else None
            assert conditions is not None
            found.append(set(conn.execute(select(things.c.id).where(*conditions)).scalars()))

    with Session(filled, future=True) as session:
        event.listen(filled, "before_cursor_execute", look)
        try:
            written = update(Thing if orm else things).where(*where).values(kind="x")
            options = {"synchronize_session": False} if orm else {}
            result = session.execute(written, execution_options=options)
        finally:
            event.remove(filled, "before_cursor_execute", look)
        became = set(session.execute(select(things.c.id).where(things.c.kind == "x")).scalars())
        assert found == [became]
        assert result.rowcount == len(became)
        session.rollback()
