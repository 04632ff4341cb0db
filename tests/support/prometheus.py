"""A real Prometheus server that scrapes what a test serves, asked through its HTTP API; and ``promtool``.

How to use it, in a test or a program::

    with prometheus_server({"shop": ["127.0.0.1:8000"]}) as prometheus:   # jobs and their targets
        ...                                                 # the workload
        prometheus.await_scrape()                           # a scrape that began after the workload is ingested
        assert prometheus.value("sum(sqlacache_hits_total)") == 3
        prometheus.by("sqlacache_misses_total", "table", "reason")   # {("products", "absent"): 2.0, ...}

With rules::

    with prometheus_server({"shop": [...]}, rules=[Path("rules.yaml")]) as prometheus:
        ...
        prometheus.await_scrape()
        prometheus.await_evaluation()                       # every group has been evaluated on those samples
        prometheus.value("sqlacache:hit_ratio:rate5m")
        prometheus.alerts()                                 # pending and firing ones, as the API gives them

:func:`prometheus_server` raises :class:`Unavailable` where there is no server on ``PATH``. In tests, take the fixture
``start_prometheus``, which skips the test then (or fails it when ``SQLACACHE_REQUIRE_SERVERS=1``) and takes the same
arguments; bring it into a ``conftest.py`` by ``from tests.support.prometheus import start_prometheus as
start_prometheus``. ``configured`` is merged over the configuration made here, whose keys are Prometheus' own::

    prometheus_server({}, configured={"scrape_configs": [...], "alerting": {...}})

**The first scrape comes 5 s after the start**, and one of a new target 5 s after :meth:`PrometheusServer.reload`:
Prometheus gathers news of targets for so long, which cannot be set. It is idle waiting: start the server first, with
addresses (:func:`~tests.support.processes.free_port`) at which your programs listen later; use one server for many
tests (a fixture of a module or session over :func:`prometheus_server`), with one job for each: its targets may be down.

Nothing sleeps to be on the safe side. A sample has the time at which its scrape began, by this machine's clock: when
``timestamp(up)`` of a target is later than the moment when the workload ended, everything that the workload counted is
in what that scrape brought. Targets in the test's own event loop would wait for a test that waits for them: serve
them in a thread or process, or call what is here with ``asyncio.to_thread``. All calls block, usually for one or
two scrape intervals (200 ms unless given).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from .postgres import Unavailable
from .processes import Kept, free_port, memory_folder, until
from .programs import started

__all__ = ["PrometheusServer", "Unavailable", "prometheus_server", "promtool", "start_prometheus"]

INTERVAL = "200ms"
OPTIONS = (
    "--web.enable-lifecycle",  # reload()
    "--no-scrape.adjust-timestamps",  # a sample's time is when its scrape began, to the millisecond
    "--scrape.discovery-reload-interval=100ms",  # not a second 5 s after those of its discovery of targets
    "--enable-feature=exemplar-storage",
    "--log.level=info",
)

Jobs = Mapping[str, Sequence[str]]


def _binary(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Unavailable(f"no {name} on PATH (Debian and Ubuntu have it in the package prometheus)")
    return found


def promtool(*arguments: Any, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``promtool`` with these arguments and ``given`` on its standard input; return how it ended, and what it said.

    Raises :class:`Unavailable` when there is none on ``PATH``.
    """
    command = [_binary("promtool"), *map(str, arguments)]
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=60)


@contextmanager
def prometheus_server(
    jobs: Jobs,
    *,
    interval: str = INTERVAL,
    rules: Sequence[Path] = (),
    configured: Mapping[str, Any] | None = None,
    options: Sequence[str] = (),
    store: Path | None = None,
) -> Iterator[PrometheusServer]:
    """Run a server for the time of the block, its store empty unless given; it answers when the block begins.

    Args:
        jobs: What to scrape at ``/metrics``: names of jobs, and addresses such as ``127.0.0.1:8000``.
        interval: Of scrapes and of rules, in Prometheus' words, such as ``100ms``.
        rules: Rule files.
        configured: Further top-level keys of its configuration; they replace those made here.
        options: Further command line options.
        store: A folder of blocks, such as ``promtool`` makes, that its store begins with.

    Raises :class:`Unavailable` when there is no server here, or it does not start.
    """
    binary = _binary("prometheus")
    home = Path(tempfile.mkdtemp(prefix="sqlacache-prometheus-", dir=memory_folder()))
    server = PrometheusServer(binary, home, interval, rules, configured or {}, options)
    if store is not None:
        shutil.copytree(store, home / "data")
    try:
        server._start(jobs)
        yield server
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def start_prometheus() -> Iterator[Callable[..., PrometheusServer]]:
    """Give :func:`prometheus_server` as a function; the servers that it starts end with the test."""
    with ExitStack() as stack:

        def start(jobs: Jobs, **options: Any) -> PrometheusServer:
            server: PrometheusServer = started(stack, prometheus_server(jobs, **options))
            return server

        yield start


class PrometheusServer:
    """A Prometheus server; made by :func:`prometheus_server`, running when the block begins."""

    def __init__(
        self,
        binary: str,
        home: Path,
        interval: str,
        rules: Sequence[Path],
        configured: Mapping[str, Any],
        options: Sequence[str],
    ) -> None:
        self.home = home
        """The folder of its data, its configuration and its log."""
        self.port = 0
        self._binary = binary
        self._interval = interval
        self._rules = rules
        self._configured = configured
        self._options = options
        self._process: Kept | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What the server has logged."""
        path = self.home / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    # -- its process ---------------------------------------------------------------------------------------------------

    def _start(self, jobs: Jobs) -> None:
        self._configure(jobs)
        for _ in range(5):
            self.port = free_port()
            seen = len(self.log)
            command = [
                self._binary,
                *OPTIONS,
                f"--config.file={self.home / 'prometheus.yml'}",
                f"--storage.tsdb.path={self.home / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                *self._options,
            ]
            process = self._process = Kept(command, folder=self.home, log=self.home / "log")
            up = partial(self._is_up, process, seen)
            if until(up, "Prometheus to start", patience=60) == "up":
                return
            self.stop()
        raise Unavailable(f"{self._binary} found no port: {self.log[-2000:]}")

    def _is_up(self, process: Kept, seen: int) -> str | None:
        if process.state() == "Z":
            if "address already in use" in self.log[seen:]:
                return "taken"
            raise Unavailable(f"{self._binary} ended at once: {self.log[-2000:]}")
        try:
            self._send("/-/ready")
        except urllib.error.URLError:
            return None  # not listening yet, or replaying
        # Somebody else's may have the port: ours will say that it is taken, and end.
        return "up" if self._ask("status/flags", {})["storage.tsdb.path"] == str(self.home / "data") else None

    def _configure(self, jobs: Jobs) -> None:
        configuration = {
            "global": {
                "scrape_interval": self._interval,
                "scrape_timeout": self._interval,
                "evaluation_interval": self._interval,
            },
            "rule_files": [str(path.resolve()) for path in self._rules],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": list(targets)}]}
                for job, targets in jobs.items()
            ],
            **self._configured,
        }
        (self.home / "prometheus.yml").write_text(json.dumps(configuration))  # which is YAML, too

    def reload(self, jobs: Jobs) -> None:
        """Scrape ``jobs`` from now on (new targets in 5 s), and read the rule files anew."""
        self._configure(jobs)
        self._send("/-/reload", posted=True)

    def stop(self) -> None:
        """End the server; one that has ended stays so."""
        process, self._process = self._process, None
        if process is not None:
            process.end("KILL")

    # -- waiting -------------------------------------------------------------------------------------------------------

    def await_scrape(
        self, after: float | None = None, *, job: str | None = None, up: bool = True, patience: float = 30.0
    ) -> None:
        """Wait until every target was scraped, beginning after a moment, and the samples are there to be asked for.

        Args:
            after: The moment, in seconds since the epoch; now if not given.
            job: Of the targets of this job alone.
            up: Whether that scrape must have succeeded, or failed.
        """
        moment = time.time() if after is None else after
        chosen = f'{{job="{job}"}}' if job else ""
        until(
            lambda: self._scraped(moment, job, chosen, up),
            f"a scrape after {moment} with up={int(up)} of every target, not {self.targets()}",
            patience,
        )

    def _scraped(self, moment: float, job: str | None, chosen: str, up: bool) -> bool:
        wanted = [one for one in self.targets() if job in (None, one["labels"]["job"])]
        # Not timestamp(up == 1), which is the time of the query: only of a selector does it give the sample's.
        found = self.by(f"timestamp(up{chosen}) and up == {int(up)}", "job", "instance")
        return bool(wanted) and len(found) == len(wanted) and min(found.values()) > moment

    def await_evaluation(self, after: float | None = None, *, patience: float = 30.0) -> None:
        """Wait until every group of rules has been evaluated at a time after a moment (now if not given)."""
        moment = time.time() if after is None else after
        until(lambda: self._evaluated(moment), f"an evaluation of every group after {moment}", patience)

    def _evaluated(self, moment: float) -> bool:
        # An evaluation is of a time up to one interval before it began.
        groups = self.groups()
        return bool(groups) and all(
            _seconds(group["lastEvaluation"]) - group["interval"] > moment for group in groups
        )

    # -- asking --------------------------------------------------------------------------------------------------------

    def query(self, expression: str, at: float | None = None) -> list[dict[str, Any]]:
        """Return the result of an instant query, by now or ``at`` a time: a vector as the API gives it.

        Raises :class:`ValueError` with what the server said when it does not understand the expression.
        """
        asked = {"query": expression} | ({} if at is None else {"time": at})
        result = self._ask("query", asked)
        if result["resultType"] == "scalar":
            return [{"metric": {}, "value": result["result"]}]
        found: list[dict[str, Any]] = result["result"]
        return found

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """Return the result of a range query (seconds since the epoch, step in seconds): a matrix."""
        asked = {"query": expression, "start": start, "end": end, "step": step}
        found: list[dict[str, Any]] = self._ask("query_range", asked)["result"]
        return found

    def value(self, expression: str) -> float:
        """Return the only sample of an instant query; 0 when there is none."""
        found = self.query(expression)
        if len(found) > 1:
            raise ValueError(f"{expression} has {len(found)} values: {found}")
        return float(found[0]["value"][1]) if found else 0.0

    def by(self, expression: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Return the samples of an instant query by the values of some labels, those that share them added up."""
        found: dict[tuple[str, ...], float] = {}
        for sample in self.query(expression):
            place = tuple(sample["metric"].get(label, "") for label in labels)
            found[place] = found.get(place, 0.0) + float(sample["value"][1])
        return found

    def targets(self) -> list[dict[str, Any]]:
        """Return the active targets: ``scrapeUrl``, ``health``, ``lastError``, ``labels``, ..."""
        found: list[dict[str, Any]] = self._ask("targets", {"state": "active"})["activeTargets"]
        return found

    def groups(self) -> list[dict[str, Any]]:
        """Return the groups of rules, each with its ``rules``, their ``health`` and ``lastError``."""
        found: list[dict[str, Any]] = self._ask("rules", {})["groups"]
        return found

    def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts that are pending or firing: ``labels``, ``annotations``, ``state``, ``value``."""
        found: list[dict[str, Any]] = self._ask("alerts", {})["alerts"]
        return found

    def exemplars(self, expression: str) -> list[dict[str, Any]]:
        """Return the exemplars of the last hour: ``seriesLabels`` and ``exemplars``."""
        now = time.time()
        asked = {"query": expression, "start": now - 3600, "end": now + 1}
        found: list[dict[str, Any]] = self._ask("query_exemplars", asked)
        return found

    def _ask(self, what: str, asked: Mapping[str, Any]) -> Any:
        try:
            said = self._send(f"/api/v1/{what}?{urlencode(asked)}")
        except urllib.error.HTTPError as error:
            raise ValueError(f"{what} {dict(asked)}: {error.read().decode()}") from error
        return json.loads(said)["data"]

    def _send(self, path: str, *, posted: bool = False) -> bytes:
        request = urllib.request.Request(f"{self.url}{path}", method="POST" if posted else "GET")
        with urllib.request.urlopen(request, timeout=10) as reply:
            said: bytes = reply.read()
            return said


def _seconds(written: str) -> float:
    """Return a time of the API, with more digits than Python 3.10 reads, in seconds since the epoch."""
    text = re.sub(r"(\.\d{1,6})\d*", r"\1", written.replace("Z", "+00:00"))
    text = re.sub(r"\.(\d+)", lambda found: f".{found[1]:0<6}", text)
    return datetime.fromisoformat(text).timestamp()
