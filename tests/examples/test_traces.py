"""The traces that the demonstration draws, what it finds wrong with them, and the shop without an SDK."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from examples.visitor.traces import Seen, Span, tree

ROOT = Path(__file__).resolve().parents[2]


def span(name: str, span_id: str, parent_id: str | None, start: int, end: int, **more: Any) -> Span:
    attributes = {f"sqlacache.{key}": value for key, value in more.pop("says", {}).items()}
    trace = {"worker": "worker A", "trace_id": "t", **more}
    return Span(
        name=name,
        span_id=span_id,
        parent_id=parent_id,
        start=start * 1_000_000,
        end=end * 1_000_000,
        attributes=attributes,
        links=trace.pop("links", ()),
        **trace,
    )


def seen() -> Seen:
    phases = {"outcome": "applied", "phase_one_s": 0.001, "commit_s": 0.002, "phase_two_s": 0.003}
    missed = {"decision": "miss", "reason": "row_invalidated", "fill": "stored"}
    return Seen(
        written=[
            span("sqlacache.invalidate users", "w2", "w1", 12, 19, says=phases),
            span("UPDATE (database)", "w3", "w1", 11, 12),
            span("PATCH /users/{id}", "w1", "the visitor", 10, 20),
        ],
        heard=[span("sqlacache.receive users", "h1", None, 19, 20, links=("w2",), says={"lag_s": 0.0005})],
        read=[
            span("GET /users/{id}", "r1", "the visitor", 30, 40),
            span("sqlacache.lookup SELECT users", "r2", "r1", 31, 39, links=("w2",), says=missed),
            span("SELECT (database)", "r3", "r2", 32, 38),
        ],
        again=[
            span("GET /users/{id}", "a1", "the visitor", 50, 53),
            span(
                "sqlacache.lookup SELECT users", "a2", "a1", 51, 52, says={"decision": "hit", "tier": "local"}
            ),
        ],
    )


def test_a_trace_is_drawn_as_a_tree_in_the_order_of_time() -> None:
    assert seen().wrong() == ""
    assert list(seen().told()) == [
        "The write, as a trace (worker A, trace t):",
        "  | PATCH /users/{id}                10.00 ms",
        "  | ├─ UPDATE (database)              1.00 ms",
        "  | └─ sqlacache.invalidate users     7.00 ms  phase one 1.00 ms, COMMIT 2.00 ms, phase two 3.00 ms",
        "and in the other worker, linked to it (worker A, trace t):",
        "  | sqlacache.receive users     1.00 ms  0.50 ms after it was announced -> sqlacache.invalidate of worker A",
        "The read that missed because of it (worker A, trace t):",
        "  | GET /users/{id}                     10.00 ms",
        "  | └─ sqlacache.lookup SELECT users     8.00 ms  "
        "miss (row_invalidated) fill stored -> sqlacache.invalidate of worker A",
        "  |    └─ SELECT (database)              6.00 ms",
        "and the same read again (worker A, trace t):",
        "  | GET /users/{id}                      3.00 ms",
        "  | └─ sqlacache.lookup SELECT users     1.00 ms  hit (local)",
    ]


def test_branches_go_on_below_those_that_have_siblings() -> None:
    spans = [
        span("root", "1", None, 0, 9),
        span("first", "2", "1", 1, 4),
        span("inner", "3", "2", 2, 3),
        span("second", "4", "1", 5, 6),
    ]
    names = [line.rpartition("  ")[0].rsplit(None, 2)[0] for line in tree(spans, {})]
    assert [line.split("   ")[0] for line in tree(spans, {})][1:] == [
        "├─ first",
        "│  └─ inner",
        "└─ second",
    ], names


def changed(spans: list[Span], span_id: str, **values: Any) -> list[Span]:
    return [one._replace(**values) if one.span_id == span_id else one for one in spans]


@pytest.mark.parametrize(
    ("part", "values", "wrong"),
    [
        ("read", ("r2", {"links": ()}), "sqlacache.lookup SELECT users of worker A is not linked"),
        ("heard", ("h1", {"links": ("r1",)}), "sqlacache.receive users of worker A is not linked"),
        ("read", ("r3", {"parent_id": "r1"}), "the load is no child of the miss"),
        ("read", ("r2", {"attributes": {"sqlacache.reason": "absent"}}), "did not miss because of the write"),
        (
            "read",
            ("r3", {"name": "sqlacache.lookup SELECT more"}),
            "2 spans of the lookup in the read, not one",
        ),
        ("written", ("w2", {"attributes": {"sqlacache.outcome": "refused"}}), "is not applied"),
        ("written", ("w2", {"name": "?"}), "0 spans of the invalidation in the write"),
        ("again", ("a2", {"attributes": {"sqlacache.decision": "miss"}}), "the second read is no hit"),
        ("read", ("r3", {"end": 99_000_000}), "not within their parents: SELECT (database)"),
    ],
    ids=["link", "received", "nesting", "reason", "lookups", "refused", "none", "again", "times"],
)
def test_what_is_wrong_with_a_trace_is_found(part: str, values: Any, wrong: str) -> None:
    span_id, new = values
    spoilt = seen()._replace(**{part: changed(getattr(seen(), part), span_id, **new)})
    assert wrong in spoilt.wrong()


WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("opentelemetry.sdk"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
from examples.shop import tracing
from examples.shop.app import create_app

paths = create_app().openapi()["paths"]
assert tracing.set_up() is None
assert "/products/{product_id}" in paths and "/traces" not in paths, paths
"""


def test_the_shop_runs_without_an_sdk() -> None:
    path = os.pathsep.join([str(ROOT), str(ROOT / "telemetry")])
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_an_sdk_that_is_switched_off_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from examples.shop import tracing

    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert tracing.set_up() is None
