"""Tables that databases write by themselves: cascades through two levels, triggers, generated columns."""

from __future__ import annotations

from sqlalchemy import Column, Computed, ForeignKey, Integer, String
from sqlalchemy.orm import declarative_base, relationship

from tests.support.databases import Database

from .setups import create, on_connect

Base = declarative_base()


class Region(Base):
    __tablename__ = "regions"

    code = Column(String(10), primary_key=True)
    name = Column(String(20), nullable=False)

    cities = relationship("City", back_populates="region", passive_deletes=True, passive_updates=True)


class City(Base):
    __tablename__ = "cities"

    id = Column(Integer, primary_key=True)
    name = Column(String(20), nullable=False)
    region_code = Column(ForeignKey("regions.code", ondelete="CASCADE", onupdate="CASCADE"), nullable=False)

    region = relationship("Region", back_populates="cities")
    streets = relationship("Street", back_populates="city", passive_deletes=True)


class Street(Base):
    __tablename__ = "streets"

    id = Column(Integer, primary_key=True)
    name = Column(String(20), nullable=False)
    city_id = Column(ForeignKey("cities.id", ondelete="CASCADE"), nullable=False)

    city = relationship("City", back_populates="streets")


class Visitor(Base):
    __tablename__ = "visitors"

    id = Column(Integer, primary_key=True)
    name = Column(String(20), nullable=False)
    city_id = Column(ForeignKey("cities.id", ondelete="SET NULL"))


class Badge(Base):
    """Refers to a region by a key that changes."""

    __tablename__ = "badges"

    id = Column(Integer, primary_key=True)
    region_code = Column(ForeignKey("regions.code", ondelete="SET NULL", onupdate="CASCADE"))


class Note(Base):
    __tablename__ = "notes"

    id = Column(Integer, primary_key=True)
    title = Column(String(20), nullable=False)
    shelf = Column(String(20), nullable=False)
    updated = Column(Integer, nullable=False, default=0)


class Tally(Base):
    __tablename__ = "tallies"

    id = Column(Integer, primary_key=True)
    notes = Column(Integer, nullable=False)


class Box(Base):
    __tablename__ = "boxes"

    id = Column(Integer, primary_key=True)
    width = Column(Integer, nullable=False)
    height = Column(Integer, nullable=False)
    area = Column(Integer, Computed("width * height", persisted=True))


async def create_places(database: Database) -> None:
    """Two regions, each with a city, a street, a visitor and a badge. SQLite keeps foreign keys only when asked to."""
    if database.dialect == "sqlite":
        on_connect(database, "PRAGMA foreign_keys = ON")
    await create(
        database,
        Base,
        (Region.__table__, [{"code": "n", "name": "north"}, {"code": "s", "name": "south"}]),
        (
            City.__table__,
            [{"id": 1, "name": "oslo", "region_code": "n"}, {"id": 2, "name": "rome", "region_code": "s"}],
        ),
        (
            Street.__table__,
            [{"id": 1, "name": "fjord", "city_id": 1}, {"id": 2, "name": "corso", "city_id": 2}],
        ),
        (
            Visitor.__table__,
            [{"id": 1, "name": "ann", "city_id": 1}, {"id": 2, "name": "bob", "city_id": 2}],
        ),
        (Badge.__table__, [{"id": 1, "region_code": "n"}, {"id": 2, "region_code": "s"}]),
    )


async def create_notes(database: Database) -> None:
    """Two notes on two shelves, a tally of notes, and two boxes."""
    await create(
        database,
        Base,
        (
            Note.__table__,
            [
                {"id": 1, "title": "one", "shelf": "a", "updated": 0},
                {"id": 2, "title": "two", "shelf": "b", "updated": 0},
            ],
        ),
        (Tally.__table__, [{"id": 1, "notes": 2}]),
        (Box.__table__, [{"id": 1, "width": 2, "height": 3}, {"id": 2, "width": 4, "height": 5}]),
    )
