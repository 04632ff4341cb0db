"""The application: ``flask --app examples.flask_shop.app run``, or several processes by gunicorn.

On its own it serves an SQLite file, cached in memory, from one process with threads. ``FLASK_SQLALCHEMY_DATABASE_URI``
names another database (such as ``postgresql+psycopg://...``) and ``SQLACACHE_BACKEND`` a Redis that several processes
share: :mod:`examples.flask_shop.gunicorn_conf` starts two.
"""

from __future__ import annotations

import atexit
import os
from typing import Any

from flask import Flask
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.multiprocess import MultiProcessCollector
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from sqlacache import configure_sync

from .models import Product, db, fill
from .pages import pages


def create_app() -> Flask:
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///shop.sqlite"  # in the instance folder
    app.config.from_prefixed_env()
    db.init_app(app)
    app.register_blueprint(pages)

    cache = configure_sync(
        backend="mem://",
        models={Product: {"timeout": 600}, "*": {"timeout": 3600}},
        prefix="flask-shop",
    )
    atexit.register(cache.disconnect)  # says what could not be delivered
    with app.app_context():
        fill()
        cache.bind(db.engine)
        # When this process forks (gunicorn --preload), its children open database connections of their own.
        db.engine.dispose()

    @app.get("/healthz")
    def healthz() -> Any:
        """Whether the cache works; the shop does without it, so that this answers 200 while the shop is up."""
        return cache.health().to_dict()

    if app.config.get("EXPLAIN"):  # for development: FLASK_EXPLAIN=true

        @app.get("/explain/products/<int:product_id>")
        def explain(product_id: int) -> Any:
            """What would happen to ``db.session.get(Product, product_id)`` now, and why; it loads nothing."""
            return str(cache.explain_get(db.session, Product, product_id)), {"Content-Type": "text/plain"}

    @app.after_request
    def tell_worker(response: Any) -> Any:
        response.headers["X-Worker"] = str(os.getpid())
        return response

    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/metrics": metrics()})  # type: ignore[method-assign]  # as Flask says
    return app


def metrics() -> Any:
    """Return what serves the figures: of all worker processes, where they were told a folder to count in."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return make_wsgi_app()
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return make_wsgi_app(registry)
