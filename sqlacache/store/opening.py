"""Which backend a URL means, registered with cashews and set up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cashews import Cache

from .breaker import Breaker
from .memory import MemoryBackend

if TYPE_CHECKING:
    from ..config import Settings
    from ..front.port import Front


def set_up(cashews: Cache, settings: Settings, front: Front) -> Any:
    """Set up the configured backend in ``cashews`` and return it: a :class:`.memory.MemoryBackend` or a
    :class:`.redis_backend.RedisBackend`. Opens no connection."""
    backend = settings.backend
    if backend.is_memory:
        opened = cashews.setup("sqlacache+mem://")
        assert isinstance(opened, MemoryBackend)  # registered by store/memory.py
        return opened
    from . import redis_backend  # registers itself; needs the extra sqlacache[redis]

    return cashews.setup(
        f"{redis_backend.ALIAS}://",
        address=backend.url,
        backend=backend,
        codec=settings.codec,
        prefix_of_keys=settings.prefix,
        scheme=settings.digests.scheme,
        breaker=Breaker(),
        front=front,
    )
