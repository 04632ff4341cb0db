"""The other way to cache what sessions read: SQLAlchemy's own example of it, on dogpile.cache.

SQLAlchemy ships it as ``examples/dogpile_caching``, and it is what most applications with a cache have a copy of. This
does the same work in the same order, without what is not measured (lazy loads, expiry per statement). An option
on a statement names a region; a ``do_orm_execute`` listener makes a key of the statement and its parameters, keeps
what ``Result.freeze()`` gives in the region, and merges that into the session with ``merge_frozen_result(load=False)``.

What it does not do, and this library does: forget anything when something is committed. It is up to the application to
delete the keys of what it changed. In the memory region it keeps the very objects that were loaded.
"""

from __future__ import annotations

from hashlib import md5
from typing import Any

from dogpile.cache import make_region
from sqlalchemy import event
from sqlalchemy.orm import loading
from sqlalchemy.orm.interfaces import UserDefinedOption

EXPIRES = 3600


class FromCache(UserDefinedOption):
    """Answer the statement from the cache of its session."""

    propagate_to_loaders = False


def cached_sessions(sessions: Any, region: Any) -> None:
    """Let statements with :class:`FromCache`, in sessions that the ``sessionmaker`` makes, use ``region``."""
    keys: dict[Any, Any] = {}

    @event.listens_for(sessions, "do_orm_execute")
    def execute(state: Any) -> Any:
        if not any(isinstance(option, FromCache) for option in state.user_defined_options):
            return None
        shape = state.statement._generate_cache_key()
        key = shape.to_offline_string(keys, state.statement, state.parameters or {})
        frozen = region.get_or_create(key, lambda: state.invoke_statement().freeze())
        merge: Any = loading.merge_frozen_result
        return merge(state.session, state.statement, frozen, load=False)()


def memory_region() -> Any:
    """Return a region in a dictionary of this process, which keeps the objects themselves."""
    return make_region(key_mangler=_digest).configure("dogpile.cache.memory", expiration_time=EXPIRES)


def redis_region(url: str, database: str) -> Any:
    """Return a region in Redis, which keeps pickled objects; the recipe's own keys do not say of which database."""
    return make_region(key_mangler=lambda key: f"dogpile:{database}:{_digest(key)}").configure(
        "dogpile.cache.redis",
        expiration_time=EXPIRES,
        arguments={"url": url, "redis_expiration_time": EXPIRES + 60},
    )


def _digest(key: str) -> str:
    return md5(key.encode(), usedforsecurity=False).hexdigest()
