"""Records as plain data, for JSON and for the pages alike, so that the two never differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime, timezone
from math import isfinite
from typing import Any

from sqlacache.decisions import Cause, Decision, Invalidation
from sqlacache.explain import Explanation
from sqlacache.reasons import BYPASSES, MISSES, Words


def decision_told(number: int, decision: Decision) -> dict[str, Any]:
    """Return a decision as plain data, under the names of its fields."""
    return {"number": number, **plain(decision), "because": because(decision.cause)}


def invalidation_told(number: int, invalidation: Invalidation) -> dict[str, Any]:
    """Return an invalidation as plain data, under the names of its fields."""
    return {"number": number, **plain(invalidation), "tables": list(invalidation.tables)}


def explanation_told(explanation: Explanation) -> dict[str, Any]:
    """Return an explanation as plain data, and as the text for people."""
    return {**plain(explanation.to_dict()), "text": str(explanation)}


def explained(decision: Decision) -> Explanation:
    """Return the explanation of what was decided, from its record alone."""
    return Explanation(
        decision=decision.decision,
        reason=decision.reason,
        detail="",
        op=decision.op,
        key=decision.key,
        tables=decision.tables,
        dependencies=decision.tags,
        changed=decision.changed,
        cause=decision.cause,
        age=decision.age,
        expires_in=None,
        rows=decision.rows,
        load_seconds=decision.load_seconds,
        size=decision.size,
        advice=_advice(decision),
        site=decision.site,
        parameters=decision.parameters,
    )


def _advice(decision: Decision) -> str:
    words: Mapping[Any, Words] = {**MISSES, **BYPASSES}
    if decision.reason not in words:
        return ""
    stamps = ", ".join(change.stamp for change in decision.changed) or "what it reads"
    return words[decision.reason].hit_if.format(changed=stamps)


def because(cause: Cause | None) -> str:
    """Return which write it was, in a few words: ``UPDATE users of users:42``."""
    if cause is None:
        return ""
    what = cause.statement or cause.cause
    return f"{what} of {', '.join(cause.keys)}" if cause.keys else what


def clock(at: float) -> str:
    """Return a time as explanations write it."""
    return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.2f}"


def json_of(data: Any) -> bytes:
    """Return plain ``data`` as JSON, of ASCII alone."""
    return (json.dumps(data, indent=1) + "\n").encode("ascii")


def plain(value: Any) -> Any:
    """Return a record as what JSON has a form for: fields by name, and as text whatever has none."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else str(value)
    if is_dataclass(value):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, (tuple, list, set, frozenset)):
        return [plain(each) for each in value]
    return str(value)
