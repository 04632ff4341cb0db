"""Records: a closed list of events, each with its fields, in the code as in the document."""

from __future__ import annotations

import ast
import logging
from pathlib import Path
from typing import Any

import pytest

from sqlacache import logs

ROOT = Path(__file__).resolve().parents[2]
BY_CONSTANT = {name: value for name, value in vars(logs).items() if isinstance(value, logs.Event)}
OF_TELEMETRY = {logs.PAGES_FAILED, logs.PAGES_AUTH_FAILED, logs.REQUEST}
_RESERVED = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "event"}


def calls(folder: str) -> list[tuple[str, ast.Call]]:
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                found.append((f"{path.relative_to(ROOT)}:{node.lineno}", node))
    return found


def called(node: ast.Call) -> str:
    function = node.func
    return ast.unparse(function)


def test_every_event_is_listed_once_and_its_fields_are_none_of_loggings_own() -> None:
    assert set(BY_CONSTANT.values()) == set(logs.EVENTS)
    assert len({event.name for event in logs.EVENTS}) == len(logs.EVENTS) == len(BY_CONSTANT)
    for event in logs.EVENTS:
        assert event.name.startswith("sqlacache.")
        assert not _RESERVED.intersection(event.fields)
        assert event.logger == "sqlacache" or event.logger.startswith("sqlacache.")


def test_the_engine_logs_events_of_the_list_with_all_of_their_fields_and_by_no_other_way() -> None:
    used = set()
    for place, node in calls("sqlacache"):
        if called(node) == "log":
            assert isinstance(node.args[0], ast.Name), place
            event = BY_CONSTANT[node.args[0].id]
            given = {keyword.arg for keyword in node.keywords} - {"exc_info"}
            assert given == set(event.fields), place
            used.add(event)
        elif not place.startswith("sqlacache/logs.py"):
            name = called(node)
            assert not name.startswith(("logger.", "logging.", "_logger.", "warnings.warn")), place
    assert used == set(logs.EVENTS) - OF_TELEMETRY


def test_the_telemetry_logs_events_of_the_list() -> None:
    used = set()
    for place, node in calls("telemetry/sqlacache_telemetry"):
        if called(node).startswith("logger.") and called(node) != "logger.isEnabledFor":
            (extra,) = [keyword.value for keyword in node.keywords if keyword.arg == "extra"]
            assert isinstance(extra, ast.Dict), place
            fields = {ast.literal_eval(key): value for key, value in zip(extra.keys, extra.values) if key}
            constant = ast.unparse(fields.pop("event")).removesuffix(".name")
            event = BY_CONSTANT[constant]
            assert set(event.fields) <= set(fields), place
            used.add(event)
    assert used == OF_TELEMETRY


def test_the_document_lists_them_as_they_are() -> None:
    text = (ROOT / "docs" / "logs.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `sqlacache.")]
    assert rows == [
        f"| `{event.name}` | {logging.getLevelName(event.level)} | "
        f"{', '.join(f'`{field}`' for field in event.fields)} | {event.when} |"
        for event in logs.EVENTS
    ]


def test_a_record_has_its_event_its_fields_and_the_place_it_is_from(caplog: pytest.LogCaptureFixture) -> None:
    logs.log(logs.CALL_UNBOUND, "%s said", "shop", cache="shop", call="touched")
    (record,) = caplog.records
    fields: Any = record
    assert (record.name, record.levelno, record.getMessage()) == ("sqlacache", logging.WARNING, "shop said")
    assert (fields.event, fields.cache, fields.call) == ("sqlacache.call.unbound", "shop", "touched")
    assert record.filename == "test_events.py"


def test_what_could_flood_passes_once_a_minute_and_says_how_many_did_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(logs.time, "monotonic", lambda: now)
    seldom = logs.Seldom()
    assert [seldom.passes() for _ in range(5)] == [0, None, None, None, None]
    now += logs.SELDOM - 1
    assert seldom.passes() is None
    now += 1
    assert [seldom.passes() for _ in range(2)] == [5, None]
