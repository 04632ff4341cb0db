"""Entities that are mapped over several tables, or share one with others."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import with_polymorphic

from tests.support.models import CardPayment, Employee, Manager, Payment, Team
from tests.support.reading import Reader
from tests.support.reads import entities, get, rows, scalar
from tests.support.situations import BY_KEY, Situation, check, situations
from tests.support.writes import add, change, delete, execute

TEAMS = entities(lambda: select(Team).order_by(Team.id))

managers = entities(lambda: select(Manager).order_by(Manager.id))
employees = entities(lambda: select(Employee).order_by(Employee.id))
cards = entities(lambda: select(CardPayment).order_by(CardPayment.id))


def _everyone() -> object:
    everyone = with_polymorphic(Employee, "*")
    return select(everyone).order_by(everyone.id)


def hire() -> Manager:
    return Manager(id=100, name="ada", budget=300)


JOINED = [
    Situation(
        "get_sees_its_base_table_change",
        get(Manager, 1),
        change(Manager, 1, name="moe"),
        get(Manager, 2),
        BY_KEY,
    ),
    Situation(
        "get_sees_its_own_table_change",
        get(Manager, 1),
        change(Manager, 1, budget=1),
        get(Manager, 2),
        BY_KEY,
    ),
    Situation(
        "get_through_the_base_sees_a_change",
        get(Employee, 1),
        change(Manager, 1, name="moe"),
        get(Employee, 3),
    ),
    Situation(
        "get_sees_a_change_made_through_the_base",
        get(Manager, 1),
        change(Employee, 1, name="moe"),
        get(Manager, 2),
    ),
    Situation("list_sees_its_base_table_change", managers, change(Employee, 1, name="moe"), TEAMS),
    Situation("list_sees_its_own_table_change", managers, change(Manager, 1, budget=1), TEAMS),
    Situation("list_of_the_base_sees_a_change", employees, change(Manager, 1, name="moe"), TEAMS),
    Situation("list_sees_an_inserted_row", managers, add(hire), TEAMS),
    Situation("list_of_the_base_sees_an_inserted_row", employees, add(hire), get(Employee, 3)),
    Situation("list_sees_a_deleted_row", managers, delete(Manager, 2), TEAMS),
    Situation("get_sees_its_row_deleted", get(Manager, 2), delete(Manager, 2), get(Manager, 1), BY_KEY),
    Situation("get_of_an_absent_row_sees_it_inserted", get(Manager, 100), add(hire), get(Manager, 1), BY_KEY),
    Situation(
        "polymorphic_list_sees_the_subclass_table_change",
        entities(_everyone),
        change(Manager, 1, budget=1),
        TEAMS,
    ),
    Situation(
        "polymorphic_list_sees_the_base_table_change",
        entities(_everyone),
        change(Employee, 3, name="eve"),
        TEAMS,
    ),
    Situation(
        "column_of_the_subclass_table_sees_it_change",
        rows(lambda: select(Manager.budget).order_by(Manager.budget)),
        change(Manager, 1, budget=1),
        TEAMS,
    ),
    Situation(
        "count_of_the_subclass_sees_an_inserted_row",
        scalar(lambda: select(func.count()).select_from(Manager)),
        add(hire),
        get(Manager, 1),
    ),
    Situation(
        "core_update_of_the_base_table_is_seen",
        managers,
        execute(lambda _: Employee.__table__.update().where(Employee.__table__.c.id == 1).values(name="moe")),
        TEAMS,
    ),
]

SINGLE = [
    Situation(
        "get_sees_its_row_change",
        get(CardPayment, 2),
        change(CardPayment, 2, card="9"),
        get(CardPayment, 3),
        BY_KEY,
    ),
    Situation(
        "get_through_the_base_sees_a_change",
        get(Payment, 2),
        change(CardPayment, 2, amount=70),
        get(Payment, 3),
        BY_KEY,
    ),
    Situation("list_of_the_subclass_sees_a_change", cards, change(Payment, 2, amount=70), TEAMS),
    Situation(
        "list_of_the_subclass_sees_an_inserted_row", cards, add(lambda: CardPayment(id=100, amount=1)), TEAMS
    ),
    Situation(
        "list_of_the_base_sees_a_row_of_the_subclass_inserted",
        entities(lambda: select(Payment).order_by(Payment.id)),
        add(lambda: CardPayment(id=100, amount=1)),
        get(Payment, 1),
    ),
    Situation(
        "list_of_the_subclass_sees_a_row_that_becomes_one",
        cards,
        execute(
            lambda _: Payment.__table__.update().where(Payment.__table__.c.id == 1).values(method="card")
        ),
        TEAMS,
    ),
    Situation(
        "count_of_the_subclass_sees_a_deleted_row",
        scalar(lambda: select(func.count()).select_from(CardPayment)),
        delete(CardPayment, 3),
        get(CardPayment, 2),
    ),
]


@situations(JOINED)
async def test_joined_inheritance(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


@situations(SINGLE)
async def test_single_table_inheritance(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)
