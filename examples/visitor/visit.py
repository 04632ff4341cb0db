"""The visit itself, phase by phase, and what has to be true of every answer and of every phase's figures."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import reduce
from itertools import cycle
from operator import add
from typing import Any

import httpx

from . import traces, truth
from .figures import BYPASSES, EVICTIONS, HITS, MISSES, SELECTS, Board, Figures, counters, ratio, table, words
from .server import Shop, Worker
from .traffic import Change, Traffic, change_price, reprice
from .truth import Page, Truth

VISITORS = 8
POPULAR, NEIGHBOUR = 1, 2


class WrongFigure(Exception):
    """The shop said something that is not so, or its figures do not add up."""


@dataclass(frozen=True)
class Options:
    requests: int
    seed: int
    min_hit_ratio: float
    behind_the_back: bool


@dataclass(frozen=True)
class Result:
    requests: int
    compared: int
    figures: Figures


def difference(got: Any, expected: Any, where: str = "") -> str:
    """Name the first place where two JSON values differ."""
    if isinstance(got, dict) and isinstance(expected, dict) and got.keys() == expected.keys():
        pairs = [(f"{where}.{key}", got[key], expected[key]) for key in got]
    elif isinstance(got, list) and isinstance(expected, list) and len(got) == len(expected):
        pairs = [(f"{where}[{number}]", *pair) for number, pair in enumerate(zip(got, expected, strict=True))]
    else:
        return f"{where.lstrip('.') or 'it'} is {got!r:.120}, the database says {expected!r:.120}"
    return next(difference(left, right, name) for name, left, right in pairs if left != right)


class Visit:
    """Everything one run does with a shop."""

    def __init__(self, shop: Shop, board: Board, options: Options) -> None:
        self._shop = shop
        self._board = board
        self._options = options
        self._traffic = Traffic(options.seed)
        self._truth = Truth(shop.database)
        self._clients = {
            worker: httpx.AsyncClient(base_url=worker.address, timeout=30) for worker in shop.workers
        }
        self._turns = cycle(shop.workers)
        self._requests = 0
        self._compared = 0
        self._statements = 0
        self._bypasses: Counter[str] = Counter()
        self._first = Figures()
        self._phase = ""

    async def run(self) -> Result:
        """Visit the shop; raise :class:`WrongFigure` at the first thing that is not as it should be."""
        try:
            async with AsyncExitStack() as stack:
                for client in self._clients.values():
                    await stack.enter_async_context(client)
                self._first = await self._scrape()
                refresher = asyncio.create_task(self._refresh())
                try:
                    await self._phases()
                finally:
                    refresher.cancel()
                    with suppress(asyncio.CancelledError, httpx.HTTPError):
                        await refresher
                    self._board.show([])
                return await self._finish()
        except httpx.HTTPError as error:
            self._shop.check_alive()
            raise WrongFigure(f"a request failed: {error!r}") from error
        finally:
            self._truth.close()

    async def _phases(self) -> None:
        each = self._options.requests // 4
        pages = self._traffic.pages(each)
        await self._in_phase("first reads", lambda: self._read(pages))
        # Of several workers, each is asked for what the others have read.
        again = await self._in_phase("the same again", lambda: self._read(pages, turn=1))
        self._must(
            not again.total(MISSES), f"reading the same again missed: {words(again.by(MISSES, 'reason'))}"
        )
        await self._in_phase("reads and writes", lambda: self._mix(2 * each))
        await self._in_phase("a bulk update", self._bulk)
        await self._in_phase("reads racing writes", self._race, racing=True)
        await self._in_phase("a write from elsewhere", self._elsewhere)
        await self._explained()
        await self._traced()

    # --- single requests ---------------------------------------------------------------------------------------------

    async def _send(
        self,
        method: str,
        path: str,
        body: Any = None,
        by: Worker | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """Ask the worker ``by``, or the next one."""
        self._requests += 1
        response = await self._clients[by or next(self._turns)].request(
            method, path, json=body, headers=headers
        )
        self._must(
            response.is_success, f"{method} {path} answered {response.status_code}: {response.text[:200]}"
        )
        return response

    async def _get(self, page: Page, by: Worker | None = None, headers: dict[str, str] | None = None) -> Any:
        answer = (await self._send("GET", page.path, by=by, headers=headers)).json()
        self._statements += page.statements(answer)
        if page.bypass:
            self._bypasses[page.bypass] += 1
        return answer

    async def _read(self, pages: Sequence[Page], turn: int = 0) -> None:
        """Read some pages, several at a time, and compare each with the database; nobody writes meanwhile.

        The workers take turns, page by page; ``turn`` says whose is the first.
        """
        workers = self._shop.workers
        waiting = iter(enumerate(pages, start=turn))

        async def visitor() -> None:
            for number, page in waiting:
                self._compare("GET", page, await self._get(page, workers[number % len(workers)]))

        await asyncio.gather(*(visitor() for _ in range(VISITORS)))

    async def _read_everywhere(self, pages: Sequence[Page]) -> None:
        """Read each of the pages from each of the workers."""
        for turn in range(len(self._shop.workers)):
            await self._read(pages, turn)

    async def _write(self, change: Change) -> None:
        """Let one worker make a change, then ask all of them for what it changed."""
        await self._change(change)
        await self._read_everywhere(change.pages)

    async def _change(
        self, change: Change, by: Worker | None = None, headers: dict[str, str] | None = None
    ) -> None:
        answer = (await self._send(change.method, change.path, change.body, by, headers)).json()
        self._statements += change.statements
        self._bypasses["dirty_transaction"] += change.bypassed
        self._compare(change.method, change, answer)

    def _compare(self, method: str, asked: Page | Change, answer: Any) -> None:
        expected = asked.expected(self._truth, answer)
        if answer != expected:
            raise WrongFigure(f"{method} {asked.path} ({self._phase}): {difference(answer, expected)}")
        self._compared += 1

    @staticmethod
    def _must(condition: object, otherwise: str) -> None:
        if not condition:
            raise WrongFigure(otherwise)

    # --- phases ------------------------------------------------------------------------------------------------------

    async def _in_phase(
        self, name: str, work: Callable[[], Awaitable[None]], *, racing: bool = False
    ) -> Figures:
        """Do the work of one phase, and hold the application's figures against what the visitor knows."""
        self._phase = name
        requests, statements, bypasses = self._requests, self._statements, Counter(self._bypasses)
        before = await self._scrape()
        await work()
        figures = await self._scrape() - before
        requests, statements = self._requests - requests, self._statements - statements
        self._must(
            figures.lookups == statements,
            f"{name}: the pages need {statements} SELECTs, but hits + misses + bypasses are {figures.lookups}",
        )
        sent, loads = figures.total(SELECTS), figures.total(MISSES) + figures.total(BYPASSES)
        self._must(
            sent == loads, f"{name}: {sent} SELECTs reached the database, but misses + bypasses are {loads}"
        )
        counted, expected = figures.by(BYPASSES, "reason"), +(self._bypasses - bypasses)
        if racing:
            counted.pop("writer_under_way", None)
        self._must(counted == expected, f"{name}: bypassed {words(counted)}; expected were {words(expected)}")
        hits, misses = figures.total(HITS), figures.total(MISSES)
        self._board.say(
            f"{name + ':':<24}{requests:>5} requests {hits:>5} hits {misses:>5} misses "
            f"{ratio(hits, misses):>5.0%} hit ratio {figures.total(EVICTIONS):>4} evictions"
        )
        return figures

    async def _mix(self, requests: int) -> None:
        end = self._requests + requests
        while self._requests < end:
            await self._read(self._traffic.pages(12))
            await self._write(self._traffic.change(self._truth))

    async def _bulk(self) -> None:
        category = self._category(POPULAR)
        inside = "SELECT id FROM products WHERE category_id = ? LIMIT 10"
        pages = [truth.product(key) for (key,) in self._truth.rows(inside, category)]
        await self._read_everywhere(pages)
        await self._write(reprice(category, 15))
        await self._read_everywhere(pages)

    async def _race(self) -> None:
        """Readers while one visitor raises a price step by step: none may see less than was acknowledged before."""
        acknowledged = self._truth.value("SELECT price_cents FROM products WHERE id = ?", POPULAR)
        last = acknowledged + 20
        pages = (truth.product(POPULAR), truth.product_page(POPULAR))

        async def reader(page: Page) -> None:
            for _ in range(30):
                if acknowledged == last:
                    break
                least = acknowledged
                seen = (await self._get(page))["price_cents"]
                self._must(
                    least <= seen <= last, f"GET {page.path} says {seen}, after {least} was acknowledged"
                )

        async def writer() -> None:
            nonlocal acknowledged
            while acknowledged < last:
                await self._change(change_price(self._truth, POPULAR, acknowledged + 1))
                acknowledged += 1

        await asyncio.gather(writer(), *(reader(page) for page in pages * 2))
        await self._read_everywhere(pages)

    async def _elsewhere(self) -> None:
        """A program that the cache knows nothing of changes a price, and (unless told not to) says so."""
        pages = (truth.product(POPULAR), truth.category_products(self._category(POPULAR)))
        await self._read_everywhere(pages)
        self._truth.write("UPDATE products SET price_cents = price_cents + 100 WHERE id = ?", POPULAR)
        if not self._options.behind_the_back:
            await self._send("POST", f"/touched/products?column=price_cents&pk={POPULAR}")
        await self._read_everywhere(pages)

    async def _explained(self) -> None:
        """One eviction in words, with the control: the product next to it is served from the cache as before."""
        changed, control = truth.product(POPULAR), truth.product(NEIGHBOUR)
        price = self._truth.value("SELECT price_cents FROM products WHERE id = ?", POPULAR) + 250
        await self._read_everywhere((changed, control))
        writer, reader = self._shop.workers[0], self._shop.workers[-1]

        async def explain() -> str:
            return (await self._send("GET", f"/explain{changed.path}", by=reader)).text

        warm, cold = await explain(), ""

        async def work() -> None:
            nonlocal cold
            await self._change(change_price(self._truth, POPULAR, price), by=writer)
            cold = await explain()
            for worker in (reader, writer):
                for page in (changed, control):
                    self._compare("GET", page, await self._get(page, worker))

        figures = await self._in_phase("one price changed", work)
        again = figures.by(MISSES, "reason", table="products")
        self._must(again == {"row_invalidated": 1}, f"after one change, products missed: {words(again)}")
        row = f"products:{POPULAR}"
        for name, text, expected in (
            ("before", warm, ("HIT", row)),
            ("after", cold, ("MISS (row_invalidated)", row, "price_cents", f" by {writer.pid}@")),
        ):
            for word in expected:
                self._must(word in text, f"explain {name} the change does not say {word!r}: {text!r:.300}")
        self._board.say(
            f"\nWhy does {reader} read product {POPULAR} from the database again? Before its price was changed:"
        )
        self._board.say("  | " + "\n  | ".join(warm.splitlines()))
        self._board.say(f"and after {writer} had committed the change:")
        self._board.say("  | " + "\n  | ".join(cold.splitlines()))
        self._board.say(f"Product {NEIGHBOUR} was not touched, and was served from the cache.\n")

    async def _traced(self) -> None:
        """One write, and the read that misses because of it, as the traces that their spans make."""
        writer, reader = self._shop.workers[0], self._shop.workers[-1]
        if (await self._clients[writer].get("/traces")).status_code == 404:
            self._board.say("There are no traces to show: no OpenTelemetry SDK is installed.\n")
            return
        page = truth.product(POPULAR)
        price = self._truth.value("SELECT price_cents FROM products WHERE id = ?", POPULAR) + 250
        await self._read_everywhere((page,))
        writes, reads, again = (traces.traceparent() for _ in range(3))

        async def work() -> None:
            await self._change(change_price(self._truth, POPULAR, price), writer, {"traceparent": writes[0]})
            for header, _ in (reads, again):
                self._compare("GET", page, await self._get(page, reader, {"traceparent": header}))

        await self._in_phase("one price traced", work)
        found = [await self._spans(one) for _, one in (writes, reads, again)]
        seen = traces.Seen(*found, [] if writer is reader else await self._heard(reader, found[0]))
        wrong = seen.wrong()
        self._must(not wrong, f"the traces of a write and a read: {wrong}")
        for line in seen.told():
            self._board.say(line)
        self._board.say()

    async def _spans(self, trace_id: str, patience: float = 10.0) -> list[traces.Span]:
        """Return a trace's spans, from whichever workers have some; a request's own ends after its answer is sent."""
        end = asyncio.get_running_loop().time() + patience
        while asyncio.get_running_loop().time() < end:
            found = [one for worker in self._shop.workers for one in await self._told(worker, trace_id)]
            known = {one.span_id for one in found}
            if found and sum(one.parent_id not in known for one in found) == 1:
                return found
            await asyncio.sleep(0.05)
        raise WrongFigure(f"the trace {trace_id} did not become whole: {found}")

    async def _heard(
        self, reader: Worker, written: list[traces.Span], patience: float = 10.0
    ) -> list[traces.Span]:
        """Return the span of the announcement's arrival in the other worker; it may arrive later."""
        end = asyncio.get_running_loop().time() + patience
        while asyncio.get_running_loop().time() < end:
            for one in traces.named(await self._told(reader), traces.RECEIVE):
                if any(one.is_linked_to(other) for other in written):
                    return [one]
            await asyncio.sleep(0.05)
        raise WrongFigure(f"{reader} made no span of hearing about a commit of {written[0].worker}")

    async def _told(self, worker: Worker, trace_id: str | None = None) -> list[traces.Span]:
        asked = {} if trace_id is None else {"trace_id": trace_id}
        answer = await self._clients[worker].get("/traces", params=asked)
        self._must(answer.is_success, f"GET /traces answered {answer.status_code}")
        return [traces.span(worker.name, one) for one in answer.json()]

    def _category(self, key: int) -> int:
        return int(self._truth.value("SELECT category_id FROM products WHERE id = ?", key))

    # --- figures -----------------------------------------------------------------------------------------------------

    async def _scrape(self) -> Figures:
        """The sum of what the workers say; each has counters of its own."""
        found = []
        for client in self._clients.values():
            response = await client.get("/metrics/")
            self._must(response.is_success, f"GET /metrics/ answered {response.status_code}")
            found.append(Figures(response.text))
        return reduce(add, found)

    async def _refresh(self) -> None:
        while self._board.live:
            self._board.show(table(await self._scrape() - self._first))
            await asyncio.sleep(0.4)

    async def _finish(self) -> Result:
        figures = await self._scrape() - self._first
        for line in table(figures):
            self._board.say(line)
        addresses = " and ".join(f"{worker.address}/metrics/" for worker in self._shop.workers)
        self._board.say(f"\nCounters scraped from {addresses} (summed over the other labels):")
        for line in counters(figures):
            self._board.say(f"  {line}")
        self._board.say()
        least = self._options.min_hit_ratio
        self._must(figures.hit_ratio >= least, f"the hit ratio is {figures.hit_ratio:.1%}, below {least:.1%}")
        self._must(figures.total(EVICTIONS), "nothing was evicted")
        return Result(self._requests, self._compared, figures)
