"""What every client of a history reads and writes: rows with a version that the database counts up, and who wrote it.

Keys of observations: ``item:1`` and ``group:1`` are rows; ``notes:1`` is the newest note of a group, of which older
ones are deleted or not; ``count:2`` is how many notes a group with an even number has, which are never deleted, so
that the count is the version. A read returns ``(key, version, writer)``, where ``None`` for a writer means that only
the version was read; a write returns ``(key, version)``.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from sqlalchemy import Column, Float, ForeignKey, Integer, String, delete, func, insert, select, update
from sqlalchemy.orm import Session, declarative_base, joinedload, relationship, selectinload

GROUPS = 8
ITEMS = 5
"""Of each group."""
KEPT = 3
"""Notes that are left of a group with an odd number."""
HOT = 3
"""Items, and groups, that every second operation is about: what two do at a time is soon about the same rows."""
HOLDING = (
    "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN PERFORM pg_sleep(NEW.seconds); RETURN NULL; END $$",
    "CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON holds DEFERRABLE INITIALLY DEFERRED "
    "FOR EACH ROW EXECUTE FUNCTION hold()",
)
"""A row of ``holds`` makes COMMIT take as long as it says."""

Base = declarative_base()
Seen = list[tuple[str, int, "str | None"]]
Written = list[tuple[str, int]]


class Group(Base):
    __tablename__ = "groups"

    id = Column(Integer, primary_key=True)
    version = Column(Integer, nullable=False, default=0)
    writer = Column(String(40), nullable=False, default="")
    notes = Column(Integer, nullable=False, default=0)

    items = relationship("Item", back_populates="group", order_by="Item.id")


class Item(Base):
    __tablename__ = "items"

    id = Column(Integer, primary_key=True)
    group_id = Column(ForeignKey("groups.id"), nullable=False)
    version = Column(Integer, nullable=False, default=0)
    writer = Column(String(40), nullable=False, default="")

    group = relationship("Group", back_populates="items")


class Note(Base):
    __tablename__ = "notes"

    id = Column(Integer, primary_key=True)
    group_id = Column(ForeignKey("groups.id"), nullable=False, index=True)
    version = Column(Integer, nullable=False)
    writer = Column(String(40), nullable=False)


class Hold(Base):
    __tablename__ = "holds"

    id = Column(Integer, primary_key=True)
    seconds = Column(Float, nullable=False)


def create(engine: Any) -> None:
    """Make the tables of an empty PostgreSQL database, and what is there before anybody writes."""
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        for statement in HOLDING:
            connection.exec_driver_sql(statement)
    with Session(engine) as session:
        session.add_all(Group(id=group) for group in range(1, GROUPS + 1))
        session.flush()
        session.add_all(Item(id=item, group_id=1 + item % GROUPS) for item in range(1, GROUPS * ITEMS + 1))
        session.commit()


def _group(random: Random) -> int:
    return random.randint(1, HOT if random.random() < 0.5 else GROUPS)


def _item(random: Random) -> int:
    return random.randint(1, HOT if random.random() < 0.5 else GROUPS * ITEMS)


def _items(found: Any) -> Seen:
    return [(f"item:{one.id}", one.version, one.writer) for one in found]


# -- reads -------------------------------------------------------------------------------------------------------------


def get_item(session: Session, random: Random) -> Seen:
    found: Any = session.get(Item, _item(random))
    return _items([found])


def get_group(session: Session, random: Random) -> Seen:
    return _group_seen(session, _group(random))


def _group_seen(session: Session, group: int) -> Seen:
    found: Any = session.get(Group, group)
    return [(f"group:{found.id}", found.version, found.writer)]


def list_items(session: Session, random: Random) -> Seen:
    statement = select(Item).where(Item.group_id == _group(random)).order_by(Item.id)
    return _items(session.execute(statement).scalars())


def newest_note(session: Session, random: Random) -> Seen:
    return _newest(session, _group(random))


def _newest(session: Session, group: int) -> Seen:
    statement = select(Note).where(Note.group_id == group).order_by(Note.version.desc()).limit(KEPT)
    found: Any = session.execute(statement).scalars().first()
    return [(f"notes:{group}", *((found.version, found.writer) if found else (0, "")))]


def count_notes(session: Session, random: Random) -> Seen:
    return _counted(session, 2 * random.randint(1, GROUPS // 2))


def _counted(session: Session, group: int) -> Seen:
    statement = select(func.count()).select_from(Note).where(Note.group_id == group)
    return [(f"count:{group}", session.execute(statement).scalar(), None)]  # type: ignore[list-item]  # a count


def join_items(session: Session, random: Random) -> Seen:
    columns = (Item.id, Item.version, Item.writer, Group.version, Group.writer)
    group = _group(random)
    statement = select(*columns).join(Group, Item.group_id == Group.id).where(Group.id == group)
    found = session.execute(statement).all()
    return [
        *((f"item:{row[0]}", row[1], row[2]) for row in found),
        *((f"group:{group}", row[3], row[4]) for row in found[:1]),
    ]


def eager_items(session: Session, random: Random) -> Seen:
    load: Any = random.choice((selectinload, joinedload))
    statement = select(Group).where(Group.id == _group(random)).options(load(Group.items))
    found: Any = session.execute(statement).unique().scalars().one()
    return [(f"group:{found.id}", found.version, found.writer), *_items(found.items)]


def some_key(random: Random) -> str:
    """Return a key that there is."""
    return random.choice((f"item:{_item(random)}", f"item:{_item(random)}", f"group:{_group(random)}"))


READS: tuple[Callable[[Session, Random], Seen], ...] = (
    *(get_item, get_item, get_item, get_group, list_items),
    *(newest_note, count_notes, join_items, eager_items),
)


def one(session: Session, key: str) -> Seen:
    """Read what is at a key."""
    kind, number = key.split(":")
    if kind == "item":
        return _items([session.get(Item, int(number))])
    if kind == "group":
        return _group_seen(session, int(number))
    return (_newest if kind == "notes" else _counted)(session, int(number))


# -- writes ------------------------------------------------------------------------------------------------------------


def write_item(session: Session, random: Random, writer: str) -> Written:
    item: Any = session.get(Item, _item(random), with_for_update=True)
    item.version, item.writer = item.version + 1, writer
    session.flush()
    return [(f"item:{item.id}", item.version)]


def write_group(session: Session, random: Random, writer: str) -> Written:
    group = _group(random)
    changed = update(Group).where(Group.id == group).values(version=Group.version + 1, writer=writer)
    version = session.execute(changed.returning(Group.version), execution_options=_BULK).scalar()
    return [(f"group:{group}", version)]  # type: ignore[list-item]  # an integer


def write_items(session: Session, random: Random, writer: str) -> Written:
    group = _group(random)
    # Whoever writes several rows holds their group first, so that nobody waits in a circle.
    session.execute(select(Group.id).where(Group.id == group).with_for_update())
    changed = update(Item).where(Item.group_id == group).values(version=Item.version + 1, writer=writer)
    found = session.execute(changed.returning(Item.id, Item.version), execution_options=_BULK).all()
    return [(f"item:{row[0]}", row[1]) for row in found]


def write_note(session: Session, random: Random, writer: str) -> Written:
    group = _group(random)
    counted = update(Group).where(Group.id == group).values(notes=Group.notes + 1).returning(Group.notes)
    version: Any = session.execute(counted, execution_options=_BULK).scalar()
    session.add(Note(group_id=group, version=version, writer=writer))
    session.flush()
    if group % 2:
        old = delete(Note).where(Note.group_id == group, Note.version <= version - KEPT)
        session.execute(old, execution_options=_BULK)
        return [(f"notes:{group}", version)]
    return [(f"notes:{group}", version), (f"count:{group}", version)]


_BULK = {"synchronize_session": False}

WRITES: tuple[Callable[[Session, Random, str], Written], ...] = (
    *(write_item, write_item, write_item),
    *(write_group, write_items, write_note),
)


def hold(session: Session, seconds: float) -> None:
    """Let the commit of this transaction take some seconds more."""
    session.execute(insert(Hold).values(seconds=seconds))
