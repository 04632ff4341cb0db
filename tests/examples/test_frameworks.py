"""The code of ``docs/frameworks.md`` runs as written, under the framework that it is for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine

from sqlacache import SyncCacheManager
from sqlacache.testing import record
from tests.examples.serving import ROOT

PAGE = (ROOT / "docs" / "frameworks.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.integration


def blocks(heading: str) -> list[str]:
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```python\n(.*?)^```$", section, flags=re.M | re.S)


def needs(module: str) -> Any:
    return pytest.mark.skipif(find_spec(module) is None, reason=f"{module} is not installed")


Run = Callable[[str], dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Run a block next to ``app.models``, in a folder with a filled database; its caches end with the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "examples" / "readme"))
    monkeypatch.delenv("SQLACACHE_MODE", raising=False)
    monkeypatch.delenv("SQLACACHE_BACKEND", raising=False)
    monkeypatch.setattr("atexit.register", lambda function, *arguments: function)
    from app import models

    engine = create_engine("sqlite:///app.sqlite")
    models.Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(models.User.__table__.insert(), [{"id": 42, "name": "Ada"}])
    engine.dispose()
    namespaces: list[dict[str, Any]] = []

    def do(code: str) -> dict[str, Any]:
        url = redis_url + f"?db={len(namespaces)}"
        namespace: dict[str, Any] = {"__name__": "page"}
        namespaces.append(namespace)
        exec(compile(code.replace("redis://localhost:6379/0", url), "frameworks.md", "exec"), namespace)
        return namespace

    yield do
    for namespace in namespaces:
        if isinstance(namespace["cache"], SyncCacheManager):
            namespace["cache"].disconnect()
        if "engine" in namespace and not hasattr(namespace["engine"], "sync_engine"):
            namespace["engine"].dispose()


def asked_twice(page: dict[str, Any], client: Any, path: str) -> list[Any]:
    """Ask for a page twice; return the answers, and what was decided."""
    with record(page["cache"]) as seen:
        answers = [client.get(path).get_json() for _ in range(2)]
    return [*answers, *(decision.reason or decision.decision for decision in seen.decisions)]


@needs("flask_sqlalchemy")
def test_flask_sqlalchemy(run: Run) -> None:
    (code,) = blocks("Flask-SQLAlchemy")
    page = run(code)
    app = page["create_app"]()
    client = app.test_client()
    with app.app_context():
        page["db"].session.add(page["Member"](id=1, name="Eva"))
        page["db"].session.commit()
    eva = {"name": "Eva"}
    assert asked_twice(page, client, "/members/1") == [eva, eva, "absent", "hit"]
    assert client.get("/health").get_json()["status"] == "ok"
    with app.app_context():
        page["db"].engine.dispose()


@needs("flask")
def test_flask_and_plain_sqlalchemy(run: Run) -> None:
    (code,) = blocks("Flask and plain SQLAlchemy")
    page = run(code)
    client = page["create_app"]().test_client()
    ada = {"name": "Ada"}
    assert asked_twice(page, client, "/users/42") == [ada, ada, "absent", "hit"]


@needs("celery")
def test_celery(run: Run) -> None:
    (code,) = blocks("Celery")
    page = run(code)
    page["bind"]()  # the signal's receiver
    with page["sessions"]() as session:
        assert session.get(page["User"], 42).name == "Ada"
        with record(page["cache"]) as seen:
            page["rename"](42, "Eva")
    assert [done.tables for done in seen.invalidations if done.committed] == [("users",)]
    with page["sessions"]() as session:
        assert session.get(page["User"], 42).name == "Eva"
    page["release"]()
    assert page["cache"].health().status == "degraded"  # bound to nothing any more


@needs("sqlmodel")
async def test_sqlmodel_with_either_kind_of_sessions(run: Run) -> None:
    for code, path in zip(blocks("SQLModel"), ("/heroes", "/villains"), strict=True):
        page = run(code)
        app = page["app"]
        if path == "/villains":
            async with page["engine"].begin() as connection:
                await connection.run_sync(page["Villain"].__table__.create)
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
                with record(page["cache"]) as seen:
                    for _ in range(2):
                        assert (await client.get(path)).json() == []
        assert [decision.reason or decision.decision for decision in seen.decisions] == ["absent", "hit"]
        if path == "/villains":
            await page["engine"].dispose()


def test_an_engine_for_each_tenant(run: Run) -> None:
    tenants = run(blocks("An engine for each tenant or test")[0])
    tenants["MOST"] = 2
    for tenant in ("one", "two", "one", "three"):
        with tenants["engine_of"](tenant).connect():
            pass
    cache = tenants["cache"]
    assert [Path(binding.database).stem for binding in cache.bindings] == ["one", "three"]
    for engine in tenants["engines"].values():
        cache.unbind(engine)
        engine.dispose()


async def test_an_engine_for_each_test(run: Run) -> None:
    given = run(blocks("An engine for each tenant or test")[1])
    each = given.pop("engine").__wrapped__()
    engine = await anext(each)
    assert len(given["cache"].bindings) == 1
    with pytest.raises(StopAsyncIteration):
        await anext(each)
    assert given["cache"].bindings == []
    assert engine.pool.checkedin() == 0


def test_every_block_is_run_by_a_test_above() -> None:
    run_above = (
        "Flask-SQLAlchemy",
        "Flask and plain SQLAlchemy",
        "Celery",
        "SQLModel",
        "An engine for each tenant or test",
    )
    assert PAGE.count("```python") == sum(len(blocks(heading)) for heading in run_above)


def test_files_that_are_named_exist() -> None:
    named = set(re.findall(r"`((?:examples|tests|docs)/[\w./-]*)`", PAGE))
    assert named and [name for name in sorted(named) if not (ROOT / name).exists()] == []
