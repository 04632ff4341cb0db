"""The classes of grafana-foundation-sdk that draw the dashboard, in its classic form.

Importing some of them warns that a newer form of dashboards is preferred. The classic one is what every Grafana that is
in use imports and provisions, so that the warning says nothing to us, and would fail tests.
"""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.builders import common as parts
    from grafana_foundation_sdk.builders import dashboard, prometheus, stat, table, tempo, timeseries
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models import common, units
    from grafana_foundation_sdk.models import dashboard as models
    from grafana_foundation_sdk.models import tempo as traces

__all__ = [
    "JSONEncoder",
    "common",
    "dashboard",
    "models",
    "parts",
    "prometheus",
    "stat",
    "table",
    "tempo",
    "timeseries",
    "traces",
    "units",
]
