"""What requests left behind: records in the log, and headers."""

from __future__ import annotations

import re
from typing import Any


def counts(record: dict[str, Any]) -> tuple[int, int, int]:
    return record["hits"], record["misses"], sum(record["bypasses"].values())


def timing(header: str) -> dict[str, dict[str, str]]:
    """Parse a ``Server-Timing`` header by the grammar of the W3C, of which all must be understood."""
    token = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
    quoted = r'"(?:[^"\\]|\\.)*"'
    metric = re.compile(rf"\s*({token})((?:\s*;\s*{token}\s*=\s*(?:{token}|{quoted}))*)\s*(?:,|$)")
    found, at = {}, 0
    while at < len(header):
        match = metric.match(header, at)
        assert match, header[at:]
        parameters = re.findall(rf"({token})\s*=\s*({token}|{quoted})", match[2])
        found[match[1]] = {name: value.strip('"') for name, value in parameters}
        at = match.end()
    return found
