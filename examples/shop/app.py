"""The application: ``uvicorn --factory examples.shop.app:create_app``.

The cache enters in two places: ``configure()`` says what may be cached and for how long, and the lifespan binds it to
the engine. ``SHOP_DATABASE_URL`` names the database (filled when it is empty); without it, a temporary SQLite file is
used and removed at the end. With several workers, the cache has to be one that they share:
``SQLACACHE_BACKEND=redis://...``, which ``configure()`` itself looks at.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from prometheus_client import make_asgi_app
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import sessionmaker

from sqlacache import configure

from . import data, operations, routes
from .models import AuditLog, Product


def create_app() -> FastAPI:
    cache = configure(
        backend="mem://",
        models={
            Product: {"ops": "all", "timeout": 600},
            AuditLog: None,  # never cached
            "*": {"timeout": 3600},  # every other mapped class
        },
        prefix="shop",
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with tempfile.TemporaryDirectory(prefix="shop-") as directory:
            url = os.environ.get("SHOP_DATABASE_URL") or f"sqlite+aiosqlite:///{directory}/shop.sqlite"
            engine = create_async_engine(url)
            await data.fill(engine)
            operations.count_selects(engine)
            app.state.cache = cache
            app.state.sessions = sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)
            try:
                async with cache.lifespan(engine)(app):  # binds here, disconnects at the end
                    yield
            finally:
                await engine.dispose()

    app = FastAPI(title="A shop cached by sqlacache", lifespan=lifespan)
    app.include_router(routes.router)
    app.include_router(operations.router)
    app.mount("/metrics", make_asgi_app())
    return app
