"""The application: ``uvicorn --factory examples.shop.app:create_app``.

The cache enters in two places: ``configure()`` says what may be cached and for how long, and the lifespan binds it to
the engine. ``SHOP_DATABASE_URL`` names the database (filled when it is empty); without it, a temporary SQLite file is
used and removed at the end. With several workers (``uvicorn --workers 2``), the cache has to be one that they share:
``SQLACACHE_BACKEND=redis://...``, which ``configure()`` itself looks at. They count together in an empty folder that
``PROMETHEUS_MULTIPROC_DIR`` names; else ``/metrics`` tells of the worker alone that happens to answer.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from prometheus_client import REGISTRY, CollectorRegistry, make_asgi_app
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import sessionmaker

from sqlacache import configure
from sqlacache_telemetry.middleware import RequestMiddleware
from sqlacache_telemetry.pages import Pages

from . import data, operations, routes, tracing
from .models import AuditLog, Product

COUNT_TOGETHER = "PROMETHEUS_MULTIPROC_DIR" in os.environ


def create_app() -> FastAPI:
    traced = tracing.set_up()
    cache = configure(
        backend="mem://",
        models={
            Product: {"ops": "all", "timeout": 600},
            AuditLog: None,  # never cached
            "*": {"timeout": 3600},  # every other mapped class
        },
        prefix="shop",
        telemetry=True if traced is None else {"tracer_provider": traced.provider},
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with tempfile.TemporaryDirectory(prefix="shop-") as directory:
            url = os.environ.get("SHOP_DATABASE_URL") or f"sqlite+aiosqlite:///{directory}/shop.sqlite"
            engine = create_async_engine(url)
            await data.fill(engine)
            operations.count_selects(engine)
            if traced is not None:
                traced.watch(engine)
            app.state.cache = cache
            app.state.sessions = sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)
            try:
                async with cache.lifespan(engine)(app):  # binds here, disconnects at the end
                    yield
            finally:
                await engine.dispose()
                if traced is not None:
                    traced.shut_down()
                if COUNT_TOGETHER:
                    mark_process_dead(os.getpid())  # what it held and owed is no longer in the sums

    app = FastAPI(title="A shop cached by sqlacache", lifespan=lifespan)
    app.include_router(routes.router)
    app.include_router(operations.router)
    if traced is not None:
        app.include_router(traced.router)
        app.add_middleware(tracing.Requests, tracer=traced.tracer)
    app.add_middleware(RequestMiddleware, cache=cache)  # Server-Timing, and a record in the log at level INFO
    app.mount("/metrics", make_asgi_app(figures()))
    app.mount("/sqlacache", Pages(cache, development=True))  # in production: auth=...
    return app


def figures() -> CollectorRegistry:
    """Return what ``/metrics`` serves: the figures of all workers, where they were told a folder to count in."""
    if not COUNT_TOGETHER:
        return REGISTRY
    together = CollectorRegistry()
    MultiProcessCollector(together)
    return together
