"""Rules of Prometheus, and the YAML that it reads them from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["critical", "warning", "info"]


@dataclass(frozen=True)
class Recording:
    """An expression that is evaluated again and again, and kept under a name."""

    name: str
    expression: str


@dataclass(frozen=True)
class Alert:
    """A condition that somebody has to be told of, once it has lasted."""

    name: str
    severity: Severity
    expression: str
    lasting: str
    """A duration; empty: at once."""
    summary: str
    description: str

    @property
    def runbook(self) -> str:
        """Its heading in the runbook, as a link names it."""
        return f"{RUNBOOK}#{self.name.lower()}"


RUNBOOK = "docs/runbook.md"
"""Where runbook_url points to: put your own address before it, or here."""


def written(head: str, group: str, rules: Sequence[Recording | Alert]) -> str:
    """Return a file of one group of rules."""
    lines = [
        *(f"# {line}".rstrip() for line in head.splitlines()),
        "groups:",
        f"  - name: {group}",
        "    rules:",
    ]
    for rule in rules:
        lines += [f"      {line}".rstrip() for line in _rule(rule)]
    return "\n".join([*lines, ""])


def _rule(rule: Recording | Alert) -> Iterator[str]:
    yield f"- record: {rule.name}" if isinstance(rule, Recording) else f"- alert: {rule.name}"
    yield "  expr: |"
    yield from (f"    {line}" for line in rule.expression.splitlines())
    if isinstance(rule, Alert):
        if rule.lasting:
            yield f"  for: {rule.lasting}"
        yield "  labels:"
        yield f"    severity: {rule.severity}"
        yield "  annotations:"
        yield f"    summary: {json.dumps(rule.summary)}"
        yield f"    description: {json.dumps(rule.description)}"
        yield f"    runbook_url: {json.dumps(rule.runbook)}"
