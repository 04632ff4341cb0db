"""A visitor of the shop: it knows the HTTP routes, ``/metrics`` and the SQLite file, and nothing of the cache."""
