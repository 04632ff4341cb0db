"""The demonstration: real HTTP traffic against the cached shop, every answer compared with the database.

``python -m examples.demo`` starts the shop, visits it and exits 0, or says which figure was wrong and exits 1. The shop
is two workers on PostgreSQL and Redis, where these can be started from their wheels; otherwise, or when
``SQLACACHE_DEMO=simple`` asks for it, one worker on SQLite and ``mem://``. ``--serve`` only starts it and leaves it up.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn

import httpx

from .servers.keeping import Unavailable
from .setup import CHOICES, SetUp, set_up
from .visitor.figures import SELECTS, Board
from .visitor.server import Shop, ShopFailed
from .visitor.visit import Options, Visit, WrongFigure

ROUTES = (
    "/products/1",
    "/products/1/page",
    "/categories",
    "/categories/3/products",
    "/tags/eco/products",
    "/search?q=lamp",
    "/customers/1/orders",
    "/health",
    "/explain/products/1",
    "/metrics/",
    "/docs",
)
PAGES = "/sqlacache/"


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--requests", type=int, default=1200, metavar="N", help="about how many (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, default=0, help="of the first worker (default: free ones)")
    parser.add_argument(
        "--set-up",
        choices=CHOICES,
        default=os.environ.get("SQLACACHE_DEMO", "auto"),
        help="what the shop runs on (default: SQLACACHE_DEMO, or auto: full if it can be had)",
    )
    parser.add_argument("--seed", type=int, default=11, help="of the traffic (default: %(default)s)")
    parser.add_argument("--serve", action="store_true", help="start the shop without traffic and leave it up")
    parser.add_argument(
        "--min-hit-ratio",
        type=float,
        default=0.5,
        metavar="R",
        help="less is a wrong figure (default: %(default)s)",
    )
    parser.add_argument(
        "--behind-the-back",
        action="store_true",
        help="write to the database without telling the cache, which must be found out as a wrong figure",
    )
    options = parser.parse_args(argv)
    if options.set_up not in CHOICES:
        parser.error(f"SQLACACHE_DEMO takes one of {', '.join(CHOICES)}")
    if options.requests < 100:
        parser.error("--requests takes at least 100")
    return options


def serve(shop: Shop, on: SetUp) -> None:
    address = shop.workers[0].address
    print(f"The shop is at {' and '.join(worker.address for worker in shop.workers)} (Ctrl-C stops it).")
    print(f"It is {on.told}. For example:")
    for route in ROUTES:
        print(f"  curl {address}{route}")
    body = """-X PATCH -H 'content-type: application/json' -d '{"price_cents": 999}'"""
    print(f"  curl {body} {shop.workers[-1].address}/products/1")
    if on.backend.startswith("unix://"):
        print(f"  redis-cli -s {on.backend.removeprefix('unix://')} monitor")
    show_pages(shop)
    sys.stdout.flush()
    while True:
        time.sleep(0.5)
        shop.check_alive()


def show_pages(shop: Shop, hint: str = "") -> None:
    """Say where the cache's own pages are, if the shop has them."""
    addresses = [f"{worker.address}{PAGES}" for worker in shop.workers]
    if httpx.get(addresses[0], timeout=30).is_success:
        print(f"What each worker decided lately, and why: {' and '.join(addresses)}{hint}")


def visit(shop: Shop, on: SetUp, options: argparse.Namespace) -> None:
    started = time.monotonic()
    board = Board()
    board.say(f"The shop is up: {on.told}.")
    for worker in shop.workers:
        board.say(f"  {worker} serves {worker.address}")
    chosen = Options(options.requests, options.seed, options.min_hit_ratio, options.behind_the_back)
    result = asyncio.run(Visit(shop, board, chosen).run())
    show_pages(shop, " (make serve leaves the shop up)")
    figures, seconds = result.figures, time.monotonic() - started
    board.say(
        f"demo: OK: {result.requests:,} requests in {seconds:.1f} s; all {result.compared:,} answers equal what the "
        f"database says; of {figures.lookups:,} SELECTs wanted, {figures.total(SELECTS):,} were sent; "
        f"hit ratio {figures.hit_ratio:.0%}"
    )


def stop(*_: Any) -> NoReturn:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a background job of a shell inherits it ignored
    try:
        with (
            set_up(options.set_up) as on,
            Shop(on.database, on.backend, on.workers, options.port) as shop,
        ):
            try:
                serve(shop, on) if options.serve else visit(shop, on, options)
            except WrongFigure as wrong:
                shop.stop()  # so that its log is complete
                print(f"The shop's log ends with:\n{shop.log(40)}", file=sys.stderr)
                print(f"demo: WRONG FIGURE: {wrong}", file=sys.stderr)
                return 1
    except (ShopFailed, Unavailable) as failed:
        print(f"demo: {failed}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: stopped", file=sys.stderr)
        return 0 if options.serve else 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
