"""Generated writes: data that says what is written, and functions of a session that write it.

None of them commits. What the database refuses (a key that exists, a row that is gone) is the program's business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import sqlalchemy
from sqlalchemy import bindparam, delete, exists, insert, literal, select, text, update
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import Session

from .drawing import Choices, weighted
from .reads import MODELS, Atom, clause, draw_condition, where
from .schema import KEYS, NUMBERS, PLANS, STATUSES, Order, Tag, User, user_tags

SQLALCHEMY_2 = not sqlalchemy.__version__.startswith("1.")


class Write(NamedTuple):
    """What is written: the name of a function below and its arguments, plain data throughout."""

    kind: str
    arguments: tuple[Any, ...]

    def __call__(self, session: Session) -> None:
        KINDS[self.kind](session, *self.arguments)


WRITABLE: dict[str, dict[str, tuple[Any, ...]]] = {
    "User": {
        "seen": NUMBERS,
        "plan": PLANS,
        "name": ("u1", "x"),
        "active": (True, False),
        "score": (1, 0, None),
    },
    "Order": {"status": STATUSES, "total": NUMBERS, "user_id": (1, 2, 3, None)},
    "Tag": {"name": ("t1", "x")},
    "Vehicle": {"name": ("v1", "x"), "owner_id": (1, 2, None), "gears": (5, None)},
    "Truck": {"load": NUMBERS, "name": ("v1", "x"), "owner_id": (1, 2, None)},
}
NEW: dict[str, dict[str, Any]] = {
    "User": {"name": "new"},
    "Order": {},
    "Tag": {"name": "new"},
    "Vehicle": {"name": "new"},
    "Truck": {"name": "new"},
    "Bike": {"name": "new"},
}


def _table(model: str) -> Any:
    return MODELS[model].__table__


# -- through the unit of work ------------------------------------------------------------------------------------------


def _set(session: Session, model: str, key: int, values: Any) -> None:
    found = session.get(MODELS[model], key)
    if found is not None:
        for name, value in values:
            setattr(found, name, value)


def _set_expression(session: Session, model: str, key: int, column: str) -> None:
    found = session.get(MODELS[model], key)
    if found is not None:
        setattr(found, column, getattr(MODELS[model], column) + 1)


def _add(session: Session, model: str, key: int | None, values: Any) -> None:
    more = {} if key is None else {"id": key}
    session.add(MODELS[model](**{**NEW[model], **dict(values), **more}))


def _delete(session: Session, model: str, key: int) -> None:
    found = session.get(MODELS[model], key)
    if found is not None:
        session.delete(found)


def _merge(session: Session, model: str, key: int, values: Any) -> None:
    found = session.get(MODELS[model], key)
    entity = (
        MODELS[model] if found is None else type(found)
    )  # a vehicle that is a truck stays one: else a warning
    session.merge(entity(**{**NEW[model], "id": key, **dict(values)}))


def _move(session: Session, order: int, user: int | None) -> None:
    found = session.get(Order, order)
    if found is not None:
        found.user = None if user is None else session.get(User, user)


def _give(session: Session, user: int, keys: tuple[int, ...]) -> None:
    found = session.get(User, user)
    if found is not None:
        found.orders = [order for order in (session.get(Order, key) for key in keys) if order is not None]


def _tag(session: Session, user: int, tag: int, from_tag: bool) -> None:
    owner, label = session.get(User, user), session.get(Tag, tag)
    if owner is None or label is None:
        return
    if from_tag:
        label.users.append(owner) if owner not in label.users else label.users.remove(owner)
    else:
        owner.tags.append(label) if label not in owner.tags else owner.tags.remove(label)


def _rekey(session: Session, order: int, key: int) -> None:
    found = session.get(Order, order)
    if found is not None:
        found.id = key


def _load(session: Session, model: str, condition: tuple[Atom, ...]) -> None:
    """Writes nothing: puts objects into the session, where they grow old until a later write changes them."""
    entity = MODELS[model]
    session.execute(select(entity).where(*where(entity, condition))).scalars().all()


def _expire(session: Session) -> None:
    session.flush()
    session.expire_all()


def _flush(session: Session) -> None:
    session.flush()


# -- statements --------------------------------------------------------------------------------------------------------


def _orm_update(session: Session, model: str, condition: Any, values: Any, how: Any) -> None:
    entity = MODELS[model]
    statement = update(entity).where(*where(entity, condition)).values(dict(values))
    session.execute(statement, execution_options={"synchronize_session": how})


def _orm_increment(session: Session, condition: Any) -> None:
    statement = update(User).where(*where(User, condition)).values(score=User.score + 1)
    session.execute(statement, execution_options={"synchronize_session": False})


def _orm_delete(session: Session, model: str, condition: Any, how: Any) -> None:
    entity = MODELS[model]
    statement = delete(entity).where(*where(entity, condition))
    session.execute(statement, execution_options={"synchronize_session": how})


def _orm_update_by_subquery(session: Session, status: str, plan: str) -> None:
    chosen = User.id.in_(select(Order.user_id).where(Order.status == status))
    session.execute(
        update(User).where(chosen).values(plan=plan), execution_options={"synchronize_session": False}
    )


def _orm_update_many(session: Session, rows: Any) -> None:
    """Bulk UPDATE by primary key, which SQLAlchemy 2 has."""
    if SQLALCHEMY_2:
        session.execute(update(User), [{"id": key, "plan": plan} for key, plan in rows])


def _core_insert(session: Session, model: str, rows: Any) -> None:
    session.execute(insert(_table(model)), [{**NEW[model], **dict(row)} for row in rows])


def _core_insert_values(session: Session, model: str, rows: Any) -> None:
    session.execute(insert(_table(model)).values([{**NEW[model], **dict(row)} for row in rows]))


def _core_update_many(session: Session, column: str, rows: Any) -> None:
    table = _table("Order")
    statement = update(table).where(table.c.id == bindparam("key")).values({column: bindparam("value")})
    session.connection().execute(statement, [{"key": key, "value": value} for key, value in rows])


def _core_update_from(session: Session, plan: str, status: str) -> None:
    users, orders = _table("User"), _table("Order")
    statement = update(orders).where(
        exists(select(users.c.id).where(users.c.id == orders.c.user_id, users.c.plan == plan))
    )
    session.execute(statement.values(status=status))


def _core_delete(session: Session, model: str, condition: Any) -> None:
    table = _table(model)
    session.execute(delete(table).where(*[clause(table.c, atom) for atom in condition]))


def _link(session: Session, user: int, tag: int, remove: bool) -> None:
    if remove:
        session.execute(delete(user_tags).where(user_tags.c.user_id == user, user_tags.c.tag_id == tag))
    else:
        session.execute(insert(user_tags).values(user_id=user, tag_id=tag))


def _unlink_all(session: Session, tag: int) -> None:
    session.execute(delete(user_tags).where(user_tags.c.tag_id == tag))


def _insert_from_select(session: Session, user: int, status: str) -> None:
    source = select(User.id, literal(status), literal(1)).where(User.id == user)
    session.execute(insert(_table("Order")).from_select(["user_id", "status", "total"], source))


def _upsert(session: Session, key: int, values: Any, how: str) -> None:
    table = _table("User")
    given = {"id": key, **NEW["User"], **dict(values)}
    if session.get_bind().dialect.name == "mariadb":
        ignoring = insert(table).prefix_with("IGNORE").values(given)
        overwriting = mysql.insert(table).values(given).on_duplicate_key_update(dict(values))
        session.execute(ignoring if how == "nothing" or not values else overwriting)
        return
    dialect: Any = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    statement = dialect.insert(table).values(given)
    if how == "nothing":
        statement = statement.on_conflict_do_nothing()
    else:
        statement = statement.on_conflict_do_update(
            index_elements=["id"], set_={name: getattr(statement.excluded, name) for name, _ in values}
        )
    session.execute(statement)


def _returning(session: Session, key: int, plan: str) -> None:
    dialect: Any = session.get_bind().dialect
    if getattr(dialect, "update_returning", dialect.name == "postgresql"):
        table = _table("User")
        session.execute(update(table).where(table.c.id == key).values(plan=plan).returning(table.c.id)).all()


RAW = (
    "UPDATE mx_users SET plan = :plan WHERE id = :key",
    "UPDATE mx_orders SET status = :status WHERE user_id = :key",
    "DELETE FROM mx_orders WHERE id = :key",
    "INSERT INTO mx_tags (name) VALUES (:status)",
    "UPDATE mx_trucks SET mx_trucks.load = mx_trucks.load + 1 WHERE id = :key",
)


def _raw(session: Session, sql: str, key: int, status: str, plan: str) -> None:
    values = {"key": key, "status": status, "plan": plan}
    session.execute(text(sql), {name: value for name, value in values.items() if f":{name}" in sql})


def _driver_sql(session: Session, key: int, total: int) -> None:
    session.connection().exec_driver_sql(f"UPDATE mx_orders SET total = {total} WHERE id = {key}")


def _bulk_insert(session: Session, model: str, rows: Any) -> None:
    session.bulk_insert_mappings(MODELS[model], [{**NEW[model], **dict(row)} for row in rows])


def _bulk_update(session: Session, rows: Any) -> None:
    session.bulk_update_mappings(User, [{"id": key, **dict(values)} for key, values in rows])


def _bulk_save(session: Session, plan: str) -> None:
    found = session.get(User, 1)
    if found is not None:
        found.plan = plan
        session.bulk_save_objects([found, User(name="new", plan=plan)])
        session.expire(found)


KINDS: dict[str, Callable[..., None]] = {
    "set": _set, "set_expression": _set_expression, "add": _add, "delete": _delete, "merge": _merge, "move": _move,
    "give": _give, "tag": _tag, "rekey": _rekey, "load": _load, "expire": _expire, "flush": _flush,
    "orm_update": _orm_update, "orm_increment": _orm_increment, "orm_delete": _orm_delete,
    "orm_update_by_subquery": _orm_update_by_subquery, "orm_update_many": _orm_update_many,
    "core_insert": _core_insert, "core_insert_values": _core_insert_values, "core_update_many": _core_update_many,
    "core_update_from": _core_update_from, "core_delete": _core_delete, "link": _link, "unlink_all": _unlink_all,
    "insert_from_select": _insert_from_select, "upsert": _upsert, "returning": _returning, "raw": _raw,
    "driver_sql": _driver_sql, "bulk_insert": _bulk_insert, "bulk_update": _bulk_update, "bulk_save": _bulk_save,
}  # fmt: skip
MIX = weighted(
    set=10, add=5, delete=3, move=3, tag=4, load=4, merge=1, give=1, rekey=1, set_expression=1, expire=1, flush=3,
    orm_update=3, orm_increment=1, orm_delete=1, orm_update_by_subquery=1, orm_update_many=1, core_insert=1,
    core_insert_values=1, core_update_many=2, core_update_from=1, core_delete=1, link=2, unlink_all=1,
    insert_from_select=1, upsert=2, returning=1, raw=2, driver_sql=1, bulk_insert=1, bulk_update=1, bulk_save=1,
)  # fmt: skip


def draw_write(choose: Choices, mix: tuple[str, ...] = MIX) -> Write:
    """One write."""
    kind = choose.of(mix)
    return Write(kind, _draw_arguments(choose, kind))


def _draw_values(choose: Choices, model: str) -> tuple[tuple[str, Any], ...]:
    columns = WRITABLE.get(model, WRITABLE["Vehicle"])
    chosen = [choose.of(tuple(columns)) for _ in range(choose.of((1, 1, 2)))]
    return tuple((name, choose.of(columns[name])) for name in dict.fromkeys(chosen))


def _draw_rows(choose: Choices, model: str) -> tuple[Any, ...]:
    """Rows that all set the same columns, as one executemany needs."""
    columns = WRITABLE[model]
    names = tuple(dict.fromkeys((choose.of(tuple(columns)), choose.of(tuple(columns)))))
    keys = tuple(dict.fromkeys(choose.of(KEYS[4:]) for _ in range(choose.of((1, 2, 3)))))
    with_key = choose.of((True, False))
    return tuple(
        (*((("id", key),) if with_key else ()), *((name, choose.of(columns[name])) for name in names))
        for key in keys
    )


def _draw_arguments(choose: Choices, kind: str) -> tuple[Any, ...]:
    how = (False, "fetch", "evaluate")
    if kind in ("set", "merge"):
        model = choose.of(("User", "Order", "User", "Order", "Vehicle", "Truck", "Tag"))
        return (model, choose.of(KEYS[:6]), _draw_values(choose, model))
    if kind == "set_expression":
        return choose.of(
            (("User", 1, "score"), ("Order", 1, "total"), ("Truck", 1, "load"), ("User", 2, "seen"))
        )
    if kind == "add":
        model = choose.of(("Order", "User", "Order", "Truck", "Bike", "Tag", "Vehicle"))
        return (
            model,
            choose.of((None, *KEYS[4:])),
            _draw_values(choose, model if model != "Bike" else "Vehicle"),
        )
    if kind == "delete":
        return (choose.of(("Order", "User", "Tag", "Vehicle")), choose.of(KEYS[:6]))
    if kind == "move":
        return (choose.of(KEYS[:5]), choose.of((1, 2, 3, None)))
    if kind == "give":
        return (choose.of((1, 2)), (choose.of(KEYS[:5]), choose.of(KEYS[:5])))
    if kind == "tag":
        return (choose.of(KEYS[:3]), choose.of(KEYS[:3]), choose.of((False, True)))
    if kind == "rekey":
        return (choose.of(KEYS[:5]), choose.of(KEYS[5:]))
    if kind == "load":
        model = choose.of(("User", "Order", "Vehicle"))
        return (model, draw_condition(choose, model))
    if kind in ("orm_update", "orm_delete"):
        model = choose.of(("Order", "User") if kind == "orm_update" else ("Order", "Order", "User"))
        values = (_draw_values(choose, model),) if kind == "orm_update" else ()
        return (model, draw_condition(choose, model), *values, choose.of(how))
    if kind == "orm_increment":
        return (draw_condition(choose, "User"),)
    if kind == "orm_update_by_subquery":
        return (choose.of(STATUSES), choose.of(PLANS))
    if kind == "orm_update_many":
        return (((choose.of(KEYS[:3]), choose.of(PLANS)), (4, choose.of(PLANS))),)
    if kind in ("core_insert", "core_insert_values", "bulk_insert"):
        model = choose.of(("User", "Order"))
        return (model, _draw_rows(choose, model))
    if kind == "core_update_many":
        column = choose.of(("status", "total", "user_id"))
        values = WRITABLE["Order"][column]
        return (column, tuple((choose.of(KEYS[:5]), choose.of(values)) for _ in range(choose.of((1, 2)))))
    if kind == "core_update_from":
        return (choose.of(PLANS), choose.of(STATUSES))
    if kind == "core_delete":
        return ("Order", draw_condition(choose, "Order"))
    if kind == "link":
        return (choose.of(KEYS[:4]), choose.of(KEYS[:3]), choose.of((False, True)))
    if kind == "unlink_all":
        return (choose.of(KEYS[:3]),)
    if kind == "insert_from_select":
        return (choose.of(KEYS[:3]), choose.of(STATUSES))
    if kind == "upsert":
        return (choose.of(KEYS[:6]), _draw_values(choose, "User"), choose.of(("update", "nothing")))
    if kind == "returning":
        return (choose.of(KEYS[:4]), choose.of(PLANS))
    if kind == "raw":
        return (choose.of(RAW), choose.of(KEYS[:4]), choose.of(STATUSES), choose.of(PLANS))
    if kind == "driver_sql":
        return (choose.of(KEYS[:4]), choose.of(NUMBERS))
    if kind == "bulk_update":
        return (((choose.of(KEYS[:4]), _draw_values(choose, "User")),),)
    if kind == "bulk_save":
        return (choose.of(PLANS),)
    return ()
