"""Generated reads: data that says what is read, and functions of a session that read it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy import and_, exists, func, not_, or_, select, union_all
from sqlalchemy.orm import Session, aliased, joinedload, selectinload, subqueryload, with_polymorphic

from tests.support.plain import plain

from .drawing import Choices, weighted
from .schema import (
    KEYS,
    KINDS_OF_VEHICLE,
    NUMBERS,
    PLANS,
    STATUSES,
    Bike,
    Changes,
    Order,
    Tag,
    Truck,
    User,
    Vehicle,
    user_tags,
)

Atom = tuple[str, str, Any]
"""Column, operator, value: one condition."""


class Read(NamedTuple):
    """What is read: the name of a function below and its arguments, plain data throughout."""

    kind: str
    arguments: tuple[Any, ...]

    def __call__(self, session: Session) -> Any:
        """Read, and return what is comparable of it."""
        return plain(KINDS[self.kind](session, *self.arguments))

    @property
    def entities(self) -> bool:
        """The read puts objects into the session."""
        return self.kind in ENTITIES


MODELS: dict[str, Any] = {
    model.__name__: model for model in (User, Order, Tag, Vehicle, Truck, Bike, Changes)
}
VALUES: dict[str, dict[str, tuple[Any, ...]]] = {
    "User": {
        "plan": PLANS,
        "id": KEYS[:5],
        "active": (True, False),
        "score": (1, 0, 2, None),
        "seen": NUMBERS,
    },
    "Order": {"user_id": (1, 2, 3, None), "status": STATUSES, "total": NUMBERS, "id": KEYS[:6]},
    "Tag": {"id": KEYS[:3], "name": ("t1", "t2", "x")},
    "Vehicle": {"owner_id": (1, 2, None), "id": KEYS[:4], "gears": (5, 6, None), "name": ("v1", "x")},
    "Truck": {"load": NUMBERS, "id": KEYS[:2], "owner_id": (1, 2, None)},
    "Bike": {"owner_id": (1, 2, None), "name": ("v3", "x")},
    "Changes": {"kind": KINDS_OF_VEHICLE, "times": NUMBERS},
}
OPERATORS = weighted(eq=6, in_=2, ne=1, gt=1, not_in=1)


def clause(entity: Any, atom: Atom) -> Any:
    """A condition as SQLAlchemy has it; operators that NULL has none of become ``IS`` and ``IS NOT``."""
    name, operator, value = atom
    if operator in ("or", "and"):
        parts = [clause(entity, part) for part in value]
        return or_(*parts) if operator == "or" else and_(*parts)
    if operator == "not":
        return not_(clause(entity, value))
    column = getattr(entity, name)
    if operator == "in_":
        return column.in_(value)
    if operator == "not_in":
        return column.notin_(value)
    if operator == "gt" and value is not None and not isinstance(value, bool):
        return column > value
    if operator == "ne":
        return column.isnot(None) if value is None else column != value
    if operator == "is":
        return column if value is True else not_(column)
    return column.is_(None) if value is None else column == value


def where(entity: Any, condition: tuple[Atom, ...]) -> list[Any]:
    """The criteria of a condition."""
    return [clause(entity, atom) for atom in condition]


def draw_atom(choose: Choices, model: str, depth: int = 0) -> Atom:
    """One condition on a model."""
    column = choose.of(tuple(VALUES[model]))
    values = VALUES[model][column]
    if depth == 0 and choose.of(range(10)) == 9:
        form = choose.of(("or", "not"))
        inner = (draw_atom(choose, model, 1), draw_atom(choose, model, 1))
        return ("", form, inner) if form == "or" else ("", "not", inner[0])
    if column == "active" and choose.of((0, 1)):
        return (column, "is", choose.of(values))
    operator = choose.of(OPERATORS)
    if operator in ("in_", "not_in"):
        some = tuple(choose.of(values) for _ in range(choose.of((1, 2, 3))))
        return (column, operator, tuple(dict.fromkeys(value for value in some if value is not None)) or (0,))
    return (column, operator, choose.of(values))


def draw_condition(choose: Choices, model: str, most: int = 2) -> tuple[Atom, ...]:
    """Conditions joined by AND; mostly one, sometimes none."""
    count = choose.of((1, 1, 1, 0, 2)[: most + 3])
    return tuple(draw_atom(choose, model) for _ in range(count))


def _key(model: Any) -> Any:
    return model.kind if model is Changes else model.id


def _get(session: Session, model: str, key: Any) -> Any:
    return session.get(MODELS[model], key)


def _entities(session: Session, model: str, condition: Any) -> Any:
    entity = MODELS[model]
    return (
        session.execute(select(entity).where(*where(entity, condition)).order_by(_key(entity)))
        .scalars()
        .all()
    )


def _columns(session: Session, model: str, names: Any, condition: Any) -> Any:
    entity = MODELS[model]
    statement = select(*[getattr(entity, name) for name in names]).where(*where(entity, condition))
    return session.execute(statement.order_by(_key(entity))).all()


def _count(session: Session, model: str, column: Any, condition: Any) -> Any:
    entity = MODELS[model]
    what = func.count() if column is None else func.count(getattr(entity, column))
    return session.execute(select(what).select_from(entity).where(*where(entity, condition))).scalar()


def _exists(session: Session, model: str, condition: Any) -> Any:
    entity = MODELS[model]
    inner = select(_key(entity)).where(*where(entity, condition))
    return session.execute(select(exists(inner))).scalar()


def _totals(session: Session, by: str, condition: Any) -> Any:
    column = getattr(Order, by)
    statement = select(column, func.sum(Order.total), func.count()).where(*where(Order, condition))
    return sorted(session.execute(statement.group_by(column)).all(), key=repr)


def _eager(session: Session, options: Any, condition: Any) -> Any:
    load = {"joined": joinedload, "selectin": selectinload, "subquery": subqueryload}
    statement = select(User).where(*where(User, condition)).order_by(User.id)
    for name, how in options:
        statement = statement.options(load[how](getattr(User, name)))
    return session.execute(statement).unique().scalars().all()


def _eager_parent(session: Session, how: str, condition: Any) -> Any:
    load = joinedload if how == "joined" else selectinload
    statement = select(Order).where(*where(Order, condition)).options(load(Order.user)).order_by(Order.id)
    return session.execute(statement).unique().scalars().all()


def _lazy(session: Session, model: str, key: int, relation: str) -> Any:
    found = session.get(MODELS[model], key)
    return None if found is None else [found, getattr(found, relation)]


def _join(session: Session, outer: bool, on_user: Any, on_order: Any) -> Any:
    statement = select(User.id, User.name, Order.id, Order.status).select_from(User)
    statement = (
        statement.outerjoin(Order, and_(Order.user_id == User.id, *where(Order, on_order)))
        if outer
        else (statement.join(Order, Order.user_id == User.id).where(*where(Order, on_order)))
    )
    return session.execute(statement.where(*where(User, on_user)).order_by(User.id, Order.id)).all()


def _outer_where(session: Session, on_user: Any, on_order: Any) -> Any:
    statement = (
        select(User.id, Order.id).outerjoin(User.orders).where(*where(User, on_user), *where(Order, on_order))
    )
    return session.execute(statement.order_by(User.id, Order.id)).all()


def _tagged(session: Session, condition: Any, by_any: bool) -> Any:
    if by_any:
        statement = select(User).where(
            User.tags.any(and_(*where(Tag, condition))) if condition else User.tags.any()
        )
    else:
        statement = select(User).join(User.tags).where(*where(Tag, condition)).distinct()
    return session.execute(statement.order_by(User.id)).scalars().all()


def _links(session: Session, user_id: int) -> Any:
    statement = select(Tag.name, user_tags.c.user_id).join(user_tags, user_tags.c.tag_id == Tag.id)
    return session.execute(statement.where(user_tags.c.user_id == user_id).order_by(Tag.id)).all()


def _in_subquery(session: Session, condition: Any, negated: bool) -> Any:
    inner = select(Order.user_id).where(Order.user_id.isnot(None), *where(Order, condition))
    chosen = User.id.notin_(inner) if negated else User.id.in_(inner)
    return session.execute(select(User.id, User.plan).where(chosen).order_by(User.id)).all()


def _correlated(session: Session, on_user: Any, on_order: Any) -> Any:
    inner = select(func.count(Order.id)).where(Order.user_id == User.id, *where(Order, on_order))
    statement = select(User.id, inner.scalar_subquery()).where(*where(User, on_user))
    return session.execute(statement.order_by(User.id)).all()


def _cte(session: Session, condition: Any, join_value: int) -> Any:
    some = select(User.id.label("id"), User.plan.label("plan")).where(*where(User, condition)).cte("some")
    statement = select(some.c.plan, Order.id).join(Order, Order.user_id == some.c.id)
    return session.execute(statement.where(Order.total >= join_value).order_by(Order.id)).all()


def _union(session: Session, one: Any, other: Any) -> Any:
    both = union_all(select(User.id).where(*where(User, one)), select(Order.id).where(*where(Order, other)))
    return sorted(tuple(row) for row in session.execute(both).all())


def _limited(session: Session, condition: Any, limit: int) -> Any:
    inner = (
        select(Order.id, Order.user_id).where(*where(Order, condition)).order_by(Order.total.desc(), Order.id)
    )
    top = inner.limit(limit).subquery()
    statement = select(User.id, top.c.id).join(top, top.c.user_id == User.id).order_by(User.id, top.c.id)
    return session.execute(statement).all()


def _page(session: Session, condition: Any, limit: int) -> Any:
    statement = select(Order).where(*where(Order, condition)).order_by(Order.total, Order.id).limit(limit)
    return session.execute(statement).scalars().all()


def _window(session: Session, condition: Any) -> Any:
    rank = func.row_number().over(partition_by=Order.user_id, order_by=Order.id)
    statement = select(Order.id, rank).where(*where(Order, condition))
    return session.execute(statement.order_by(Order.id)).all()


def _alias(session: Session, one: Any, other: Any) -> Any:
    left, right = aliased(User), aliased(User)
    statement = select(left.id, right.id, right.name).join(right, left.plan == right.plan)
    return session.execute(
        statement.where(*where(left, one), *where(right, other)).order_by(left.id, right.id)
    ).all()


def _polymorphic(session: Session, condition: Any) -> Any:
    every = with_polymorphic(Vehicle, [Truck])
    return session.execute(select(every).where(*where(every, condition)).order_by(every.id)).scalars().all()


def _owners(session: Session, condition: Any) -> Any:
    statement = select(User.id, Truck.id, Truck.load).join(Truck, Truck.owner_id == User.id)
    return session.execute(statement.where(*where(User, condition)).order_by(Truck.id)).all()


KINDS: dict[str, Callable[..., Any]] = {
    "get": _get, "entities": _entities, "columns": _columns, "count": _count, "exists": _exists, "totals": _totals,
    "eager": _eager, "eager_parent": _eager_parent, "lazy": _lazy, "join": _join, "outer_where": _outer_where,
    "tagged": _tagged, "links": _links, "in_subquery": _in_subquery, "correlated": _correlated, "cte": _cte,
    "union": _union, "limited": _limited, "page": _page, "window": _window, "alias": _alias,
    "polymorphic": _polymorphic, "owners": _owners,
}  # fmt: skip
ENTITIES = {"get", "entities", "eager", "eager_parent", "lazy", "tagged", "page", "polymorphic"}
MIX = weighted(
    get=6, columns=5, entities=6, count=4, exists=2, totals=2, eager=5, eager_parent=2, lazy=4, join=3, outer_where=2,
    tagged=2, links=1, in_subquery=2, correlated=2, cte=1, union=1, limited=1, page=1, window=1, alias=1, polymorphic=1,
    owners=1,
)  # fmt: skip
RELATIONS = (
    ("User", "orders"),
    ("User", "tags"),
    ("Order", "user"),
    ("Tag", "users"),
    ("User", "vehicles"),
    ("Vehicle", "owner"),
)
EAGER = (
    (("orders", "selectin"),), (("orders", "joined"),), (("tags", "selectin"),), (("tags", "joined"),),
    (("orders", "subquery"),), (("orders", "selectin"), ("tags", "joined")), (("vehicles", "selectin"),),
)  # fmt: skip


def draw_read(choose: Choices, mix: tuple[str, ...] = MIX) -> Read:
    """One read."""
    kind = choose.of(mix)
    return Read(kind, _draw_arguments(choose, kind))


def _draw_arguments(choose: Choices, kind: str) -> tuple[Any, ...]:
    model = choose.of(("User", "Order", "User", "Order", "Tag", "Vehicle", "Truck", "Bike", "Changes"))

    def on(name: str, most: int = 2) -> tuple[Atom, ...]:
        return draw_condition(choose, name, most)

    if kind == "get":
        return (model, choose.of(KINDS_OF_VEHICLE if model == "Changes" else KEYS))
    if kind == "columns":
        names = tuple(VALUES[model])
        first = choose.of(names)
        return (model, tuple(dict.fromkeys((first, choose.of(names)))), on(model))
    if kind in ("entities", "exists"):
        return (model, on(model))
    if kind == "count":
        return (model, choose.of((None, None, next(iter(VALUES[model])))), on(model))
    if kind == "totals":
        return (choose.of(("user_id", "status")), on("Order"))
    if kind == "eager":
        return (choose.of(EAGER), on("User"))
    if kind == "eager_parent":
        return (choose.of(("joined", "selectin")), on("Order"))
    if kind == "lazy":
        name, relation = choose.of(RELATIONS)
        return (name, choose.of(KEYS[:5]), relation)
    if kind == "join":
        return (choose.of((False, True)), on("User"), on("Order"))
    if kind in ("outer_where", "correlated", "union"):
        return (on("User"), on("Order"))
    if kind == "tagged":
        return (on("Tag"), choose.of((False, True)))
    if kind == "links":
        return (choose.of(KEYS[:4]),)
    if kind == "in_subquery":
        return (on("Order"), choose.of((False, True)))
    if kind == "cte":
        return (on("User"), choose.of(NUMBERS))
    if kind in ("limited", "page"):
        return (on("Order"), choose.of((1, 2, 3)))
    if kind == "alias":
        return (on("User", 1), on("User", 1))
    return (on({"window": "Order", "polymorphic": "Vehicle", "owners": "User"}[kind]),)
