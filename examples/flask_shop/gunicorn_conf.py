"""Two processes with threads, forked from one that has made the application, and bound the cache, already.

``gunicorn --config examples/flask_shop/gunicorn_conf.py``, with ``SQLACACHE_BACKEND=redis://...`` for what they share
and ``PROMETHEUS_MULTIPROC_DIR`` for a folder in which they count together.
"""

from __future__ import annotations

import os
from typing import Any

from prometheus_client.multiprocess import mark_process_dead

wsgi_app = "examples.flask_shop.app:create_app()"
preload_app = True
workers = 2
threads = 4


def child_exit(server: Any, worker: Any) -> None:
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        mark_process_dead(worker.pid)
