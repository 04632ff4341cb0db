"""Every query and every rule on a real Prometheus that scraped the example: ``make dashboards-test``.

The workload (:mod:`.workload`) is done once; what must be so is in :mod:`.expected`. ``make test`` does not collect
this file, which takes a minute and a half. The rules are those that are committed, with all durations shortened
together
(:data:`.workload.PACE`), and one threshold raised (a busy machine is no slow Redis).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy.engine import make_url

from tests.examples.serving import SYNC_DRIVER, fresh_database
from tests.support.postgres import postgres_server
from tests.support.programs import missing

from . import expected, grafana, mutants
from .judging import above, alerts_wrong, ask, values, wrong
from .workload import SCRAPED_EVERY, SHOP, Phase, Run, Seen, Unavailable, running

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

BOARD = grafana.dashboard()
ASKED = grafana.metric_queries(BOARD)
TOLERANCE = 0.12
"""Of figures that Prometheus extrapolates: half a scrape interval at both ends of some five seconds, and a bit."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder: Path = tmp_path_factory.mktemp("phases")
    try:
        with postgres_server() as url, fresh_database(url) as database:
            engine = sqlalchemy.create_engine(
                database.set(drivername=SYNC_DRIVER), isolation_level="AUTOCOMMIT"
            )
            with engine.connect() as connection:
                connection.exec_driver_sql(f"ALTER DATABASE {database.database} SET log_statement = 'all'")
            engine.dispose()
            with running(folder, Path(str(make_url(url).query["host"])) / "log", database) as begun:
                begun.do(expected.FIRING[expected.PHASES[-1]])
                yield begun
    except Unavailable as why:
        missing(why)


def test_every_query_has_data_in_the_phases_in_which_it_should_and_in_no_others(run: Run) -> None:
    assert {phase.name for phase in run.phases} == expected.ALWAYS
    found = wrong(run.prometheus, BOARD, ASKED, run.phases)
    assert not found, "\n".join(found)


def test_something_is_expected_of_every_query() -> None:
    assert {one.query for one in expected.QUERIES} == {asked.name for asked in ASKED}


def test_every_query_answers_when_one_value_of_each_variable_is_chosen(run: Run) -> None:
    instance = run.workers[0].address.removeprefix("http://")
    chosen = {"job": SHOP, "instance": instance, "cache": "shop", "table": "products"}
    silent = []
    for asked in ASKED:
        samples = ask(run.prometheus, BOARD, asked, run.phases, chosen)
        for sample in samples:
            wanted = {key: value for key, value in chosen.items() if key in sample.labels}
            assert wanted.items() <= sample.labels.items(), asked
        if not any(above(samples, phase, {}) for phase in run.phases):
            silent.append(asked.name)
    assert set(silent) == expected.NOT_OF_THE_FIRST | expected.NOT_OF_PRODUCTS


def test_another_choice_of_a_variable_shows_nothing_of_it(run: Run) -> None:
    for variable in ("job", "instance", "cache", "table"):
        for asked in ASKED:
            if f"${variable}" in asked.expression:
                chosen = {variable: "there-is-none"}
                assert not ask(run.prometheus, BOARD, asked, run.phases, chosen), (variable, asked)


def test_points_of_latency_lead_to_traces(run: Run) -> None:
    asked = [
        (panel["title"], target["expr"])
        for panel in grafana.panels(BOARD)
        for target in panel["targets"]
        if target.get("exemplar")
    ]
    assert asked
    for title, expression in asked:
        found = run.prometheus.exemplars(grafana.substituted(BOARD, expression, values({"job": SHOP})))
        exemplars = [one for series in found for one in series["exemplars"]]
        assert exemplars, title
        assert all(len(one["labels"]["trace_id"]) == 32 for one in exemplars), title


def test_alerts_fire_in_their_phase_and_in_no_other(run: Run) -> None:
    found = alerts_wrong(run.prometheus, run.phases)
    assert not found, "\n".join(found)


def test_every_alert_has_a_phase() -> None:
    from dashboards import alerts

    fired = {name for firing in expected.FIRING.values() for name, _ in firing}
    assert fired == {alert.name for alert in alerts.rules()}


def test_every_rule_was_evaluated_without_an_error(run: Run) -> None:
    rules = [rule for group in run.prometheus.groups() for rule in group["rules"]]
    assert rules
    assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []


Figure = Callable[[Seen], float]
EXACT = ("warm_up", "read_heavy", "write_storm", "bulk_updates", "stopped_worker")
FIGURES: dict[tuple[str, ...], Figure] = {
    ("Reads by decision: hit", "Reads by decision: miss", "Reads by decision: bypass"): lambda s: s.reads,
    ("Reads by decision: miss", "Reads by decision: bypass"): lambda s: s.selects,
    ("Reads by decision: hit",): lambda s: s.reads - s.selects,
    ("Hits by tier",): lambda s: s.reads - s.selects,
    ("Misses by reason", "Bypasses by reason"): lambda s: s.selects,
    ("Misses by table", "Bypasses by reason"): lambda s: s.selects,
    ("Fills by outcome",): lambda s: s.selects,
    ("Lookups per second",): lambda s: s.reads,
    ("Lookups by operation: hit", "Lookups by operation: miss"): lambda s: s.reads,
    ("Invalidations per second: invalidations",): lambda s: s.committed + s.calls,
}
"""What several queries say together, and what the client and the database say of the same."""


@pytest.mark.parametrize("name", EXACT)
def test_figures_agree_with_the_client_and_with_the_statement_log_of_the_database(
    run: Run, name: str
) -> None:
    phase = next(one for one in run.phases if one.name == name)
    assert phase.seen.commits == phase.seen.committed
    off = []
    for queries, figure in FIGURES.items():
        said, truth = sum(_counted(run, phase, query) for query in queries), figure(phase.seen)
        if abs(said - truth) > TOLERANCE * truth + 2:
            off.append(f"{' + '.join(queries)}: {said:.1f}, really {truth}")
    ratio = _at_the_end(run, phase, "Hit ratio")
    if abs(ratio - (1 - phase.seen.selects / phase.seen.reads)) > 0.05:
        off.append(
            f"Hit ratio: {ratio:.2f}, really {phase.seen.selects} SELECTs for {phase.seen.reads} reads"
        )
    assert not off, "\n".join(off)


def test_reads_of_an_outage_are_all_bypasses_and_every_commit_is_owed(run: Run) -> None:
    phase = next(one for one in run.phases if one.name == "redis_outage")
    assert phase.seen.selects == phase.seen.reads
    assert _counted(run, phase, "Bypasses by reason") == pytest.approx(phase.seen.reads, TOLERANCE)
    assert _at_the_end(run, phase, "Owed invalidations") == phase.seen.commits


def test_stale_reads_found_are_those_that_were_planted(run: Run) -> None:
    phase = run.phases[-1]
    assert _at_the_end(run, phase, "Stale reads found") == pytest.approx(4, abs=0.7)
    assert _counted(run, phase, "Verified hits by outcome") == pytest.approx(4, abs=0.7)


def _at_the_end(run: Run, phase: Phase, name: str) -> float:
    """What a query says of a whole phase of the shop, added up."""
    chosen = {
        "job": SHOP,
        "__rate_interval": f"{_length(phase) * 1000:.0f}ms",
        "__range": f"{_length(phase) * 1000:.0f}ms",
    }
    (asked,) = (one for one in ASKED if one.name == name)
    found = run.prometheus.query(grafana.substituted(BOARD, asked.expression, chosen), at=phase.after)
    return sum(float(one["value"][1]) for one in found)


def _counted(run: Run, phase: Phase, name: str) -> float:
    """What a rate amounts to in a phase; the samples of it are a scrape interval less apart than it is long."""
    return _at_the_end(run, phase, name) * (_length(phase) - SCRAPED_EVERY)


def _length(phase: Phase) -> float:
    return phase.after - phase.begin + SCRAPED_EVERY


@pytest.fixture(scope="module")
def mutated(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[mutants.Mutated]:
    with mutants.replayed(run, tmp_path_factory.mktemp("mutants")) as replayed:
        yield replayed


def test_what_was_scraped_says_the_same_when_it_is_replayed_unchanged(mutated: mutants.Mutated) -> None:
    found = mutated.wrong(mutants.UNCHANGED) + mutated.alerts_wrong(mutants.UNCHANGED)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("mutation", mutants.MUTATIONS, ids=str)
def test_a_metric_or_label_that_is_renamed_is_noticed(
    mutated: mutants.Mutated, mutation: mutants.Mutation
) -> None:
    assert mutated.wrong(mutation)
    assert mutation.metric is not None
    if mutation.conditions and (mutation.metric.name, mutation.label) not in mutants.UNHEARD:
        assert mutated.alerts_wrong(mutation)
