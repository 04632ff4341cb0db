"""Who appears in the contract: readers and writers that use a store as the engine does, one step at a time."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...decisions import Cause, EvictionCause, FillOutcome
from ...store.codec import SafeCodec
from ...store.port import Store
from ...store.stamps import Entry, Sample, StampView, Verdict, decide
from ...tags import EVERYTHING, Shape, TableTouch, table_stamp, touch

TTL = 1000.0
TABLE = "users"
CODEC = SafeCodec()
COLUMN = (("value", None, None, None, None, None, None),)


@dataclass(frozen=True)
class Query:
    """A read of one shape and one combination of values."""

    shape: Shape
    values: tuple[str, ...] = ()

    @property
    def tag(self) -> str:
        """The narrowest stamp that it depends on."""
        return self.shape.tag(self.values) if self.values else self.shape.name

    @property
    def names(self) -> list[str]:
        """The stamps that it depends on."""
        names = [EVERYTHING, table_stamp(self.shape.table), self.shape.name]
        return [*names, self.tag] if self.values else names

    @property
    def key(self) -> str:
        """The name of its entry."""
        return f"{self.shape.table}:get:{self.tag}"


ROW = Query(Shape(TABLE, ("id",), None, keyed=True), ("1",))
OTHER_ROW = Query(ROW.shape, ("2",))
ACTIVE = Query(Shape(TABLE, ("active",), None), ("true",))
NAMES = Query(Shape(TABLE, (), frozenset({"id", "name"})))
ORDER = Query(Shape("orders", ("id",), None, keyed=True), ("1",))


ALL = {EVERYTHING: TableTouch(EVERYTHING, "flush", scope="table")}
"""What an invalidation of everything touches."""


class Data:
    """The database behind a store: a row whose value is how often it was committed."""

    def __init__(self) -> None:
        self.value = 0
        self.told = 0
        """The latest value that a read or a commit that returned has told anybody."""


class Reader:
    """Reads as :class:`sqlacache.read.path.ReadPath` does, and asserts that what it reads was never older before."""

    def __init__(self, store: Store, data: Data, query: Query = ROW) -> None:
        self.store = store
        self.data = data
        self.query = query
        self.sample: Sample = Sample(None, ())
        self.fillable = False
        self.floor = 0
        self.value = 0

    def look(self) -> bool:
        """Look up, and on a miss see to it that shapes are registered and stamps seeded; tell whether it was a hit."""
        query, store = self.query, self.store
        self.floor = self.data.told
        sample = store.lookup(query.key, query.names)
        verdict = decide(query.names, frozenset(), sample)
        registered = True
        if sample.bypass is None and verdict.entry is None:
            missing = any(stamp is None for stamp in sample.stamps)
            if missing or not store.registered([query.shape], query.names, sample):
                sample, registered = store.sample(query.names, [query.shape.table], [query.shape], TTL)
        self.sample = sample
        self.fillable = registered and fillable(sample)
        if sample.bypass is not None or verdict.entry is None:
            return False
        self._tell(rows_of(verdict.entry)[0][0])
        return True

    def load(self) -> None:
        """Read the database."""
        self.value = self.data.value

    def fill(self) -> FillOutcome:
        """Store what was loaded, if it may be, and return it to whoever asked."""
        self._tell(self.value)
        if not self.fillable:
            return "fenced"
        return self.store.fill(self.query.key, entry_of(self.query.names, self.sample, [(self.value,)]))

    def read(self) -> bool:
        """Do all of it; tell whether it was a hit."""
        if self.look():
            return True
        self.load()
        self.fill()
        return False

    def _tell(self, value: int) -> None:
        assert value >= self.floor, f"{self.query.tag}: read {value} after {self.floor} had been told"
        self.data.told = max(self.data.told, value)


@dataclass(frozen=True)
class Row:
    """One row written, with its canonical values."""

    old: Mapping[str, str] | None
    new: Mapping[str, str] | None


@dataclass(frozen=True)
class Written:
    """What one statement wrote."""

    table: str = TABLE
    columns: frozenset[str] | None = None
    rows: Sequence[Row] | None = None
    cause: EvictionCause = "row_update"
    statement: str = "UPDATE users"
    where: Mapping[str, str] | None = None
    after: Mapping[str, str] | None = None


ROW_WRITTEN = Written(rows=(Row({"id": "1", "active": "true"}, {"id": "1", "active": "true"}),))


class Writer:
    """Commits as :class:`sqlacache.write.phases.Commit` does; one that crashes takes no further step."""

    def __init__(self, store: Store, data: Data, *changes: Written) -> None:
        self.store = store
        self.data = data
        self.changes = changes or (ROW_WRITTEN,)
        self.token = secrets.token_hex(8)
        self.refused = 0
        self.committed = 0
        self.looked = False
        self.touched: dict[str, TableTouch] = {}
        self.revisions: dict[str, Any] = {}
        self.causes: dict[str, Cause] = {}

    def look(self) -> None:
        """See which shapes are registered, and what the changes touch."""
        known = self.store.shapes({change.table for change in self.changes})
        keys = {change.table: ("id",) for change in self.changes}
        self.touched = touch(self.changes, {table: shapes for table, (_, shapes) in known.items()}, keys)
        self.revisions = {table: revision for table, (revision, _) in known.items()}
        self.causes = {
            table: Cause(what.cause, table, at=time.time()) for table, what in self.touched.items()
        }
        self.looked = True

    def mark(self) -> dict[str, int]:
        """Phase one; when the registry is not the one looked at, look again."""
        if not self.looked:
            self.look()
        while self.refused < 20:
            replaced = self.store.mark(self.token, self.touched, self.revisions, self.causes)
            if replaced is not None:
                return replaced
            self.refused += 1
            self.look()
        raise AssertionError("refused again and again: shapes() does not come up to date")

    def commit(self) -> None:
        """The database commits."""
        self.data.value += 1
        self.committed = self.data.value

    def settle(self) -> None:
        """Phase two, after which ``commit()`` returns."""
        self.store.settle(self.token, self.touched, self.causes)
        self.data.told = max(self.data.told, self.committed)

    def roll_back(self) -> None:
        """Take phase one back."""
        self.store.unmark(self.token, self.touched)

    def write(self) -> dict[str, int]:
        """Do all of it."""
        replaced = self.mark()
        self.commit()
        self.settle()
        return replaced


def fillable(sample: Sample) -> bool:
    """Tell whether what is read from the database after this sample may be filled."""
    return sample.bypass is None and not any(stamp is None or stamp.in_flight for stamp in sample.stamps)


def entry_of(
    names: Sequence[str],
    sample: Sample,
    rows: Sequence[tuple[Any, ...]] = ((0,),),
    description: tuple[tuple[Any, ...], ...] = COLUMN,
    timeout: float = 300.0,
) -> Entry:
    """Make an entry of captured rows, as :meth:`sqlacache.binding.Binding.entry` does."""
    data = CODEC.encode_rows(description, rows)
    decoded = CODEC.decode_rows(data)
    stamps = tuple(
        (name, stamp.version, stamp.nonce) for name, stamp in zip(names, sample.stamps) if stamp is not None
    )
    now = time.time()
    return Entry(
        stamps=stamps,
        description=decoded.description,
        rows=() if decoded.mutable else decoded.rows,
        data=data if decoded.mutable else None,
        stored_at=now,
        expires_at=now + timeout,
        load_seconds=0.125,
        size=len(data),
        count=len(rows),
        under=sample.under,
        encoded=data,
        trace="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )


def rows_of(entry: Entry) -> Sequence[tuple[Any, ...]]:
    """Return an entry's rows, of which the caller may do what it likes."""
    return entry.rows if entry.data is None else CODEC.decode_rows(entry.data).rows


def seed(store: Store, *queries: Query, ttl: float = TTL) -> Sample:
    """Register the shapes of ``queries`` and seed their stamps; return those of the first."""
    for query in queries:
        found, registered = store.sample(query.names, [query.shape.table], [query.shape], ttl)
        assert registered, f"{query.tag}: something is in the way of registering"
        assert fillable(found), f"{query.tag}: stamps just seeded may not be filled under"
    return look(store, queries[0])


def filled(store: Store, query: Query = ROW) -> Entry:
    """Fill a query's entry and return it."""
    entry = entry_of(query.names, seed(store, query))
    assert store.fill(query.key, entry) == "stored"
    return entry


def look(store: Store, query: Query = ROW) -> Sample:
    """Look a query up."""
    return plain(store.lookup(query.key, query.names))


def plain(sample: Sample) -> Sample:
    """Return a sample whose stamps can be compared; a store may give objects of its own that are like them."""
    stamps = [
        stamp and StampView(stamp.version, stamp.nonce, stamp.in_flight, stamp.cause)
        for stamp in sample.stamps
    ]
    return sample._replace(stamps=stamps)


def decided(store: Store, query: Query = ROW) -> Verdict:
    """Look a query up and decide what that means."""
    keys = {query.tag} if query.shape.keyed else ()
    return decide(query.names, frozenset(keys), look(store, query))


def nonces(sample: Sample) -> list[int | None]:
    """Return the nonces of a sample's stamps."""
    return [None if stamp is None else stamp.nonce for stamp in sample.stamps]


def rows(*stamps: str, table: str = TABLE) -> dict[str, TableTouch]:
    """What a write of some rows touches."""
    return {table: TableTouch(table, "row_update", stamps=dict.fromkeys(stamps))}


def whole(table: str = TABLE) -> dict[str, TableTouch]:
    """What a write of a whole table touches."""
    return {table: TableTouch(table, "bulk_write", scope="table")}


def mark(store: Store, token: str, touched: Mapping[str, TableTouch], cause: Cause | None = None) -> Any:
    """Phase one under the registries as they are."""
    revisions: dict[str, Any] = {}
    for _ in range(20):
        revisions = {table: revision for table, (revision, _) in store.shapes(touched).items()}
        replaced = store.mark(token, touched, revisions, causes(touched, cause))
        if replaced is not None:
            return replaced
    raise AssertionError(f"refused again and again under {revisions}")


def settle(store: Store, token: str, touched: Mapping[str, TableTouch], cause: Cause | None = None) -> None:
    """Phase two."""
    store.settle(token, touched, causes(touched, cause))


def causes(touched: Iterable[str], cause: Cause | None = None) -> dict[str, Cause]:
    """Return a cause for each table touched."""
    return {table: replace(cause or Cause("row_update", table, at=1.0), table=table) for table in touched}


def shapes(store: Store, table: str = TABLE) -> Collection[Shape]:
    """Return the shapes that a writer knows who is accepted."""
    mark(store, "ffff", {table: TableTouch(table, "row_update")})
    store.unmark("ffff", {table: TableTouch(table, "row_update")})
    return set(store.shapes([table])[table][1])
