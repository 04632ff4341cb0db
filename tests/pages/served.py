"""A small application on a real database, served by uvicorn on a port of its own, in a thread of the tests."""

from __future__ import annotations

import base64
import logging
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from sqlacache_telemetry.pages import Pages
from tests.support.processes import until

from .shelf import HOSTILE_TEXT, Hostile, Shelf, shelf

USER, PASSWORD = "ada", "right"


def may_look(scope: Any) -> bool:
    wanted = b"Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode())
    return dict(scope["headers"]).get(b"authorization") == wanted


def application(folder: Path) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with shelf(folder, expose_values=True, debug=True) as books:
            app.state.books = books
            app.mount("/sqlacache", Pages(books.cache, development=True))
            app.mount("/guarded", Pages(books.cache, auth=may_look))
            app.mount("/by-password", Pages(books.cache, auth=may_look, challenge='Basic realm="cache"'))
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/favicon.ico", status_code=204)
    async def icon() -> None:
        """Browsers ask for it where a page names none, such as JSON."""

    @app.get("/books/{key}")
    async def read(key: int) -> Any:
        books: Shelf = app.state.books
        return {"title": await books.read(key)}

    @app.put("/books/{key}")
    async def write(key: int, title: str) -> None:
        await app.state.books.write(title, key)

    @app.put("/hostile")
    async def hostile(value: str) -> None:
        async with app.state.books.session() as session:
            row = await session.get(Hostile, HOSTILE_TEXT)
            row.value = value
            await session.commit()

    return app


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an application; give its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level=logging.WARNING, ws="none"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            until(lambda: server.started or not thread.is_alive(), "uvicorn to serve", 60)
            yield f"http://localhost:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
