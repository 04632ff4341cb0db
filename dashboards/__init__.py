"""The Grafana dashboard and the Prometheus rules of sqlacache, as code: ``python -m dashboards`` writes them.

Names of metrics and span attributes are those of :mod:`sqlacache_telemetry.names`, and labels and their words are
looked up there: what is renamed there is renamed in what is written, and what is removed there makes this fail. The
rows of the dashboard are in :mod:`.why` and :mod:`.how`, the rules in :mod:`.recording` and :mod:`.alerts`, with the
thresholds on top of the latter.
"""
