"""A visitor of the shop: it knows the HTTP routes, ``/metrics`` and the database, and nothing of the cache."""
