"""One contract for every store, told as tests: memory, Redis, Cluster and local tiers all pass it.

A backend's test derives from :class:`StoreContract` and says how to open a store; pytest collects the rest. Nothing
here imports pytest, or any backend::

    class TestMemory(StoreContract):
        def setup_method(self):
            self.backends = {}

        def open(self, database="main", prefix="contract"):
            backend = self.backends.setdefault(prefix, MemoryBackend())
            return backend.open(database, max_bytes=10_000_000, lease=30, on_drop=lambda table, entries: None)

        def end_leases(self, store):
            store.end_leases()

See :class:`.hooks.StoreHooks` for everything that a backend may say; clauses about what it cannot do are skipped.
``pytest.register_assert_rewrite("sqlacache.testing.contract")`` in a ``conftest.py``, called before the import, makes
failures tell what was compared.
"""

from __future__ import annotations

from .entries import EntryClauses
from .shapes import ShapeClauses
from .stamps import StampClauses
from .stories import StoryClauses

__all__ = ["StoreContract"]


class StoreContract(StampClauses, ShapeClauses, EntryClauses, StoryClauses):
    """Derive from it, with a name that starts with ``Test``, and override :meth:`~.hooks.StoreHooks.open`."""
