"""What is mapped: the one place that asks SQLAlchemy's registries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine
from sqlalchemy.ext.declarative import DeferredReflection
from sqlalchemy.orm import declarative_base, registry
from sqlalchemy.orm.mapper import _all_registries

from sqlacache.models import Models, is_mapped
from tests.support.models import Base, Employee, Manager, User, user_tags


def test_the_private_list_of_registries_has_declarative_and_imperative_ones() -> None:
    mine = registry()

    class Plain:
        pass

    mine.map_imperatively(Plain, Table("plains", MetaData(), Column("id", Integer, primary_key=True)))
    try:
        found = set(_all_registries())
        assert mine in found
        assert Base.registry in found
        assert {mapper.class_ for mapper in mine.mappers} == {Plain}
        assert Models().table("plains") is not None
        assert is_mapped(Plain)
    finally:
        mine.dispose()


def test_a_class_that_is_not_mapped_yet_is_left_out_until_it_is(tmp_path: Path) -> None:
    base = declarative_base()

    class Reflected(DeferredReflection, base):  # type: ignore[misc, valid-type]  # a base made at run time
        __tablename__ = "reflected"

    engine = create_engine(f"sqlite:///{tmp_path / 'reflected.db'}")
    Table("reflected", MetaData(), Column("id", Integer, primary_key=True)).create(engine)
    models = Models()
    try:
        assert models.table("reflected") is None
        assert models.table("users") is not None
        Reflected.prepare(engine)
        table: Any = models.table("reflected")
        assert {mapper.class_ for mapper in models.mappers(table)} == {Reflected}
    finally:
        base.registry.dispose()
        engine.dispose()


def test_tables_are_found_by_full_name_also_those_without_a_class() -> None:
    models = Models()
    assert any(table is User.__table__ for table in models.named("users"))  # other tests map one, too
    assert models.table("users") is models.table("users")
    assert any(table is user_tags for table in models.named("user_tags"))
    assert models.table("nothing") is None
    assert set(models.tables()) >= {"users", "user_tags", "employees"}


def test_the_mappers_of_a_table_include_inheriting_ones() -> None:
    models = Models()
    employees: Any = Employee.__table__
    assert {mapper.class_ for mapper in models.mappers(employees)} == {Employee, Manager}
    managers: Any = Manager.__table__
    assert {mapper.class_ for mapper in models.mappers(managers)} == {Manager}
    assert models.mappers(user_tags) == ()


def test_a_schema_is_part_of_the_name() -> None:
    base = declarative_base()

    class Sale(base):  # type: ignore[misc, valid-type]  # a base made at run time
        __tablename__ = "sales"
        __table_args__ = {"schema": "archive"}  # noqa: RUF012
        id = Column(Integer, primary_key=True)

    try:
        assert Models().table("archive.sales") is Sale.__table__
        assert Models().table("sales") is None
    finally:
        base.registry.dispose()


def test_what_is_mapped_later_is_found_when_it_is_asked_for_even_if_as_many_went() -> None:
    models = Models()
    first = declarative_base()
    early = type("Early", (first,), {"__tablename__": "early", "id": Column(Integer, primary_key=True)})
    assert models.table("early") is early.__table__
    first.registry.dispose()
    del first, early
    second = declarative_base()
    late = type("Late", (second,), {"__tablename__": "late", "id": Column(String, primary_key=True)})
    try:
        assert models.table("late") is late.__table__
        assert [mapper.class_ for mapper in models.mappers(late.__table__)] == [late]
    finally:
        second.registry.dispose()


@pytest.mark.parametrize(
    "wrong", [int, "User", None, User.__table__, pytest.param(object(), id="object()")], ids=repr
)
def test_what_is_not_mapped_is_not(wrong: Any) -> None:
    assert not is_mapped(wrong)
    assert is_mapped(User)
    assert is_mapped(Manager)


def test_an_instance_is_no_mapped_class() -> None:
    not_a_class: Any = User()
    assert not is_mapped(not_a_class)
