"""Run SQLAlchemy's own tests with and without the cache, and compare what became of each (``make transparency``).

The tests are those of the SQLAlchemy that is installed, from its source distribution, which is fetched once into
``.transparency/``. Each is run three times (see :mod:`.plugin`): ``plain``, ``cached`` and ``replayed``. It is an error
if

* a test that is not in ``left_out.txt`` ends otherwise than in the plain run, or is there in one run only;
* a test that is in ``left_out.txt`` ends as in the plain run;
* fewer SELECTs were answered from replay than :data:`FLOORS` says, or none from the cache.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import sqlalchemy

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LEFT_OUT = HERE / "left_out.txt"
MODES = ("plain", "cached", "replayed")
LONGEST = 3600.0
"""Seconds after which a run is stopped."""


class Suite(NamedTuple):
    """Tests that are run in one process, on one database."""

    name: str
    tests: Sequence[str]
    """Files and folders, as patterns."""
    database: str = "default"
    """A name in SQLAlchemy's own ``setup.cfg``."""


WHOLE = (
    Suite("orm-a-l", ("test/orm/test_[a-l]*.py",)),
    Suite("orm-m-z", ("test/orm/test_[m-z]*.py",)),
    Suite("orm-folders", ("test/orm/declarative", "test/orm/dml", "test/orm/inheritance")),
    Suite(
        "ext",
        (
            "test/ext/declarative",
            "test/ext/test_associationproxy.py",
            "test/ext/test_baked.py",
            "test/ext/test_deprecations.py",
            "test/ext/test_extendedattr.py",
            "test/ext/test_horizontal_shard.py",
            "test/ext/test_hybrid.py",
            "test/ext/test_indexable.py",
            "test/ext/test_mutable.py",
            "test/ext/test_orderinglist.py",
        ),
    ),
    Suite("asyncio", ("test/ext/asyncio",), "aiosqlite"),
)
PART = (
    Suite(
        "part",
        (
            "test/orm/test_bind.py",
            "test/orm/test_eager_relations.py",
            "test/orm/test_lazy_relations.py",
            "test/orm/test_selectin_relations.py",
        ),
    ),
    Suite("part-asyncio", ("test/ext/asyncio/test_session.py",), "aiosqlite"),
)
FLOORS = {"whole": 6000, "part": 1200}
"""SELECTs that must have been answered from replay."""


@dataclass
class Run:
    """What became of every test in one mode."""

    outcomes: dict[str, str] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


# -- SQLAlchemy's tests ------------------------------------------------------------------------------------------------


def fetch(version: str, into: Path) -> Path:
    """Fetch the source distribution, as the package client of this machine is configured, and take its tests out."""
    folder = into / f"sqlalchemy-{version}"
    if folder.is_dir():
        return folder
    into.mkdir(parents=True, exist_ok=True)
    archives = list(into.glob(f"[sS]*-{version}.tar.gz"))
    if not archives:
        print(f"fetching the source of SQLAlchemy {version} (once) ...", flush=True)
        _download(version, into)
        archives = list(into.glob(f"[sS]*-{version}.tar.gz"))
    unpacked = into / f"unpacking-{os.getpid()}"
    with tarfile.open(archives[0]) as archive:
        for member in archive.getmembers():
            member.name = member.name.partition("/")[2]
            if _is_wanted(member.name) and member.isfile():
                archive.extract(member, unpacked)
    try:
        unpacked.rename(folder)
    except OSError:  # another one was faster
        shutil.rmtree(unpacked)
    return folder


def _is_wanted(name: str) -> bool:
    """The library itself is the installed one; of its source, only what sets pytest up."""
    return name in ("setup.cfg", "pyproject.toml") or name.startswith(
        ("test/", "lib/sqlalchemy/testing/plugin/")
    )


def _download(version: str, into: Path) -> None:
    clients = [[sys.executable, "-m", "pip"], ["pip"], ["pip3"], ["uv", "tool", "run", "pip"]]
    arguments = ["download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest", str(into)]
    for client in clients:
        try:
            found = subprocess.run([*client, "--version"], capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            continue
        if found:
            subprocess.run([*client, *arguments, f"sqlalchemy=={version}"], check=True)
            return
    raise SystemExit("no pip and no uv was found to fetch SQLAlchemy's source with")


# -- running -----------------------------------------------------------------------------------------------------------


def run(mode: str, suite: Suite, folder: Path, results: Path) -> Run:
    """Run ``suite`` in one mode."""
    name = f"{sqlalchemy.__version__}-{suite.name}-{mode}"
    out, log, work = results / f"{name}.json", results / f"{name}.log", results / name
    out.unlink(missing_ok=True)
    shutil.rmtree(work, ignore_errors=True)  # some tests write into their folder: each run has its own
    shutil.copytree(folder, work, copy_function=os.link)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "SQLACACHE_"))},
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "telemetry"))),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "SQLALCHEMY_WARN_20": "true",
        "SQLACACHE_TRANSPARENCY_MODE": mode,
        "SQLACACHE_TRANSPARENCY_OUT": str(out),
    }
    # -s: the suite's conftest then takes the installed SQLAlchemy and not the source beside it.
    command = [
        sys.executable,
        "-s",
        "-m",
        "pytest",
        "-p",
        "tests.transparency.plugin",
        "-p",
        "no:cacheprovider",
    ]
    command += ["--maxfail=0", "-q", "-q", "-r", "N", "--db", suite.database, *files_of(suite, work)]
    began = time.monotonic()
    with log.open("w") as output:
        ended = subprocess.run(
            command, cwd=work, env=environment, stdout=output, stderr=output, timeout=LONGEST, check=False
        )
    if not out.exists() or ended.returncode not in (0, 1):
        raise SystemExit(f"{name}: pytest ended with {ended.returncode}\n{log.read_text()[-4000:]}")
    shutil.rmtree(work)
    return results_of(name, results, time.monotonic() - began)


def files_of(suite: Suite, folder: Path) -> list[str]:
    """Return what there is of a suite in a version's tests, without what its name says to be for a newer Python."""
    names = sorted(str(one.relative_to(folder)) for pattern in suite.tests for one in folder.glob(pattern))
    versions = {name: re.search(r"_py(\d)(\d+)\.py$", name) for name in names}
    return [
        name
        for name, version in versions.items()
        if version is None or sys.version_info >= (int(version[1]), int(version[2]))
    ]


def results_of(name: str, results: Path, seconds: float = 0.0) -> Run:
    """Read what a run wrote down."""
    found = json.loads((results / f"{name}.json").read_text())
    return Run(
        {_stable(name): outcome for name, outcome in found["outcomes"].items()},
        {_stable(name): detail for name, detail in found["details"].items()},
        Counter(found["counts"]),
        seconds,
    )


def _stable(name: str) -> str:
    """A test's name without the version of the database's library, which SQLAlchemy puts into it."""
    return re.sub(r"_([a-z]+\+[a-z_]*[a-z])_\d+(_\d+)+", r"_\1", name)


def run_all(
    suites: Sequence[Suite], folder: Path, results: Path, jobs: int, *, kept: bool = False
) -> dict[str, Run]:
    """Run every suite in every mode, or look at what was kept of the last time; return each mode's results in one."""
    results.mkdir(parents=True, exist_ok=True)
    found = {mode: Run() for mode in MODES}
    with ThreadPoolExecutor(jobs) as pool:
        running = [
            (
                mode,
                pool.submit(results_of, f"{sqlalchemy.__version__}-{suite.name}-{mode}", results)
                if kept
                else pool.submit(run, mode, suite, folder, results),
            )
            for suite in suites
            for mode in reversed(MODES)
        ]
        for mode, future in running:
            one, into = future.result(), found[mode]
            into.outcomes.update(one.outcomes)
            into.details.update(one.details)
            into.counts.update(one.counts)
            into.seconds += one.seconds
    return found


# -- what is left out --------------------------------------------------------------------------------------------------


class LeftOut(NamedTuple):
    """A test that is known to end otherwise, and why that is right."""

    mode: str
    test: str
    reason: str


def left_out(lines: Sequence[str], version: str) -> Iterator[LeftOut]:
    """Read ``left_out.txt``: ``[mode] reason``, and below it the tests, perhaps with the only version they are for."""
    mode = reason = ""
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        heading = re.fullmatch(r"\[(cached|replayed)\] (.+)", text)
        if heading:
            mode, reason = heading[1], heading[2]
            continue
        only, test = re.fullmatch(r"(?:(\d\.\d) )?(.+)", text).groups()
        if not reason or "::" not in test:
            raise SystemExit(f"{LEFT_OUT.name}:{number}: neither a heading nor a test: {text}")
        if not only or version.startswith(f"{only}."):
            yield LeftOut(mode, test, reason)


def compare(found: dict[str, Run], known: Sequence[LeftOut]) -> list[str]:
    """Return what is wrong: differences that nobody knows of, and known ones that are none."""
    plain = found["plain"]
    wrong = []
    for mode in MODES[1:]:
        reasons = {one.test: one.reason for one in known if one.mode == mode}
        other = found[mode]
        for test in sorted({*plain.outcomes, *other.outcomes}):
            before, after = plain.outcomes.get(test, "not run"), other.outcomes.get(test, "not run")
            if before == after and test in reasons:
                wrong.append(f"{mode}: {test}: is left out, but it is {after} as without the cache")
            elif before != after and test not in reasons:
                lines = other.details.get(test, plain.details.get(test, "")).strip().splitlines()[-6:]
                detail = "".join(f"\n      {line}" for line in lines)
                wrong.append(f"{mode}: {test}: {before} without the cache, {after} with it{detail}")
    return wrong


def unknown_tests(found: dict[str, Run], known: Sequence[LeftOut]) -> list[str]:
    """Return tests that are left out and that a file which was run has not."""
    ran = found["plain"].outcomes
    files = {test.partition("::")[0] for test in ran}
    return [
        f"{one.mode}: {one.test}: is left out, but there is no such test"
        for one in known
        if one.test.partition("::")[0] in files and one.test not in ran
    ]


# -- reporting ---------------------------------------------------------------------------------------------------------


def report(found: dict[str, Run], known: Sequence[LeftOut]) -> None:
    for mode, one in found.items():
        by_outcome = Counter(one.outcomes.values())
        tests = ", ".join(f"{by_outcome[name]:,} {name}" for name in ("passed", "failed", "skipped"))
        print(f"{mode:>9}: {tests} in {one.seconds:,.0f} s")
    hits, loads = found["cached"].counts["hit"], found["cached"].counts
    misses = sum(count for name, count in loads.items() if name.startswith("miss"))
    print(f"   cached: {hits:,} hits, {misses:,} misses on {loads['engines']:,} engines")
    for name, count in sorted(loads.items()):
        if name.startswith("bypass"):
            print(f"           {name}: {count:,}")
    print(f" replayed: {found['replayed'].counts['hit']:,} SELECTs answered from replay")
    ran = [one for one in known if one.test in found["plain"].outcomes]
    for (mode, reason), count in Counter((one.mode, one.reason) for one in ran).items():
        print(f" left out: {count:>4} {mode}: {reason}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Run SQLAlchemy's own tests with and without the cache.")
    parser.add_argument("--part", action="store_true", help="a representative part, for CI")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--cache", type=Path, default=ROOT / ".transparency", help="where sources are kept")
    parser.add_argument("--kept", action="store_true", help="run nothing: compare what the last time left")
    given = parser.parse_args()
    version = sqlalchemy.__version__
    suites, floor = (PART, FLOORS["part"]) if given.part else (WHOLE, FLOORS["whole"])
    folder = fetch(version, given.cache)
    found = run_all(suites, folder, given.cache / "results", given.jobs, kept=given.kept)
    known = list(left_out(LEFT_OUT.read_text().splitlines(), version))
    print(f"SQLAlchemy {version}, {'a part' if given.part else 'the whole'} of its own tests:")
    report(found, known)
    wrong = compare(found, known) + unknown_tests(found, known)
    replayed, hits = found["replayed"].counts["hit"], found["cached"].counts["hit"]
    if replayed < floor:
        wrong.append(f"only {replayed:,} SELECTs were answered from replay, at least {floor:,} must be")
    if not hits:
        wrong.append("no SELECT was answered from the cache")
    for one in wrong:
        print(f"  {one}")
    if wrong:
        raise SystemExit(f"{len(wrong)} differences")


if __name__ == "__main__":
    main()
