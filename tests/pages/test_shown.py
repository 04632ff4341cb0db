"""What the pages show of real reads and writes."""

from __future__ import annotations

import asyncio
import html
import os
import re
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from sqlacache_telemetry.pages import Pages

from .shelf import HOSTILE, HOSTILE_TEXT, Book, Hostile, Shelf, asking, in_json, shelf, sync_shelf


def rows(page: str) -> list[list[str]]:
    """The cells of each row in the body of a page's table, as text."""
    body = page.partition("<tbody>")[2].partition("</tbody>")[0]
    found = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S) for row in body.split("<tr>")[1:]]
    return [[html.unescape(re.sub(r"<[^>]*>", "", cell)).strip() for cell in row] for row in found]


async def test_a_decision_is_listed_and_its_page_names_the_write_that_caused_it(books: Shelf) -> None:
    pages = Pages(books.cache, development=True)
    await books.read()
    await books.read()
    await books.write("changed")
    await books.read()
    async with asking(pages) as client:
        listed = rows((await client.get("/")).text)
        assert [(row[0], row[2], row[3], row[4]) for row in listed] == [
            ("4", "miss", "row_invalidated", "get books"),
            ("3", "hit", "local", "get books"),
            ("2", "hit", "local", "get books"),
            ("1", "miss", "absent", "get books"),
        ]
        assert listed[0][6] == "UPDATE books of books:1"
        page = (await client.get("/decisions/4")).text
        told = in_json(await client.get("/api/decisions/4"))
        then, now = re.findall(r"<pre[^>]*>(.*?)</pre>", page, re.S)
        assert html.unescape(then) == told["explanation"]["text"]
        assert "MISS (row_invalidated): the entry is no longer valid since UPDATE books" in then
        assert "UPDATE books of books:1 (title) at 20" in then
        assert f"by {os.getpid()}@{socket.gethostname()}" in then
        assert "hit if" in then
        assert html.unescape(now).startswith("HIT: 1 row(s) would be served from the cache")
        key = told["decision"]["key"]
        explanation = str(await books.cache.explain_key(key))
        assert told["now"]["text"].splitlines()[:3] == explanation.splitlines()[:3]
        # Pages only look: what they asked was no read.
        assert len(rows((await client.get("/")).text)) == 4


async def test_what_is_told_in_json_is_what_the_page_shows(books: Shelf) -> None:
    pages = Pages(books.cache, development=True)
    for key in (1, 2, 1, 3):
        await books.read(key)
    await books.write("changed", 2)
    async with asking(pages) as client:
        for query in ("", "?decision=miss", "?key=books:2", "?limit=2", "?before=3"):
            shown = rows((await client.get(f"/{query}")).text)
            told = in_json(await client.get(f"/api/decisions{query}"))["decisions"]
            assert [(int(row[0]), row[2], row[5], row[6]) for row in shown] == [
                (one["number"], one["decision"], one["key"] or "", one["because"]) for one in told
            ]
            assert told
        shown = rows((await client.get("/invalidations")).text)
        told = in_json(await client.get("/api/invalidations"))["invalidations"]
        assert [(int(row[0]), row[2], row[5]) for row in shown] == [
            (one["number"], one["statement"], " ".join(one["changes"][0]["tags"])) for one in told
        ]


async def test_decisions_are_filtered_by_table_decision_reason_and_key(books: Shelf) -> None:
    pages = Pages(books.cache, development=True)
    await books.read(1)
    await books.read(1)
    async with books.session() as session:
        await session.execute(select(Hostile))
        await session.execute(select(func.random()).select_from(Book))
    async with asking(pages) as client:

        async def numbers(**wanted: str) -> list[int]:
            told = in_json(await client.get("/api/decisions", params=wanted))
            assert told["found"] == len(told["decisions"])
            return [one["number"] for one in told["decisions"]]

        assert await numbers() == [4, 3, 2, 1]
        assert await numbers(table="books") == [4, 2, 1]
        assert await numbers(table=HOSTILE) == [3]
        assert await numbers(decision="hit") == [2]
        assert await numbers(reason="nondeterministic") == [4]
        assert await numbers(table="books", reason="absent") == [1]
        assert await numbers(key="books:1") == [2, 1]
        assert await numbers(key="books:get:") == [2, 1]
        assert await numbers(table="", decision="", reason="", key="") == [4, 3, 2, 1]
        assert await numbers(table="no such table") == []
        none = await client.get("/", params={"table": "no such table"})
        assert rows(none.text) == [["None of those that are kept."]]


async def test_an_invalidation_shows_what_it_did_to_each_table(books: Shelf) -> None:
    pages = Pages(books.cache, development=True)
    await books.read()
    await books.write("changed")
    await books.cache.invalidate(Hostile)
    async with asking(pages) as client:
        by_cause = in_json(await client.get("/api/invalidations", params={"cause": "explicit"}))
        assert [one["tables"] for one in by_cause["invalidations"]] == [[HOSTILE]]
        by_table = in_json(
            await client.get("/api/invalidations", params={"table": "books", "key": "books:1"})
        )
        (one,) = by_table["invalidations"]
        assert one["statement"] == "UPDATE books"
        assert one["pid"] == os.getpid()
        page = (await client.get(f"/invalidations/{one['number']}")).text
        (change,) = rows(page[page.index("What it did") :])
        assert change == ["books", "row_update", "rows", "title", "books:1", "1", "1", "no"]


async def test_pages_say_of_which_process_they_are_and_what_they_dropped(books: Shelf) -> None:
    pages = Pages(books.cache, development=True, keep=3)
    for key in range(1, 9):
        await books.read(key)
    async with asking(pages) as client:
        told = in_json(await client.get("/api/decisions"))
        assert [one["number"] for one in told["decisions"]] == [8, 7, 6]
        process = told["process"]
        assert process["decisions"] == {"seen": 8, "kept": 3, "dropped": 5, "size": 3}
        assert (process["pid"], process["host"]) == (os.getpid(), socket.gethostname())
        page = (await client.get("/")).text
        assert "Seen 8, kept the last 3; numbers 1 to 5 are dropped." in page
        assert f"Of the process {os.getpid()}@{socket.gethostname()} alone, since 20" in page
        gone, coming = await client.get("/decisions/5"), await client.get("/decisions/9")
        assert (gone.status_code, coming.status_code) == (404, 404)
        assert "decision 5 is no longer kept" in gone.text
        assert "decision 9 has not been made" in coming.text


async def test_older_decisions_are_on_further_pages(books: Shelf) -> None:
    pages = Pages(books.cache, development=True)
    for key in range(1, 8):
        await books.read(key)
    async with asking(pages) as client:
        seen: list[int] = []
        path = "/api/decisions?limit=3&table=books"
        while path:
            told = in_json(await client.get(path))
            seen += [one["number"] for one in told["decisions"]]
            path = told["older"] and f"/api/decisions?{told['older']}"
    assert seen == [7, 6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize("exposed", [True, False], ids=["values exposed", "digests"])
async def test_hostile_names_and_values_are_text_on_every_page(tmp_path: Path, exposed: bool) -> None:
    async with shelf(tmp_path, expose_values=exposed, debug=True) as books:
        pages = Pages(books.cache, development=True)
        async with books.session() as session:
            row = await session.get(Hostile, HOSTILE_TEXT)
            assert row is not None
            row.value = "<script>alert(2)</script>"
            await session.commit()
        async with books.session() as session:
            await session.get(Hostile, HOSTILE_TEXT)
        async with asking(pages) as client:
            told = in_json(await client.get("/api/decisions"))["decisions"]
            assert told[0]["tables"] == [HOSTILE]
            paths = ["/", "/decisions/1", "/decisions/2", "/invalidations", "/invalidations/1", "/explain"]
            shown = {path for path in paths if "onerror=alert(1)" in (await client.get(path)).text}
            assert ("/decisions/1" in shown) is exposed
            assert exposed or shown == set()
            for path in paths:
                for params in ({}, {"key": told[0]["key"]}, {"key": HOSTILE_TEXT}):
                    page = (await client.get(path, params=params)).text
                    assert re.sub(r'<script src="[./]*pages.js" defer>', "", page).count("<script") == 0
                    assert "<img" not in page
                    assert "<b>" not in page
            listed = html.unescape((await client.get("/")).text)
            assert f"<td>get {HOSTILE}</td>" in listed


async def test_a_key_is_explained_as_the_cache_explains_it(books: Shelf) -> None:
    pages = Pages(books.cache, development=True)
    await books.read()
    key = pages._recent.decisions.newest_first()[0][1].key
    async with asking(pages) as client:
        told = in_json(await client.get("/api/explain", params={"key": key, "database": "shelf"}))
        assert told["now"]["text"].startswith("HIT: 1 row(s)")
        page = (await client.get("/explain", params={"key": key})).text
        assert "HIT: 1 row(s) would be served" in page
        for wrong, says in [
            ({"key": "users:get:0"}, "nothing is stored as 'users:get:0'"),
            ({"key": "<b>"}, "takes an entry's key"),
            ({"key": key, "database": "another"}, "takes a database that is bound (shelf), got 'another'"),
        ]:
            told = in_json(await client.get("/api/explain", params=wrong))
            assert told["now"] is None
            assert says in told["now_unknown"]
            assert "<b>" not in (await client.get("/explain", params=wrong)).text


async def test_when_the_backend_is_gone_the_pages_say_so_and_no_password(tmp_path: Path) -> None:
    async with shelf(tmp_path, backend="redis://:xyzzy@127.0.0.1:1/0") as books:
        pages = Pages(books.cache, development=True)
        await books.read()
        async with asking(pages) as client:
            told = in_json(await client.get("/api/decisions/1"))
            page = (await client.get("/decisions/1")).text
    assert told["decision"]["reason"] == "backend_unavailable"
    assert told["now_unknown"].startswith("the backend does not answer: ")
    assert "Not known: the backend does not answer: " in page
    assert "xyzzy" not in page + str(told)


async def test_with_debug_the_line_of_the_application_is_shown(tmp_path: Path) -> None:
    async with shelf(tmp_path, debug=True) as books:
        pages = Pages(books.cache, development=True)
        await books.read()
        await books.write("changed")
        await books.read()
        async with asking(pages) as client:
            told = in_json(await client.get("/api/decisions/3"))["decision"]
            assert told["site"]["file"].endswith("shelf.py")
            assert told["site"]["function"].endswith("read")
            page = (await client.get("/decisions/3")).text
            assert re.search(r"Called at</th><td>\S*shelf.py:\d+ in (Shelf\.)?read<", page)
            page = (await client.get("/invalidations/1")).text
            assert re.search(r"Called at</th><td>\S*shelf.py:\d+ in (Shelf\.)?write<", page)


def test_the_pages_of_a_blocking_cache_wait_in_a_thread(tmp_path: Path) -> None:
    with sync_shelf(tmp_path) as (cache, engine):
        pages = Pages(cache, development=True)
        for _ in range(2):
            with Session(engine) as session:
                session.get(Book, 1)
        loop_thread, explained_in = threading.get_ident(), []
        explain_key = cache.explain_key

        def watched(*arguments: Any) -> Any:
            explained_in.append(threading.get_ident())
            return explain_key(*arguments)

        cache.explain_key = watched

        async def look() -> Any:
            async with asking(pages) as client:
                return in_json(await client.get("/api/decisions/2"))

        told = asyncio.run(look())
    assert told["decision"]["decision"] == "hit"
    assert told["now"]["text"].startswith("HIT: 1 row(s)")
    assert explained_in
    assert loop_thread not in explained_in


async def test_threads_that_decide_at_once_lose_nothing(books: Shelf) -> None:
    pages = Pages(books.cache, development=True, keep=10_000)
    await books.read()
    ((_, decision),) = pages._recent.decisions.newest_first()

    def decide() -> None:
        for turn in range(1000):
            pages._recent.decided(decision, None)
            if turn % 100 == 0:
                pages._recent.decisions.counted()

    threads = [threading.Thread(target=decide) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pages._recent.decisions.counted()._asdict() == {
        "seen": 4001,
        "kept": 4001,
        "dropped": 0,
        "size": 10_000,
    }


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes fork here")
def test_a_forked_process_begins_with_nothing_of_its_parent(tmp_path: Path) -> None:
    with sync_shelf(tmp_path) as (cache, engine):
        pages = Pages(cache, development=True)
        with Session(engine) as session:
            session.get(Book, 1)
        engine.dispose()
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                seen = pages._recent.decisions.counted().seen
                os.write(writing, f"{pages._recent.pid} {os.getpid()} {seen}".encode())
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        told = os.read(reading, 100).decode().split()
        os.close(reading)
        os.close(writing)
        assert told == [str(child), str(child), "0"]
        assert pages._recent.decisions.counted().seen == 1


async def test_closed_pages_show_what_they_have_and_hear_no_more(books: Shelf) -> None:
    pages = Pages(books.cache, development=True)
    await books.read()
    pages.close()
    await books.read()
    async with asking(pages) as client:
        assert len(rows((await client.get("/")).text)) == 1
    assert not books.cache.observers
