"""Explores the long forms of all stories, then shows what each rule left out leads to: ``make explore``.

usage: python -m tests.explorer [--most STATES] [--no-redis] [--compare] [WORDS OF A STORY'S NAME]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack

from sqlacache.store.memory import MemoryStore
from tests.explorer import mutants, redis_stories, scenarios
from tests.explorer.bank import close_banks
from tests.explorer.on_redis import on_the_clock_of
from tests.explorer.reducing import both_ways, kinds_of
from tests.explorer.scheduler import Report, World, explore
from tests.explorer.server import Server
from tests.explorer.world import exploring
from tests.support.redis_server import redis_server


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.explorer", description=__doc__)
    parser.add_argument("--most", type=int, default=100_000, help="states of one story to look at, at most")
    parser.add_argument("--no-redis", action="store_true", help="only the store in this process")
    parser.add_argument("--compare", action="store_true", help="short forms also with nothing left out")
    parser.add_argument("words", nargs="*", help="only stories whose name has these words")
    asked = parser.parse_args()
    wrong: list[str] = []

    def run(name: str, make: Callable[[], World], *, is_found: bool = False) -> None:
        if not all(word in name for word in asked.words):
            return
        began = time.process_time()
        report: Report = explore(make, most=asked.most)
        print(f"{name}: {report} in {time.process_time() - began:.1f} s of CPU time", flush=True)
        if (report.found is not None) != is_found:
            wrong.append(name)

    with ExitStack() as stack:
        stack.enter_context(exploring())
        stack.callback(close_banks)
        for name, story in scenarios.STORIES.items():
            run(name, story.on(long=True))
        server = None
        if not asked.no_redis:
            started = stack.enter_context(redis_server())
            server = Server(started.url, stack.enter_context(started.client()))
            stack.callback(server.close)
            stack.enter_context(on_the_clock_of(server))
            for name, begin in redis_stories.STORIES.items():
                run(f"on Redis, {name}", lambda begin=begin: begin(server, True))  # type: ignore[misc]  # bound now
        for kind in (MemoryStore, *mutants.found_by()) if asked.compare else ():
            for name, story in scenarios.STORIES.items():
                fewer, all_of_them = both_ways(story, kind, most=asked.most)
                print(f"{kind.__name__}, {name}: {fewer} or {all_of_them}", flush=True)
                if kinds_of(fewer.violations) != kinds_of(all_of_them.violations):
                    wrong.append(f"{kind.__name__}, {name}: {fewer.violations} or {all_of_them.violations}")
        for kind, names in mutants.found_by().items():
            run(
                f"left out: {kind.__name__}, {names[0]}",
                scenarios.STORIES[names[0]].on(kind),
                is_found=True,
            )
        if server is not None:
            for what, (begin, *change) in redis_stories.SCRIPTS.items():
                with redis_stories.changed(server, *change):
                    run(f"left out on Redis: {what}", lambda begin=begin: begin(server, True), is_found=True)  # type: ignore[misc]  # as above
            for what, (begin, tier) in redis_stories.TIERS.items():
                local = redis_stories.made(tier)
                run(
                    f"left out on Redis: {what}",
                    lambda begin=begin, local=local: begin(server, False, tier=local),  # type: ignore[misc]  # as above
                    is_found=True,
                )
    print("\n".join(f"NOT AS IT SHOULD BE: {name}" for name in wrong) or "all as it should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
