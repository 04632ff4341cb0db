"""A real PostgreSQL for tests, unless ``SQLACACHE_TEST_POSTGRES_URL`` names one: the one that the examples use, too."""

from __future__ import annotations

from examples.servers.keeping import Unavailable
from examples.servers.postgres import postgres_server

__all__ = ["Unavailable", "postgres_server"]
