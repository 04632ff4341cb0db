"""The pages in a real browser, served by a real server: what people see, and what hostile data cannot do there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from .served import PASSWORD, USER, application, served
from .shelf import HOSTILE, HOSTILE_TEXT

pytestmark = pytest.mark.integration

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


def unavailable(why: str) -> None:
    promised = os.environ.get("SQLACACHE_REQUIRE_SERVERS") == "1"
    (pytest.fail if promised else pytest.skip)(why)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, started once. Only here: while it is there, this thread can run no event loop of its own."""
    if CHROMIUM is None:
        unavailable("there is no chromium on PATH")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        unavailable(str(error))
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield started
        started.close()


@pytest.fixture(scope="module")
def address(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the application is served; its requests are made by :func:`call`."""
    with served(application(tmp_path_factory.mktemp("shelf"))) as found:
        yield found


def call(method: str, url: str, **params: str) -> Any:
    answer = httpx.request(method, url, params=params, timeout=30, trust_env=False)
    assert answer.is_success, answer.text
    return answer.json()


class Tab:
    """A page of the browser, and what it complained of."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.context = browser.new_context(base_url=address, **options)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("dialog", self._dialog)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("console", lambda said: self.complaints.append(f"{said.type}: {said.text}"))
        self.page.on("request", self._request)
        self.elsewhere: list[str] = []
        self._address = address

    def _dialog(self, dialog: Any) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _request(self, request: Any) -> None:
        if not request.url.startswith(self._address):
            self.elsewhere.append(request.url)


@pytest.fixture
def tab(browser: Any, address: str) -> Iterator[Tab]:
    """A tab in which nothing may go wrong, and which may ask nobody else."""
    opened = Tab(browser, address)
    yield opened
    cookies = opened.context.cookies()
    opened.context.close()
    assert opened.complaints == []
    assert opened.elsewhere == []
    assert cookies == []


def test_a_decision_of_a_real_request_is_clicked_and_names_the_write_that_caused_it(
    tab: Tab, address: str
) -> None:
    call("GET", f"{address}/books/5")
    call("PUT", f"{address}/books/5", title="changed")
    call("GET", f"{address}/books/5")
    page = tab.page
    page.goto("/sqlacache/")
    row = page.get_by_role("row").filter(has_text="row_invalidated").filter(has_text="books:5").first
    number = row.get_by_role("rowheader").inner_text()
    row.get_by_role("link").click()
    page.wait_for_url(f"**/sqlacache/decisions/{number}")
    assert page.get_by_role("heading", level=1).inner_text() == f"Decision {number}: miss (row_invalidated)"
    then, now = page.locator("pre").all_inner_texts()
    assert "UPDATE books of books:5 (title) at 20" in then
    assert f"by {os.getpid()}@" in then
    assert now.startswith("HIT: 1 row(s) would be served from the cache")
    told = call("GET", f"{address}/sqlacache/api/decisions/{number}")
    assert told["explanation"]["text"] == then
    page.get_by_role("link", name="As JSON").click()
    page.wait_for_url(f"**/sqlacache/api/decisions/{number}")


def test_the_list_is_filtered_by_its_form(tab: Tab, address: str) -> None:
    call("GET", f"{address}/books/6")
    call("GET", f"{address}/books/6")
    page = tab.page
    page.goto("/sqlacache/")
    page.get_by_label("Table", exact=True).fill("books")
    page.get_by_label("Decision").select_option("hit")
    page.get_by_label("Part of a key or tag").fill("books:6")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**/sqlacache/?table=books&decision=hit*")
    shown = page.locator("tbody tr")
    told = call("GET", f"{address}/sqlacache/api/decisions", table="books", decision="hit", key="books:6")
    assert shown.count() == len(told["decisions"]) == 1
    assert shown.get_by_role("rowheader").inner_text() == str(told["decisions"][0]["number"])
    assert page.get_by_label("Decision").input_value() == "hit"


def test_hostile_names_and_values_are_shown_as_text_and_run_nothing(tab: Tab, address: str) -> None:
    for value in ("<script>alert('value')</script>", "<svg onload=alert(3)>"):
        call("PUT", f"{address}/hostile", value=value)
    page = tab.page
    page.goto("/sqlacache/")
    row = page.get_by_role("row").filter(has_text=HOSTILE).first
    row.get_by_role("link").click()
    page.get_by_text(f"get of {HOSTILE}").first.wait_for()
    page.get_by_role("link", name="All decisions about").click()
    assert page.get_by_label("Table", exact=True).input_value() == HOSTILE
    page.goto("/sqlacache/invalidations")
    page.get_by_role("row").filter(has_text=HOSTILE).first.get_by_role("link").click()
    page.get_by_role("heading", name=HOSTILE).wait_for()
    page.goto("/sqlacache/explain")
    page.get_by_label("Key of an entry").fill(HOSTILE_TEXT)
    page.get_by_role("button", name="Explain").click()
    page.get_by_text("Not known").wait_for()
    assert page.locator("script, img, svg, b").count() == 1  # the pages' own script


def test_what_hostile_html_would_run_is_forbidden_and_would_be_noticed(browser: Any, address: str) -> None:
    tab = Tab(browser, address)
    tab.page.goto("/sqlacache/")
    with tab.page.expect_console_message() as said:
        tab.page.evaluate("document.body.innerHTML = '<img src=icon.svg onload=alert(1)>'")
    assert "Content Security Policy" in said.value.text
    assert len(tab.complaints) == 1
    tab.context.close()


def test_the_list_refreshes_by_itself_until_it_is_told_to_pause(tab: Tab, address: str) -> None:
    page = tab.page
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.install()
    page.goto("/sqlacache/?key=books:7&table=books")
    rows = page.locator("tbody tr")
    assert rows.all_inner_texts() == ["None of those that are kept."]
    call("GET", f"{address}/books/7")
    with page.expect_response("**/sqlacache/?*"):
        page.clock.run_for(2000)
    rows.filter(has_text="absent").wait_for()
    page.get_by_role("button", name="Pause refreshing").click()
    page.get_by_text("paused").wait_for()
    asked.clear()
    page.clock.run_for(20_000)
    assert asked == []
    call("GET", f"{address}/books/7")
    with page.expect_response("**/sqlacache/?*"):
        page.get_by_role("button", name="Resume refreshing").click()
    rows.filter(has_text="hit").wait_for()


def test_who_may_not_look_learns_nothing(browser: Any, address: str) -> None:
    call("GET", f"{address}/books/8")
    stranger = Tab(browser, address)
    for path in ("/guarded/", "/guarded/api/decisions", "/guarded/pages.css"):
        answer = stranger.page.goto(path)
        assert (answer.status, answer.text()) == (403, "forbidden\n")
    assert stranger.page.locator("body").inner_text().strip() == "forbidden"
    stranger.context.close()


def test_who_knows_the_password_is_asked_for_it_and_looks(browser: Any, address: str) -> None:
    call("GET", f"{address}/books/8")
    tab = Tab(browser, address, http_credentials={"username": USER, "password": PASSWORD})
    assert tab.page.goto("/by-password/").status == 200
    tab.page.get_by_role("cell", name="get books").first.wait_for()
    tab.page.get_by_role("link", name="Invalidations").click()
    tab.page.get_by_role("heading", name="Invalidations").wait_for()
    tab.context.close()


def test_without_scripts_everything_is_still_there_in_the_dark(browser: Any, address: str) -> None:
    call("GET", f"{address}/books/9")
    tab = Tab(browser, address, java_script_enabled=False, color_scheme="dark")
    page = tab.page
    page.goto("/sqlacache/?key=books:9")
    assert page.get_by_role("button", name="Pause").count() == 0
    table = page.get_by_role("table", name="1 decisions, newest first.")
    assert table.get_by_role("columnheader").count() == 10
    table.get_by_role("row").get_by_role("link").click()
    assert page.get_by_role("heading", level=1).inner_text().endswith("miss (absent)")
    page.get_by_role("link", name="Invalidations").click()
    assert page.get_by_role("link", name="Invalidations").get_attribute("aria-current") == "page"
    assert tab.complaints == []
    tab.context.close()
