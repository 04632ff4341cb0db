"""The example shop has the pages and the middleware."""

from __future__ import annotations

import pytest

from examples.shop.app import create_app

from .recorded import timing
from .shelf import asking, in_json


async def test_the_example_shop_shows_what_it_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOP_DATABASE_URL", raising=False)
    app = create_app()
    async with app.router.lifespan_context(app), asking(app) as client:
        await client.get("/products/1")
        assert (await client.patch("/products/1", json={"price_cents": 999})).status_code == 200
        answer = await client.get("/products/1")
        assert timing(answer.headers["server-timing"])["cache"]["desc"] == "0 hit, 1 miss, 0 bypass"
        found = in_json(await client.get("/sqlacache/api/decisions", params={"reason": "row_invalidated"}))
        (decision,) = found["decisions"]
        page = await client.get(f"/sqlacache/decisions/{decision['number']}")
        assert "UPDATE products of products:1 (price_cents)" in page.text
