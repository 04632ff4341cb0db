"""The worker of :mod:`examples.celery_shop`, bound already when its pool is forked."""

from __future__ import annotations

from typing import Any

from celery.signals import worker_init

from examples import celery_shop
from examples.celery_shop import app

__all__ = ["app"]


@worker_init.connect
def bind_before(**_: Any) -> None:
    celery_shop.cache.bind(celery_shop.engine)
