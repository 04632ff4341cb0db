"""The rules of Prometheus: what ``promtool`` says of them, what each is explained by, and their unit tests."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from dashboards import alerts, recording
from dashboards.files import ALERTS, RECORDING, ROOT, RULES
from dashboards.pace import ORDINARY, Pace
from tests.support.postgres import Unavailable
from tests.support.programs import missing
from tests.support.prometheus import promtool

yaml = pytest.importorskip("yaml")

UNIT_TESTS = RULES / "alerts.test.yaml"
CONFIGURATION = RULES / "prometheus.yaml"
RUNBOOK = ROOT / "docs" / "runbook.md"
ALERT_NAMES = [alert.name for alert in alerts.rules()]


def _promtool(*arguments: Any) -> tuple[int, str]:
    try:
        done = promtool(*arguments)
    except Unavailable as why:
        missing(why)
        raise
    return done.returncode, done.stdout + done.stderr


def _entry(alert: str) -> str:
    parts = re.split(r"^## (\S+)$", RUNBOOK.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[alert]


@pytest.mark.integration
def test_promtool_takes_the_rules_and_the_configuration() -> None:
    for arguments in (("check", "rules", RECORDING, ALERTS), ("check", "config", CONFIGURATION)):
        status, said = _promtool(*arguments)
        assert status == 0, said


@pytest.mark.integration
def test_alerts_fire_and_do_not_fire_as_their_unit_tests_say() -> None:
    status, said = _promtool("test", "rules", UNIT_TESTS)
    assert status == 0, said


@pytest.mark.integration
@pytest.mark.parametrize("instead", ["never", "always"])
def test_alerts_that_fire_never_or_always_fail_their_unit_tests(tmp_path: Path, instead: str) -> None:
    for path in (RECORDING, UNIT_TESTS):
        shutil.copy(path, tmp_path)
    broken = yaml.safe_load(ALERTS.read_text())
    for rule in broken["groups"][0]["rules"]:
        if instead == "never":
            rule["expr"] = f"({rule['expr']}) and vector(0) > 1"
        else:
            rule["expr"] = re.sub(r"(?<![=!])[<>] [\d.]+", ">= -1", rule["expr"].replace("*", "* 0 *"))
            rule.pop("for", None)
    (tmp_path / ALERTS.name).write_text(yaml.safe_dump(broken))
    status, said = _promtool("test", "rules", tmp_path / UNIT_TESTS.name)
    assert status != 0
    failed = set(re.findall(r'expr: "ALERTS\{alertname=\\"(\w+)', said))
    assert failed == set(ALERT_NAMES)


def test_every_alert_has_a_unit_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    groups = yaml.safe_load(UNIT_TESTS.read_text())["tests"]
    for name in ALERT_NAMES:
        fires = [
            any(test["exp_samples"] for test in group["promql_expr_test"])
            for group in groups
            if group["name"].startswith(f"{name}: ")
        ]
        assert any(fires), name
        quiet = [
            test
            for group in groups
            if group["name"].startswith(f"{name}: ")
            for test in group["promql_expr_test"]
            if not test["exp_samples"]
        ]
        assert quiet, name


def test_every_alert_has_a_severity_a_text_and_an_entry_in_the_runbook() -> None:
    for rule in yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]:
        assert rule["labels"] == {"severity": rule["labels"]["severity"]}
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
        entry = _entry(rule["alert"])
        for part in ("**Means:**", "**Look:**", "**Do:**"):
            assert part in entry, f"{rule['alert']}: {part}"


def test_the_runbook_has_no_entry_that_no_alert_leads_to() -> None:
    assert re.findall(r"^## (Sqlacache\w+)$", RUNBOOK.read_text(), re.MULTILINE) == ALERT_NAMES


def test_the_runbook_tells_every_threshold() -> None:
    told = RUNBOOK.read_text()
    assert [name for name in alerts.Thresholds.__dataclass_fields__ if f"`{name}`" not in told] == []


def test_alerts_compare_what_is_recorded() -> None:
    recorded = {rule.name for rule in recording.rules()}
    used = {name for alert in alerts.rules() for name in re.findall(r"job_cache\w*:[\w:]+", alert.expression)}
    assert used <= recorded
    assert recorded - used == set()


def test_a_quicker_pace_changes_nothing_but_durations() -> None:
    duration = re.compile(r"\d+(?:ms|h|m)\b")
    for module in (recording, alerts):
        ordinary, quick = module.written(ORDINARY), module.written(Pace(minute=0.4))
        assert duration.sub("DURATION", ordinary) == duration.sub("DURATION", quick)
        assert ordinary != quick
