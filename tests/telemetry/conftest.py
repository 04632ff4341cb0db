"""Servers of the tests that look at telemetry from outside."""

from __future__ import annotations

from tests.support.prometheus import start_prometheus as start_prometheus
