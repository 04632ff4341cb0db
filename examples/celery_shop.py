"""Work in the background for the shop: Celery with prefork, sync sessions, and the cache that the shop has.

``celery --app examples.celery_shop worker --concurrency 2`` next to :mod:`examples.shop`, which is FastAPI with async
sessions. Both are on one database and one Redis under one ``prefix``, so that each evicts in the other what its commits
change. ``SHOP_DATABASE_URL`` names the database as ordinary drivers take it (``postgresql+psycopg://...``),
``SQLACACHE_BACKEND`` the Redis of the cache, ``SHOP_BROKER`` the one of Celery.

The pool's processes are forked. Each binds in ``worker_process_init``, and opens database connections of its own.
Binding before the fork works, too, where the engine's connections are let go of with ``engine.dispose()``.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import worker_process_init, worker_process_shutdown
from sqlalchemy import create_engine, func, select, update
from sqlalchemy.orm import sessionmaker

from examples.shop.models import AuditLog, Product
from sqlacache import configure_sync

engine = create_engine(os.environ["SHOP_DATABASE_URL"])
sessions = sessionmaker(engine)
cache = configure_sync(
    backend="redis://localhost:6379/0",
    models={Product: {"timeout": 600}, AuditLog: None, "*": {"timeout": 3600}},
    prefix="shop",
)
app = Celery("shop", broker=os.environ["SHOP_BROKER"], backend=os.environ["SHOP_BROKER"])


@worker_process_init.connect
def bind(**_: Any) -> None:
    engine.dispose(close=False)  # connections that the parent may have opened stay the parent's
    cache.bind(engine)


@worker_process_shutdown.connect
def release(**_: Any) -> None:
    cache.disconnect()  # delivers what is owed, or says what could not be


@app.task
def change_price(product_id: int, price_cents: int) -> int:
    """Return the process that did it."""
    with sessions.begin() as session:
        session.get(Product, product_id).price_cents = price_cents
    return os.getpid()


@app.task
def reprice(category_id: int, add_cents: int) -> int:
    """A bulk update: the rows that it changes never pass through the session."""
    with sessions.begin() as session:
        session.execute(
            update(Product)
            .where(Product.category_id == category_id)
            .values(price_cents=Product.price_cents + add_cents)
            .execution_options(synchronize_session=False)
        )
    return os.getpid()


@app.task
def price_of(product_id: int) -> dict[str, Any]:
    """What a task reads is cached for the tasks, and evicted by the web application's commits."""
    with sessions() as session:
        why = str(cache.explain_get(session, Product, product_id))
        price = session.get(Product, product_id).price_cents
    return {"pid": os.getpid(), "price_cents": price, "why": why}


@app.task
def stock_value(category_id: int) -> int:
    value = func.sum(Product.price_cents * Product.stock)
    with sessions() as session:
        return int(session.scalar(select(value).where(Product.category_id == category_id)))
