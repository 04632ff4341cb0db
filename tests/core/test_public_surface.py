"""The public surface changes on purpose: exported names, signatures, errors, and documentation that runs."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
import textwrap
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import create_engine

import sqlacache
from sqlacache import errors
from tests.support.databases import Database
from tests.support.models import User
from tests.support.reading import UNCACHED

EXPORTED = {
    "AsyncDirectSession",
    "CacheError",
    "CacheManager",
    "CallSite",
    "Cause",
    "ConfigError",
    "Decision",
    "DirectSession",
    "Drop",
    "Eviction",
    "Explanation",
    "InBackground",
    "Invalidation",
    "KeyParts",
    "Load",
    "Observer",
    "Received",
    "SerializationError",
    "StampChange",
    "StampState",
    "SyncCacheManager",
    "TableChange",
    "TransportError",
    "Verification",
    "configure",
    "configure_sync",
    "testing",
}


def test_the_exported_names_are_these_and_sorted() -> None:
    assert set(sqlacache.__all__) == EXPORTED
    assert list(sqlacache.__all__) == sorted(sqlacache.__all__)
    for name in sqlacache.__all__:
        assert hasattr(sqlacache, name)


def test_nothing_else_public_leaks_but_the_modules() -> None:
    modules = {name for name, value in vars(sqlacache).items() if inspect.ismodule(value)}
    future = {"annotations"}
    imported = {"PackageNotFoundError", "version"}
    public = {name for name in vars(sqlacache) if not name.startswith("_")}
    assert public - modules - future - imported <= EXPORTED


def test_the_helpers_for_tests_are_these() -> None:
    assert sorted(sqlacache.testing.__all__) == ["Recorder", "record"]
    assert importlib.import_module("sqlacache.testing.contract").__all__ == ["StoreContract"]


HOOKS = {
    "another": ["store"],
    "change_generation": ["store"],
    "end_leases": ["store"],
    "expire": ["store", "key"],
    "lose": ["store", "name"],
    "lose_registry": ["store", "table"],
    "lose_writers": ["store", "table"],
    "open": ["database", "prefix"],
    "orders": None,
    "run": ["test"],
    "stamp_ttl": ["store", "name"],
    "values": None,
}


def test_what_a_backends_test_may_say_is_this() -> None:
    contract = importlib.import_module("sqlacache.testing.contract").StoreContract
    public = {name for name in dir(contract) if not name.startswith(("_", "test_"))}
    assert public == set(HOOKS)
    for name, parameters in HOOKS.items():
        if parameters is not None:
            assert list(inspect.signature(getattr(contract, name)).parameters)[1:] == parameters
            assert inspect.getdoc(getattr(contract, name))


def test_every_error_has_one_base_and_is_in_the_tree_that_the_docstring_prints() -> None:
    found = {
        name: value
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, Exception)
    }
    for name, error in found.items():
        assert issubclass(error, sqlacache.CacheError)
        assert name in (errors.__doc__ or "")
        assert getattr(sqlacache, name) is error
    assert issubclass(sqlacache.ConfigError, ValueError)


MANAGER = {
    "add_observer": ["observer"],
    "bind": ["engine", "database"],
    "bypassed": [],
    "disconnect": [],
    "execute": ["session", "statement", "parameters", "timeout"],
    "explain": ["session", "statement", "parameters"],
    "explain_get": ["session", "model", "key"],
    "invalidate": ["model", "pks"],
    "invalidate_all": [],
    "lifespan": ["engines", "database"],
    "on_evict": ["hook"],
    "remove_observer": ["observer"],
    "health": ["strict"],
    "purge": ["model"],
    "set_mode": ["mode", "fleet", "ttl"],
    "touched": ["table", "columns", "pks"],
    "unbind": ["engine"],
}


@pytest.mark.parametrize(("name", "parameters"), MANAGER.items(), ids=MANAGER.keys())
def test_the_managers_methods_have_these_parameters_and_say_what_they_do(
    name: str, parameters: list[str]
) -> None:
    method = getattr(sqlacache.CacheManager, name)
    assert list(inspect.signature(method).parameters)[1:] == parameters
    assert inspect.getdoc(method)


def test_configure_describes_each_of_its_arguments() -> None:
    documented = set(re.findall(r"^    ([a-z]\w+): ", inspect.getdoc(sqlacache.configure) or "", re.M))
    assert documented == set(inspect.signature(sqlacache.configure).parameters)


@pytest.mark.parametrize(
    "module",
    [
        "capacity",
        "config",
        "decisions",
        "errors",
        "events",
        "evictions",
        "explain",
        "listening",
        "manager",
        "models",
        "observers",
        "tags",
        "testing",
        "testing.contract",
        "testing.recorder",
        "read.path",
        "read.replay",
        "read.session",
        "write.path",
        "write.ledger",
        "store.memory",
        "store.port",
    ],
)
def test_every_module_says_what_it_is_for(module: str) -> None:
    assert len(importlib.import_module(f"sqlacache.{module}").__doc__ or "") > 20


def test_the_version_is_that_of_the_package() -> None:
    assert re.fullmatch(r"\d+[\d.]*\+?\w*", sqlacache.__version__)


def documented_blocks() -> list[str]:
    """The indented code of ``help(sqlacache)``."""
    found = re.findall(r"::\n\n((?:    .*\n|\n)+)", sqlacache.__doc__ or "")
    return [textwrap.dedent(block) for block in found]


@pytest.mark.skipif(UNCACHED, reason="needs the cache")
async def test_the_code_of_the_docstring_runs(database: Database) -> None:
    """All of it, one block after another, as a reader would try it; only names of their application are replaced."""
    first, sync, *others = documented_blocks()
    assert len(others) == 4
    ordinary: dict[str, Any] = {"engine": create_engine("sqlite://")}
    exec(sync.replace("redis://localhost", "mem://"), ordinary)
    assert ordinary["cache"].health().status == "ok"
    ordinary["cache"].disconnect()
    ordinary["engine"].dispose()
    first = first.replace("app.models.User", "tests.support.models.User")
    assert "configure(" in first
    names: dict[str, Any] = {
        "FastAPI": FastAPI,
        "engine": database.engine,
        "User": User,
        "sqlacache": sqlacache,
        "statement": User.__table__.select(),
    }
    exec(first, names)
    names["cache"].settings.observers = ()
    async with names["app"].router.lifespan_context(names["app"]), database.sessions() as session:
        names["session"] = session
        for code in others:
            code = re.sub(
                r"^(with .*:)\n    \.\.\.", r"\1\n    await session.get(User, 42)", code, flags=re.M
            )
            if "assert_hit" in code:
                await session.get(User, 42)
            body = textwrap.indent(code, "    ")
            exec(f"async def run():\n{body}", names)
            await names["run"]()


def test_the_engine_alone_imports_no_telemetry_of_ours() -> None:
    code = (
        "import sys, sqlacache; cache = sqlacache.configure(telemetry=None); "
        "sys.exit('sqlacache_telemetry' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
