"""What ``docs/pages.md`` says is so."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from sqlacache.logs import REQUEST
from sqlacache_telemetry.middleware import RequestMiddleware
from sqlacache_telemetry.pages import Pages

from .shelf import Shelf, asking, in_json

DOCUMENT = (Path(__file__).parents[2] / "docs" / "pages.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return DOCUMENT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


async def test_every_field_of_a_request_s_record_is_documented(
    books: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(*given: Any) -> None:
        await books.read()

    caplog.set_level(logging.INFO, REQUEST.logger)
    await RequestMiddleware(app, books.cache)({"type": "http", "method": "GET", "path": "/"}, None, None)  # type: ignore[arg-type]  # unused
    (record,) = caplog.records
    ordinary = set(vars(logging.makeLogRecord({}))) | {"message", "taskName"}
    rows = re.findall(r"^\| (`.*?) \|", section("What each request did"), re.M)
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert set(vars(record)) - ordinary == documented
    assert {"event", *REQUEST.fields} <= documented
    assert (record.name, record.levelno, record.__dict__["event"]) == (
        REQUEST.logger,
        REQUEST.level,
        REQUEST.name,
    )


async def test_every_path_of_the_json_answers_as_documented(books: Shelf) -> None:
    pages = Pages(books.cache, development=True, keep=7)
    for number in range(2):
        await books.read()
        await books.write(f"changed {number}")
    paths = re.findall(r"^\| `(api/\S+)` \| (.*) \|$", section("JSON"), re.M)
    assert len(paths) == 5
    async with asking(pages) as client:
        for path, answers in paths:
            names = set(re.findall(r"`(\w+)`", answers)) - {"now_unknown"} | {"process"}
            asked = path.replace("7", "2")
            assert names <= set(in_json(await client.get(f"/{asked}"))), path
            parameters = set(re.findall(r"(\w+)=", path))
            unknown = in_json(await client.get(f"/{asked.partition('?')[0]}?color=red"))
            if parameters:
                assert set(re.findall(r"\w+", unknown["error"].partition("takes ")[2])) == parameters


@pytest.mark.parametrize(
    ("number", "right", "status"),
    [(0, "Bearer right", 403), (1, "Basic b3BzOnJpZ2h0", 401)],
    ids=["a bearer token", "a password"],
)
async def test_the_recipes_let_those_in_who_may_look_and_nobody_else(
    unbound: Any, monkeypatch: pytest.MonkeyPatch, number: int, right: str, status: int
) -> None:
    monkeypatch.setenv("OPS_TOKEN", "right")
    monkeypatch.setenv("OPS_PASSWORD", "right")
    blocks = re.findall(r"```python\n(.*?)```", section("Who may look"), re.S)
    made: list[Pages] = []

    def making(*given: Any, **options: Any) -> Pages:
        made.append(Pages(*given, **options))
        return made[-1]

    names: dict[str, Any] = {"cache": unbound, "app": FastAPI(), "Pages": making}
    for block in blocks[: number + 1]:
        exec(block, names)
    async with asking(made[number]) as client:
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": right.lower()}):
            assert (await client.get("/", headers=given)).status_code == status
        assert (await client.get("/", headers={"Authorization": right})).status_code == 200
