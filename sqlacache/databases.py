"""Which database an engine is on, and what can be told about the processes around this one."""

from __future__ import annotations

import multiprocessing
import os
from typing import Any

from sqlalchemy.engine import URL, Engine


def is_one_of_several_workers() -> bool:
    """Tell whether something says that this process is one of several (uvicorn's or gunicorn's workers)."""
    workers = os.environ.get("WEB_CONCURRENCY", "").encode(errors="surrogateescape")
    several = workers.isdigit() and workers.lstrip(b"0") not in (b"", b"1")
    return several or multiprocessing.parent_process() is not None


def root_of(engine: Any) -> Engine:
    """Return the engine that was made with a pool, of which others are by ``execution_options()``."""
    while hasattr(engine, "_proxied"):
        engine = engine._proxied
    root: Engine = engine
    return root


def database_name(url: URL) -> str:
    """Return the name that keys and records have of a database unless it is given: the URL's, or a file's path."""
    name = url.database or "main"
    is_file = url.get_backend_name() == "sqlite" and not name.startswith((":", "file:"))
    return os.path.realpath(name) if is_file and url.database else name


def is_in_memory(url: URL) -> bool:
    """Tell whether a database belongs to this process alone."""
    return url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:")


def same_database(one: URL, other: URL) -> bool:
    """Tell whether two URLs name one database."""
    if is_in_memory(one):
        return False
    return (one.get_backend_name(), one.host, one.port, one.database) == (
        other.get_backend_name(),
        other.host,
        other.port,
        other.database,
    )
