"""For those who run the shop: ask the cache why, tell it of writes made elsewhere, count what reaches the database."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import PlainTextResponse
from prometheus_client import Counter
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from .models import Product
from .routes import Session

router = APIRouter()

SELECTS = Counter("shop_database_selects", "SELECT statements of the shop sent to the database")
READ_BACKS = Counter(
    "shop_database_read_backs", "SELECT statements by which the cache read old values before a write"
)


@router.get("/explain/products/{product_id}", response_class=PlainTextResponse)
async def explain_product(product_id: int, request: Request, session: Session) -> str:
    """What would happen to ``session.get(Product, product_id)`` now, and why; it loads nothing."""
    return str(await request.app.state.cache.explain_get(session, Product, product_id))


@router.get("/health")
async def health(request: Request) -> Any:
    """Whether the cache works; the shop does without it, so that this answers 200 while the shop is up."""
    return (await request.app.state.cache.health()).to_dict()


@router.post("/touched/{table}")
async def touched(
    table: str,
    request: Request,
    column: Annotated[list[str], Query()],
    pk: Annotated[list[int] | None, Query()] = None,
) -> Any:
    """Something that is not this application changed ``table``: a migration, a script, somebody in a database shell."""
    await request.app.state.cache.touched(table, columns=set(column), pks=pk)
    return {"touched": table}


def count_selects(engine: AsyncEngine) -> None:
    """Count the SELECTs that really are sent to the database, next to the cache's own figures and without its help."""

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def sent(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if statement.lstrip().upper().startswith(("SELECT", "WITH")):
            (READ_BACKS if context.execution_options.get("sqlacache_read_back") else SELECTS).inc()
