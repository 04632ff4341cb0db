"""What state a cache is in: for health endpoints, and for people."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .errors import TransportError

if TYPE_CHECKING:
    from .core import Core

Status = Literal["ok", "degraded", "owed"]


@dataclass(frozen=True)
class Health:
    """``ok``; ``degraded``: reads go to the database; ``owed``: others may serve what a commit here changed."""

    status: Status
    reasons: tuple[str, ...] = ()
    ready: bool = True
    """Whether the process should get traffic: always, unless :meth:`CacheManager.health` was asked to be strict.
    A cache that is down makes a service slower; taking its pods out of service makes it unavailable."""

    def to_dict(self) -> dict[str, Any]:
        """Return the same as plain data, for a JSON response."""
        return {"status": self.status, "reasons": list(self.reasons), "ready": self.ready}


async def health(manager: Core, *, strict: bool) -> Health:
    """Ask the backend and look at what is owed."""
    reasons: list[str] = []
    backend = manager.backend
    if not manager.bindings:
        reasons.append("not bound to an engine")
    if manager.mode != "on":
        reasons.append(f"the mode of this process is {manager.mode}")
    if backend.transport is not None:
        try:
            reasons += await _shared(manager)
        except TransportError as error:
            opened = backend.breaker.opened_at
            since = "" if opened is None else f" (for {time.time() - opened:.0f} s)"
            reasons.append(f"the backend does not answer{since}: {error}")
    owed = [owed.describe() for owed in list(manager.owing)]
    status: Status = "owed" if owed else "degraded" if reasons else "ok"
    return Health(status, (*(f"owed: {what}" for what in owed), *reasons), not strict or status == "ok")


async def _shared(manager: Core) -> list[str]:
    """Return what processes that share a backend have in common and that keeps them from serving."""
    found = []
    for store in {id(binding.store): binding.store for binding in manager.bindings}.values():
        found += await store.troubles()
    if not manager.bindings:
        await manager.backend.transport.call(b"PING")
    return list(dict.fromkeys(found))
