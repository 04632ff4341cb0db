"""What is written where."""

from __future__ import annotations

from pathlib import Path

from . import alerts, recording

ROOT = Path(__file__).resolve().parents[1]
DASHBOARD = ROOT / "dashboards" / "sqlacache.json"
RULES = ROOT / "telemetry" / "prometheus"
RECORDING = RULES / "recording.rules.yaml"
ALERTS = RULES / "alerts.rules.yaml"


def made() -> dict[Path, str]:
    """Return each file's text, as this code makes it."""
    from . import board  # needs grafana-foundation-sdk, which the rest does without

    return {DASHBOARD: board.written(), RECORDING: recording.written(), ALERTS: alerts.written()}
