"""README says what is so: its code runs as written, and what it lists is what there is.

A Python block runs as a reader would run it in ``python -m asyncio``: ``await`` at the top, SQLite in the current
directory, ``app.models`` next to it. An HTML comment before a block may say what surrounds it in an application::

    <!-- given: cache session User -->   names that exist already
    <!-- server: redis -->               what it needs; a server of the test's own stands in for redis://localhost:6379/0
                                         (``otlp``: for the collector at http://localhost:4318)
    <!-- prints: miss -->                what its output has to contain
    <!-- get: /users/42 -->              pages that its ``app`` has to serve

Functions called ``test_*`` are called, with what is given for their parameters.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import io
import re
import types
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
import sqlalchemy
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.util._once import Once
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

import sqlacache
from sqlacache import decisions
from sqlacache.core import Core
from tests.support.otlp import otlp_receiver

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Block:
    line: int
    code: str
    marks: dict[str, list[str]]

    def __str__(self) -> str:
        return f"line {self.line}"


def blocks() -> Iterator[Block]:
    marks: dict[str, list[str]] = {}
    for found in re.finditer(r"<!-- (\w+): (.*?) -->\n|^```(\w*)\n(.*?)^```$", README, flags=re.M | re.S):
        mark, words, language, code = found.groups()
        if mark:
            marks[mark] = words.split()
            continue
        if language == "python":
            yield Block(README[: found.start(4)].count("\n") + 1, code, marks)
        marks = {}


@pytest.fixture
async def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[dict[str, Any]]:
    """What a block may be given: the application's models, an engine, a bound cache and a session."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "examples" / "readme"))
    monkeypatch.delenv("SQLACACHE_MODE", raising=False)
    monkeypatch.delenv("SQLACACHE_BACKEND", raising=False)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)  # what a block sets is for it alone
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    from app import models

    engine = create_async_engine("sqlite+aiosqlite:///app.sqlite")
    async with engine.begin() as connection:
        await connection.run_sync(models.Base.metadata.create_all)
        users = [{"id": number, "name": f"user {number}"} for number in range(1, 100)]
        await connection.execute(models.User.__table__.insert(), users)
        products = [{"id": n, "name": f"product {n}", "price_cents": n} for n in range(1, 10)]
        await connection.execute(models.Product.__table__.insert(), products)
    cache = sqlacache.configure(backend="mem://", models={"*": {"timeout": 3600}}, name="given")
    async with AsyncSession(engine, expire_on_commit=False) as session:
        names = {
            **{name: value for name, value in vars(models).items() if inspect.isclass(value)},
            **{name: getattr(sqlalchemy, name) for name in ("func", "select", "text", "update")},
            "AsyncSession": AsyncSession,
            "configure": sqlacache.configure,
            "engine": engine,
            "cache": cache,
            "session": session,
            "app": FastAPI(),
        }
        yield names
    await names["cache"].disconnect()
    await engine.dispose()


async def run(block: Block, namespace: dict[str, Any]) -> str:
    """Run the block as it stands, with README's line numbers in tracebacks; return what it printed."""
    code = compile(
        "\n" * (block.line - 1) + block.code, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    )
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        finished = types.FunctionType(code, namespace)()
        if inspect.iscoroutine(finished):
            await finished
    return printed.getvalue()


async def end(namespace: dict[str, Any]) -> None:
    """Let go of what a block left open."""
    ends = ((Core, "disconnect"), (Engine, "dispose"), (AsyncEngine, "dispose"), (TracerProvider, "shutdown"))
    for kind, method in ends:
        for value in namespace.values():
            if isinstance(value, kind):
                done = getattr(value, method)()
                if inspect.isawaitable(done):
                    await done


def marked() -> list[Any]:
    """Every block; those that need a server are marked as integration."""
    return [
        pytest.param(
            block,
            marks=pytest.mark.integration if "redis" in block.marks.get("server", []) else (),
            id=str(block),
        )
        for block in blocks()
    ]


@pytest.mark.parametrize("block", marked())
async def test_the_code_in_the_readme_runs_as_written(
    block: Block, given: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    servers = block.marks.get("server", [])
    if "redis" in servers:
        url = request.getfixturevalue("redis_url")
        block = dataclasses.replace(block, code=block.code.replace("redis://localhost:6379/0", url))
        given["cache"] = sqlacache.configure(backend=url, models={"*": {"timeout": 3600}}, name="shared")
    collector = ExitStack()
    if "otlp" in servers:
        receiver = collector.enter_context(otlp_receiver())
        block = dataclasses.replace(block, code=block.code.replace("http://localhost:4318", receiver.url))
    namespace = {name: given[name] for name in block.marks.get("given", [])}
    if "cache" in namespace:
        await given["cache"].bind(given["engine"])
    try:
        printed = await run(block, namespace)
        for words in block.marks.get("prints", []):
            assert words in printed
        for name, function in list(namespace.items()):
            if name.startswith("test_"):
                await given["cache"].bind(given["engine"])
                await function(
                    **{parameter: given[parameter] for parameter in inspect.signature(function).parameters}
                )
        if pages := block.marks.get("get"):
            app = namespace["app"]
            async with app.router.lifespan_context(app):
                transport = httpx.ASGITransport(app=app)
                async with httpx.AsyncClient(transport=transport, base_url="http://readme") as client:
                    for page in pages:
                        assert (await client.get(page)).status_code == 200, page
    finally:
        await end({name: value for name, value in namespace.items() if given.get(name) is not value})
        collector.close()


def table(heading: str) -> dict[str, list[str]]:
    """Rows of the first table under a heading, by the code in their first column."""
    section = re.sub(r"^(#+) `(.*)`$", r"\1 \2", README, flags=re.M).partition(f"# {heading}\n")[2]
    assert section, f"README has no heading {heading!r}"
    rows = {}
    for line in re.sub(r"\A.*?\n(?=\|)", "", section, flags=re.S).splitlines()[2:]:
        if not line.startswith("|"):
            break
        first, *rest = (cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|")))
        for name in re.findall(r"`([^`]+)`", first):
            rows[name] = rest
    return rows


def test_the_configuration_reference_lists_every_keyword_with_its_default() -> None:
    parameters = inspect.signature(sqlacache.configure).parameters
    listed = table("configure()")
    assert list(listed) == list(parameters)
    for name, parameter in parameters.items():
        default = listed[name][1].strip("`")
        expected = "required" if parameter.default is parameter.empty else repr(parameter.default)
        assert default.replace('"', "'") == expected, name


@pytest.mark.parametrize(
    ("heading", "words"),
    [
        ("Ops", decisions.OPS),
        ("Why a read missed", decisions.MISS_REASONS),
        ("Why a read was not looked up", decisions.BYPASS_REASONS),
        ("Modes", get_args(decisions.Mode)),
    ],
)
def test_closed_vocabularies_are_listed_in_full(heading: str, words: tuple[str, ...]) -> None:
    assert sorted(table(heading)) == sorted(words)


@pytest.mark.parametrize("page", ["README.md", "CAVEATS.md", "docs/operations.md"])
def test_files_links_and_metrics_that_are_named_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:sqlacache|telemetry|examples|tests|benchmarks|docs)/[\w./-]*)`", text))
    linked = {link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link}
    assert named | linked
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
    assert [name for name in sorted(linked) if not (ROOT / page).parent.joinpath(name).exists()] == []
    metrics = (ROOT / "telemetry" / "README.md").read_text(encoding="utf-8")
    assert [name for name in re.findall(r"`(sqlacache_\w+_total)`", text) if f"`{name}`" not in metrics] == []


def test_make_targets_that_are_named_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {word for line in re.findall(r"\bmake ([a-z][a-z -]*)", README) for word in line.split()[:1]}
    assert {"demo", "test", "serve"} <= named
    assert [name for name in sorted(named) if not re.search(rf"^{name}:", makefile, flags=re.M)] == []
