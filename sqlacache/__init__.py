"""sqlacache: a cache that SQLAlchemy sessions use without knowing, and that can say why.

Cache what a FastAPI application reads::

    from sqlacache import configure

    cache = configure(backend="mem://", models={"app.models.User": {"timeout": 900}, "*": {"timeout": 3600}})
    app = FastAPI(lifespan=cache.lifespan(engine))

From then on ``session.get(User, 42)`` is cached and ``session.commit()`` invalidates it; sessions are used as before.

Cache what a Flask application, a Celery worker or a script reads through ordinary sessions::

    from sqlacache import configure_sync

    cache = configure_sync(backend="redis://localhost", models={"*": {"timeout": 3600}})
    cache.bind(engine)    # and so on, without ``await``

One read otherwise than the others::

    await session.execute(statement, execution_options={"sqlacache_timeout": 60})   # seconds
    await session.execute(statement, execution_options={"sqlacache_skip": True})    # past the cache
    await session.execute(statement, execution_options={"sqlacache_refresh": True}) # load and store anew
    with cache.bypassed(): ...                                                      # this task only

A write that no session made::

    await cache.touched("users", columns={"plan"})
    await cache.invalidate(User, pks=[42])

Ask why::

    print(await cache.explain_get(session, User, 42))

In tests::

    with sqlacache.testing.record(cache) as seen:
        ...
    seen.assert_hit(User, 42)
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from . import testing
from .background import InBackground
from .configuring import configure, configure_sync
from .decisions import (
    CallSite,
    Cause,
    Decision,
    Drop,
    Eviction,
    Invalidation,
    Load,
    Received,
    StampChange,
    TableChange,
    Verification,
)
from .direct import AsyncDirectSession, DirectSession
from .errors import CacheError, ConfigError, SerializationError, TransportError
from .explanation import Explanation, KeyParts, StampState
from .manager import CacheManager
from .observers import Observer
from .sync import SyncCacheManager

__all__ = [
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
]

try:
    __version__ = version("sqlacache")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+unknown"
