"""What holds of the repository as a whole: what is in it, what is not, and what importing the library brings in."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LONGEST_FILE = 450
SHIPPED = ("sqlacache/", "telemetry/", "examples/", "benchmarks/")


@cache
def files() -> tuple[str, ...]:
    """Files that are in the repository or would be committed, as paths from its root."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, timeout=60)
    if done.returncode:
        pytest.skip("not a git checkout")
    return tuple(name for name in done.stdout.split("\0") if name and (ROOT / name).is_file())


def texts() -> Iterator[tuple[str, str]]:
    for name in files():
        try:
            yield name, (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def occurrences(pattern: str) -> list[str]:
    """Places where the pattern is, as ``file:line: what``."""
    found = re.compile(pattern)
    return [
        f"{name}:{number}: {match.group()}"
        for name, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        for match in found.finditer(line)
    ]


def test_no_file_names_a_path_of_one_machine() -> None:
    folders = "|".join(("work", "root", r"home/\w+", r"Users/\w+"))
    assert occurrences(rf"(?<![\w.}}])/({folders})/") == []


def test_no_file_names_a_package_registry() -> None:
    hosts = "|".join(("python[h]osted", r"//[^ \"']+/(simple|artifactory|nexus)\b"))
    assert occurrences(hosts) == []
    constraints = (ROOT / "constraints.txt").read_text()
    assert "://" not in constraints
    assert "--" not in constraints


def test_no_lock_file_is_tracked() -> None:
    assert [name for name in files() if Path(name).name == "uv.lock"] == []


def requirements() -> Iterator[tuple[str, str]]:
    """Each requirement in pyproject.toml with the comment on its line (tomllib keeps no comments)."""
    text = (ROOT / "pyproject.toml").read_text()
    section = ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        wanted = section in ("build-system", "project.optional-dependencies", "dependency-groups")
        found = re.match(r'(?:requires = \[)?\s*"([^"]+)"\]?,?\s*(#.*)?$', line)
        if found and (wanted or (section == "project" and re.search(r'"[\w.\[\]-]+(>=|==|~=|<)', line))):
            yield found.group(1), found.group(2) or ""


def test_every_dependency_says_why_it_is_there() -> None:
    found = list(requirements())
    assert {"cashews>=7,<8", "ruff>=0.14"} <= {requirement for requirement, _ in found}
    assert [requirement for requirement, comment in found if len(comment) < 10] == []


def test_every_dependency_has_exact_versions_in_the_constraints() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; .+)?", line)] == []
    exact = {line.split("==")[0] for line in lines}
    named = {re.split(r"[\[<>=]", requirement)[0] for requirement, _ in requirements()} - {"hatchling"}
    assert named - exact == set()


def test_shipped_files_are_short_enough_to_be_one_room() -> None:
    lengths = {
        name: len((ROOT / name).read_text().splitlines())
        for name in files()
        if name.startswith(SHIPPED) and name.endswith(".py")
    }
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_both_packages_are_typed() -> None:
    assert {"sqlacache/py.typed", "telemetry/sqlacache_telemetry/py.typed"} <= set(files())


def test_what_ci_runs_can_be_executed() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_every_make_target_that_the_documents_name_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    documents = [(name, text) for name, text in texts() if name.endswith(".md") or name == ".ci/run"]
    named = {
        (name, target)
        for name, text in documents
        for target in re.findall(r"(?:`|^step |^|\$ )make ([a-z-]+)", text, re.M)
    }
    assert {(name, target) for name, target in named if target not in targets} == set()


IMPORTS = """
import importlib, pkgutil, sys
sys.path[:0] = {path!r}
telemetry = ("opentelemetry", "prometheus_client", "sqlacache_telemetry")
def loaded():
    return {{name for name in sys.modules if name.split(".")[0] in telemetry}}
import cashews, sqlalchemy.ext.asyncio  # what they bring in by themselves is not ours
theirs = loaded()
import sqlacache
print("sqlacache", *sorted(loaded() - theirs))
for module in pkgutil.walk_packages(sqlacache.__path__, "sqlacache."):
    importlib.import_module(module.name)
    print(module.name, *sorted(loaded() - theirs))
"""


def test_importing_the_engine_imports_no_telemetry() -> None:
    program = IMPORTS.format(path=[entry for entry in sys.path if entry])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    imported = [line.split() for line in done.stdout.splitlines()]
    assert len(imported) > 5
    assert [line for line in imported if len(line) > 1] == []
