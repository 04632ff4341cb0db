"""Statements of every form: what any of their tables contributes is seen, wherever in the statement it stands."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    String,
    and_,
    case,
    cast,
    distinct,
    exists,
    func,
    lambda_stmt,
    literal,
    not_,
    or_,
    select,
    tuple_,
    union,
    union_all,
    update,
)
from sqlalchemy.orm import aliased, contains_eager, joinedload

from tests.support.models import Tag, User
from tests.support.reading import Reader
from tests.support.reads import entities, get, rows, scalar
from tests.support.situations import BY_WRITE, Situation, check, situations
from tests.support.writes import add, change, delete, execute, new_user

from .support_exact import exactly, furnished, raw_rows
from .support_schema import Book, Node, Shelf, furnish

sqlite_databases, postgresql_databases = furnished(furnish)

TAGS = rows(lambda: select(Tag.id, Tag.name).order_by(Tag.id))

write_book = add(lambda: Book(id=100, shelf_id=1, title="new", year=1900, pages=500))
move_book = change(Book, 1, shelf_id=2)


def _outer() -> Any:
    return (
        select(Shelf.label, Book.title).outerjoin(Book, Book.shelf_id == Shelf.id).order_by(Shelf.id, Book.id)
    )


def _outer_with_condition_in_on() -> Any:
    on = and_(Book.shelf_id == Shelf.id, Book.year == 1965)
    return select(Shelf.label, Book.title).outerjoin(Book, on).where(Shelf.id == 2).order_by(Book.id)


def _absent_by_outer() -> Any:
    return (
        select(Shelf.label)
        .outerjoin(Book, Book.shelf_id == Shelf.id)
        .where(Book.id.is_(None))
        .order_by(Shelf.id)
    )


def _full() -> Any:
    joined = select(Shelf.label, Book.title).join_from(Shelf, Book, Book.shelf_id == Shelf.id, full=True)
    return joined.order_by(Shelf.label, Book.title)


def _full_with_condition() -> Any:
    on = and_(Book.shelf_id == Shelf.id, Shelf.id == 1)
    return (
        select(Shelf.label, Book.title)
        .join_from(Shelf, Book, on, full=True)
        .order_by(Book.title, Shelf.label)
    )


def _self_join() -> Any:
    child, parent = aliased(Node), aliased(Node)
    return select(parent.name, child.name).join(parent, child.parent_id == parent.id).order_by(child.id)


def _self_join_under_a_condition() -> Any:
    child = aliased(Node)
    return (
        select(child.name)
        .join(Node, child.parent_id == Node.id)
        .where(Node.name == "left")
        .order_by(child.id)
    )


def _alias() -> Any:
    book = aliased(Book, name="b")
    return select(book.title).where(book.year == 1815).order_by(book.id)


def _cte() -> Any:
    old = select(Book.id, Book.shelf_id).where(Book.year < 1950).cte("old")
    return (
        select(Shelf.label, func.count(old.c.id)).join(old, old.c.shelf_id == Shelf.id).group_by(Shelf.label)
    )


def _cte_used_twice() -> Any:
    old = select(Book.id, Book.shelf_id, Book.title).where(Book.year < 1950).cte("old")
    other = old.alias()
    return (
        select(old.c.title, other.c.title)
        .where(old.c.shelf_id == other.c.shelf_id)
        .order_by(old.c.id, other.c.id)
    )


def _tree() -> Any:
    below = select(Node.id, Node.name).where(Node.id == 1).cte("below", recursive=True)
    below = below.union_all(select(Node.id, Node.name).join(below, Node.parent_id == below.c.id))
    return select(below.c.name).order_by(below.c.id)


def _union() -> Any:
    return union(select(Book.title.label("n")), select(Shelf.label)).order_by("n")


def _union_under_conditions() -> Any:
    return union_all(
        select(Book.title).where(Book.shelf_id == 1), select(Book.title).where(Book.shelf_id == 2)
    )


def _aliased_union() -> Any:
    both = union(select(Book).where(Book.year == 1815), select(Book).where(Book.year == 1965)).subquery()
    book = aliased(Book, both)
    return select(book).order_by(book.id)


def _correlated_scalar() -> Any:
    longest = select(func.max(Book.pages)).where(Book.shelf_id == Shelf.id).scalar_subquery()
    return select(Shelf.label, longest).where(Shelf.id == 1)


def _correlated_in_where() -> Any:
    other = aliased(Book)
    longest = select(func.max(other.pages)).where(other.shelf_id == Book.shelf_id).scalar_subquery()
    return select(Book.title).where(Book.pages == longest).order_by(Book.id)


def _exists() -> Any:
    return (
        select(Shelf.label)
        .where(exists().where(Book.shelf_id == Shelf.id, Book.year == 1965))
        .order_by(Shelf.id)
    )


def _not_exists() -> Any:
    return select(Shelf.label).where(~exists().where(Book.shelf_id == Shelf.id)).order_by(Shelf.id)


def _any() -> Any:
    return select(Shelf.label).where(Shelf.books.any(Book.year == 1965)).order_by(Shelf.id)


def _has() -> Any:
    return select(Book.title).where(Book.shelf.has(Shelf.label == "high")).order_by(Book.id)


def _limit_in_subquery() -> Any:
    newest = (
        select(Book.id, Book.title).where(Book.shelf_id == 1).order_by(Book.year.desc()).limit(1).subquery()
    )
    return select(newest.c.title)


def _page() -> Any:
    return select(Book.id, Book.title).order_by(Book.pages.desc(), Book.id).offset(1).limit(2)


def _window() -> Any:
    place = func.row_number().over(partition_by=Book.shelf_id, order_by=Book.pages.desc()).label("place")
    return select(Book.title, place).order_by(Book.id)


def _window_filtered_outside() -> Any:
    place = func.rank().over(partition_by=Book.shelf_id, order_by=Book.pages.desc()).label("place")
    ranked = select(Book.title, Book.shelf_id, place).subquery()
    return select(ranked.c.title).where(ranked.c.place == 1, ranked.c.shelf_id == 1).order_by(ranked.c.title)


def _sum_over() -> Any:
    return select(Book.title, func.sum(Book.pages).over(order_by=Book.id)).where(Book.shelf_id == 1)


def _having() -> Any:
    return (
        select(Book.shelf_id).group_by(Book.shelf_id).having(func.count(Book.id) > 1).order_by(Book.shelf_id)
    )


def _order_by_only() -> Any:
    return select(Book.title).order_by(Book.pages)


def _case() -> Any:
    return select(Book.id, case((Book.year < 1950, "old"), else_="new")).order_by(Book.id)


def _case_in_order() -> Any:
    return select(Book.id).order_by(case((Book.year < 1950, 1), else_=0), Book.id)


def _cast() -> Any:
    return select(Book.id).where(cast(Book.pages, String) == "400")


def _filtered_aggregate() -> Any:
    return select(func.count(Book.id).filter(Book.year < 1950), func.sum(Book.pages))


def _tuples() -> Any:
    return (
        select(Book.title)
        .where(tuple_(Book.shelf_id, Book.year).in_([(1, 1815), (2, 1900)]))
        .order_by(Book.id)
    )


def _not_in_empty() -> Any:
    return select(Book.title).where(Book.id.not_in([])).order_by(Book.id)


def _in_many() -> Any:
    return select(Book.title).where(Book.shelf_id.in_(list(range(1, 500)))).order_by(Book.id)


def _in_with_null() -> Any:
    return select(Book.title).where(Book.shelf_id.in_([1, None])).order_by(Book.id)


def _in_subquery() -> Any:
    return (
        select(Book.title)
        .where(Book.shelf_id.in_(select(Shelf.id).where(Shelf.label == "high")))
        .order_by(Book.id)
    )


def _either() -> Any:
    return select(Book.title).where(or_(Book.shelf_id == 1, Book.year == 1965)).order_by(Book.id)


def _negated() -> Any:
    return select(Book.title).where(not_(and_(Book.shelf_id == 1, Book.year == 1815))).order_by(Book.id)


def _lambda() -> Any:
    shelf = 1
    return lambda_stmt(lambda: select(Book.title).where(Book.shelf_id == shelf).order_by(Book.id))


def _lambda_in_where() -> Any:
    shelf = 1
    return select(Book.title).where(lambda: Book.shelf_id == shelf).order_by(Book.id)


def _contains_eager() -> Any:
    return select(Shelf).join(Shelf.books).options(contains_eager(Shelf.books)).order_by(Shelf.id, Book.id)


def _joined_eager_under_limit() -> Any:
    return select(Shelf).options(joinedload(Shelf.books)).order_by(Shelf.id).limit(2)


def _nested() -> Any:
    inner = select(Book.id, Book.title, Book.shelf_id).where(Book.year < 1980).subquery()
    middle = select(inner.c.id, inner.c.title).where(inner.c.shelf_id == 1).subquery()
    return select(middle.c.title).order_by(middle.c.id)


def _distinct() -> Any:
    return select(Book.shelf_id).distinct().order_by(Book.shelf_id)


def _literal_beside() -> Any:
    return select(Book.title, literal("x"), literal(1)).where(Book.shelf_id == 1).order_by(Book.id)


FORMS = [
    Situation("outer_join_sees_a_row_of_the_optional_side", rows(_outer), write_book, TAGS),
    Situation("outer_join_sees_a_row_that_moves", rows(_outer), move_book, TAGS),
    Situation("outer_join_sees_the_preserved_side", rows(_outer), change(Shelf, 3, label="full"), TAGS),
    Situation(
        "outer_join_sees_a_row_begin_to_meet_its_on",
        rows(_outer_with_condition_in_on),
        change(Book, 1, shelf_id=2, year=1965),
        TAGS,
    ),
    Situation(
        "outer_join_sees_a_row_cease_to_meet_its_on",
        rows(_outer_with_condition_in_on),
        change(Book, 3, year=1966),
        TAGS,
    ),
    Situation(
        "absence_in_an_outer_join_sees_a_row_come", rows(_absent_by_outer), change(Book, 4, shelf_id=3), TAGS
    ),
    Situation(
        "absence_in_an_outer_join_sees_a_row_go", rows(_absent_by_outer), change(Book, 3, shelf_id=None), TAGS
    ),
    Situation(
        "full_join_sees_a_row_of_its_left_side", rows(_full), add(lambda: Shelf(id=100, label="new")), TAGS
    ),
    Situation("full_join_sees_a_row_of_its_right_side", rows(_full), write_book, TAGS),
    Situation(
        "full_join_sees_a_row_that_its_on_leaves_out",
        rows(_full_with_condition),
        change(Shelf, 2, label="lower"),
        TAGS,
    ),
    Situation("self_join_sees_the_child", rows(_self_join), change(Node, 4, name="twig"), TAGS),
    Situation("self_join_sees_the_parent", rows(_self_join), change(Node, 1, name="base"), TAGS),
    Situation("self_join_sees_a_row_that_moves", rows(_self_join), change(Node, 5, parent_id=2), TAGS),
    Situation(
        "self_join_under_a_condition_sees_the_child",
        rows(_self_join_under_a_condition),
        change(Node, 4, name="twig"),
        TAGS,
    ),
    Situation(
        "self_join_under_a_condition_sees_the_parent_begin_to_match",
        rows(_self_join_under_a_condition),
        change(Node, 1, name="left"),
        TAGS,
    ),
    Situation(
        "alias_sees_a_row_begin_to_match",
        rows(_alias),
        change(Book, 2, year=1815),
        rows(lambda: select(Book.title).where(Book.year == 1986)),
    ),
    Situation("cte_sees_a_row_begin_to_match", rows(_cte), change(Book, 3, year=1900), TAGS),
    Situation("cte_sees_the_joined_table", rows(_cte), change(Shelf, 1, label="top"), TAGS),
    Situation("cte_used_twice_sees_a_row", rows(_cte_used_twice), write_book, TAGS),
    Situation("recursive_cte_sees_a_leaf_renamed", rows(_tree), change(Node, 4, name="twig"), TAGS),
    Situation("recursive_cte_sees_a_branch_that_moves_in", rows(_tree), change(Node, 5, parent_id=4), TAGS),
    Situation("recursive_cte_sees_its_root", rows(_tree), change(Node, 1, name="base"), TAGS),
    Situation("union_sees_its_first_table", rows(_union), change(Book, 1, title="persuasion"), TAGS),
    Situation("union_sees_its_second_table", rows(_union), change(Shelf, 1, label="top"), TAGS),
    Situation(
        "union_under_conditions_sees_the_second",
        rows(_union_under_conditions),
        change(Book, 4, shelf_id=2),
        TAGS,
    ),
    Situation(
        "aliased_union_sees_a_row_begin_to_match", entities(_aliased_union), change(Book, 2, year=1965), TAGS
    ),
    Situation(
        "correlated_scalar_sees_the_inner_table",
        rows(_correlated_scalar),
        change(Book, 3, shelf_id=1, pages=999),
        TAGS,
    ),
    Situation(
        "correlated_subquery_in_where_sees_another_row",
        rows(_correlated_in_where),
        change(Book, 1, pages=900),
        TAGS,
    ),
    Situation("correlated_exists_sees_a_row_begin_to_match", rows(_exists), change(Book, 1, year=1965), TAGS),
    Situation("negated_exists_sees_a_row_come", rows(_not_exists), change(Book, 4, shelf_id=3), TAGS),
    Situation("any_sees_a_row_begin_to_match", rows(_any), change(Book, 1, year=1965), TAGS),
    Situation("has_sees_the_other_table", rows(_has), change(Shelf, 2, label="high"), TAGS),
    Situation(
        "limit_in_a_subquery_sees_a_row_that_comes_first",
        rows(_limit_in_subquery),
        change(Book, 1, year=2000),
        TAGS,
    ),
    Situation(
        "limit_in_a_subquery_sees_a_row_that_comes_in",
        rows(_limit_in_subquery),
        change(Book, 3, shelf_id=1),
        TAGS,
    ),
    Situation("page_sees_a_row_that_pushes_others", rows(_page), change(Book, 1, pages=2000), TAGS),
    Situation("window_sees_another_row_of_its_partition", rows(_window), change(Book, 1, pages=2000), TAGS),
    Situation(
        "window_filtered_outside_sees_a_row_that_overtakes",
        rows(_window_filtered_outside),
        change(Book, 1, pages=2000),
        TAGS,
    ),
    Situation("running_sum_sees_an_earlier_row", rows(_sum_over), change(Book, 1, pages=1), TAGS),
    Situation("having_sees_a_group_grow", rows(_having), change(Book, 4, shelf_id=2), TAGS),
    Situation("column_that_only_orders_is_seen", rows(_order_by_only), change(Book, 1, pages=5000), TAGS),
    Situation("case_sees_its_condition", rows(_case), change(Book, 3, year=1900), TAGS),
    Situation("case_that_orders_sees_its_condition", rows(_case_in_order), change(Book, 3, year=1900), TAGS),
    Situation("cast_sees_a_row_begin_to_match", rows(_cast), change(Book, 2, pages=400), TAGS),
    Situation("filter_of_an_aggregate_is_seen", rows(_filtered_aggregate), change(Book, 3, year=1900), TAGS),
    Situation("in_tuples_sees_a_row_begin_to_match", rows(_tuples), change(Book, 3, year=1900), TAGS),
    Situation("not_in_an_empty_list_sees_an_inserted_row", rows(_not_in_empty), write_book, TAGS),
    Situation("in_many_values_sees_a_row_begin_to_match", rows(_in_many), change(Book, 4, shelf_id=3), TAGS),
    Situation(
        "in_a_list_with_null_sees_a_row_begin_to_match",
        rows(_in_with_null),
        change(Book, 3, shelf_id=1),
        TAGS,
    ),
    Situation("in_a_subquery_sees_the_inner_table", rows(_in_subquery), change(Shelf, 2, label="high"), TAGS),
    Situation("either_of_two_conditions_sees_the_second", rows(_either), change(Book, 4, year=1965), TAGS),
    Situation(
        "negated_conditions_see_a_row_begin_to_match", rows(_negated), change(Book, 1, year=1816), TAGS
    ),
    Situation("lambda_statement_sees_a_row_begin_to_match", rows(_lambda), change(Book, 3, shelf_id=1), TAGS),
    Situation(
        "lambda_in_where_sees_a_row_begin_to_match", rows(_lambda_in_where), change(Book, 3, shelf_id=1), TAGS
    ),
    Situation(
        "contains_eager_sees_the_joined_table", entities(_contains_eager), change(Book, 1, title="x"), TAGS
    ),
    Situation(
        "joined_eager_load_under_a_limit_sees_the_other_table",
        entities(_joined_eager_under_limit),
        write_book,
        TAGS,
    ),
    Situation("nested_subqueries_see_the_innermost", rows(_nested), change(Book, 3, shelf_id=1), TAGS),
    Situation("distinct_sees_a_value_vanish", rows(_distinct), change(Book, 3, shelf_id=1), TAGS),
    Situation(
        "literals_beside_columns_do_not_matter", rows(_literal_beside), change(Book, 3, shelf_id=1), TAGS
    ),
    Situation(
        "count_of_distinct_values_sees_one_come",
        scalar(lambda: select(func.count(distinct(Book.shelf_id)))),
        change(Book, 4, shelf_id=3),
        TAGS,
    ),
    Situation(
        "comparison_of_columns_sees_a_row_begin_to_match",
        rows(lambda: select(Book.id).where(Book.pages == Book.year).order_by(Book.id)),
        change(Book, 1, pages=1815),
        TAGS,
    ),
    Situation(
        "row_object_keeps_its_names",
        exactly(raw_rows(lambda: select(Book.title.label("t"), Book).order_by(Book.id))),
        change(Book, 1, title="x"),
        TAGS,
    ),
]


@situations(FORMS)
async def test_a_form_of_statement(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


async def test_deleting_through_a_relationship_is_seen_by_every_form(reader: Reader) -> None:
    reads = [rows(_outer), rows(_cte), rows(_union), rows(_window), entities(_contains_eager)]
    await reader.warm(*reads, TAGS, get(User, 2))
    await delete(Book, 1)(reader.database)
    for read in reads:
        await reader.miss(read, BY_WRITE)
    await reader.hit(TAGS)
    await execute(lambda _: update(Shelf).values(label="all"))(reader.database)
    await reader.miss(rows(_outer), BY_WRITE)
    await add(new_user)(reader.database)
    await reader.hit(get(User, 2))
