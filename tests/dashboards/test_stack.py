"""The files of the stack to look at: checked as far as that goes without a container engine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from dashboards.files import DASHBOARD, ROOT
from sqlacache_telemetry import names

yaml = pytest.importorskip("yaml")
pytest.importorskip("check_jsonschema")

TELEMETRY = ROOT / "telemetry"
COMPOSE = TELEMETRY / "compose.yaml"
PROVISIONED = TELEMETRY / "grafana-provisioning"


def _read(path: Any) -> Any:
    return yaml.safe_load(path.read_text())


STACK = _read(COMPOSE)


@pytest.mark.parametrize("path", ["compose.yaml", "telemetry/compose.yaml"])
def test_compose_files_are_as_their_schema_says(path: str) -> None:
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        ROOT / path,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_images_are_of_one_version_each() -> None:
    for name, service in STACK["services"].items():
        if "image" in service:
            assert re.search(r":v?\d+\.\d+(\.\d+)?(-\w+)?$", service["image"]), name


def test_every_mounted_file_is_there() -> None:
    for service in STACK["services"].values():
        for volume in service.get("volumes", ()):
            assert (TELEMETRY / volume.split(":")[0]).exists(), volume
        if "build" in service:
            assert (TELEMETRY / service["build"]["context"] / service["build"]["dockerfile"]).exists()


def test_services_speak_to_services_that_there_are() -> None:
    texts = [COMPOSE, *TELEMETRY.glob("collector/*.yaml"), *PROVISIONED.glob("*/*.yaml")]
    texts.append(TELEMETRY / "prometheus" / "prometheus.yaml")
    for path in texts:
        text = "\n".join(line.partition("# ")[0] for line in path.read_text().splitlines())
        hosts = re.findall(
            r"\b(?:https?|redis)://([a-z-]+):\d+|@([a-z-]+):\d+/|\b([a-z-]+-[ab]|tempo):\d{4}\b", text
        )
        assert {next(filter(None, host)) for host in hosts} <= set(STACK["services"]), path
    for name, service in STACK["services"].items():
        assert set(service.get("depends_on", ())) <= set(STACK["services"]), name


def test_prometheus_keeps_exemplars_and_points_lead_to_tempo() -> None:
    assert "--enable-feature=exemplar-storage" in STACK["services"]["prometheus"]["command"]
    sources = {
        one["type"]: one for one in _read(PROVISIONED / "datasources" / "sqlacache.yaml")["datasources"]
    }
    (link,) = sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert link["datasourceUid"] == sources["tempo"]["uid"]
    assert link["name"] == "trace_id"  # as exemplars carry it: tests/telemetry
    wanted = {one["query"] for one in json.loads(DASHBOARD.read_text())["templating"]["list"][:2]}
    assert set(sources) == wanted


def test_grafana_is_given_the_dashboard_where_it_looks_for_it() -> None:
    (provider,) = _read(PROVISIONED / "dashboards" / "sqlacache.yaml")["providers"]
    mounted = [volume.split(":")[:2] for volume in STACK["services"]["grafana"]["volumes"]]
    (target,) = (to for frm, to in mounted if frm == "../dashboards/sqlacache.json")
    assert target.startswith(f"{provider['options']['path']}/")


def test_the_interval_of_the_datasource_is_that_of_the_scrapes() -> None:
    interval = _read(TELEMETRY / "prometheus" / "prometheus.yaml")["global"]["scrape_interval"]
    prometheus = next(
        one
        for one in _read(PROVISIONED / "datasources" / "sqlacache.yaml")["datasources"]
        if one["type"] == "prometheus"
    )
    assert prometheus["jsonData"]["timeInterval"] == interval


def test_spans_go_through_the_collector_to_tempo() -> None:
    collector = _read(TELEMETRY / "collector" / "config.yaml")
    for pipeline in collector["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= set(collector[kind])
    assert collector["exporters"]["otlp/tempo"]["endpoint"] == "tempo:4317"
    shop = STACK["services"]["shop-a"]["environment"]
    port = shop["OTEL_EXPORTER_OTLP_ENDPOINT"].rpartition(":")[2]
    endpoints = [one["endpoint"] for one in collector["receivers"]["otlp"]["protocols"].values()]
    assert any(endpoint.endswith(f":{port}") for endpoint in endpoints)


def test_names_of_metrics_in_the_stack_are_ours() -> None:
    known = {metric.name for metric in names.METRICS}
    for path in TELEMETRY.glob("prometheus/*.yaml"):
        series = set(re.findall(r"(?<![\w:])sqlacache_\w+", path.read_text()))
        bare = {re.sub(r"_(bucket|count|sum)$", "", name) for name in series}
        assert bare <= known, path
