"""A small web shop: FastAPI, async SQLAlchemy sessions in plain style, on SQLite or PostgreSQL.

Read :mod:`examples.shop.app` for the few lines that bring the cache in; nothing in :mod:`examples.shop.models` and
:mod:`examples.shop.routes` knows of it.
"""
