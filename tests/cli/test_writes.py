"""``touched`` and ``invalidate`` evict as a commit does: exactly, everywhere, and what is being read, too."""

from __future__ import annotations

import datetime
import io
import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Date, Integer, MetaData, String, Table, event, func, select
from sqlalchemy.dialects import postgresql

from sqlacache.canonical import Private, canonicaliser, is_open
from sqlacache.cli import writes
from sqlacache.cli.connect import Where, connected
from tests.support.models import Order, Stock, Team, User
from tests.support.processes import until
from tests.support.redis_server import RedisServer

from .conftest import Command, Shop

pytestmark = pytest.mark.integration


def filled(shop: Shop) -> None:
    """Read what the tests then read again, so that a second read is a hit."""
    for model, key in READS:
        shop.get(model, key)
    shop.ask(NAMES)
    shop.ask(TEAMS)
    shop.ask(ORDERS)


READS = [(User, 1), (User, 2), (Stock, ("north", 7)), (Stock, ("a:b,c", 7)), (Team, 1)]
NAMES = select(User.id, User.name)
TEAMS = select(User.team_id)
ORDERS = select(func.count()).select_from(Order)


def lost(shop: Shop) -> list[Any]:
    """Return what is no longer served, of all that :func:`filled` read."""
    found = [(model.__name__, key) for model, key in READS if shop.get(model, key).decision != "hit"]
    more = {"names": NAMES, "teams": TEAMS, "orders": ORDERS}
    return [*found, *(name for name, statement in more.items() if shop.ask(statement).decision != "hit")]


def test_a_row_that_was_touched_is_evicted_with_what_may_list_it(cli: Command, shop: Shop) -> None:
    filled(shop)
    out = cli("touched", "users", "--columns", "name", "--pks", "1").well
    assert out == "users: 2 stamps replaced (rows): users:1, users(id,name):*\n"
    assert lost(shop) == [("User", 1), "names"]


def test_the_miss_names_the_call(cli: Command, shop: Shop) -> None:
    filled(shop)
    cli("touched", "users", "--pks", "2")
    decision = shop.get(User, 2)
    assert decision.reason == "manual_invalidated" and decision.cause is not None
    assert (decision.cause.cause, decision.cause.statement) == ("touched", "sqlacache touched")
    assert decision.cause.keys == ("users:2",)


def test_without_keys_every_row_of_the_table_is_touched_and_no_other_table(cli: Command, shop: Shop) -> None:
    filled(shop)
    assert json.loads(cli("touched", "users", "--json").well)["scope"] == "table"
    assert lost(shop) == [("User", 1), ("User", 2), "names", "teams"]


def test_with_columns_what_reads_other_columns_stays(cli: Command, shop: Shop) -> None:
    filled(shop)
    cli("touched", "users", "--columns", "team_id")
    assert lost(shop) == [("User", 1), ("User", 2), "teams"]


@pytest.mark.parametrize(
    ("spelt", "evicted"),
    [
        pytest.param("sku=7:warehouse=north", [("Stock", ("north", 7))], id="named"),
        pytest.param("warehouse=north:sku=007", [("Stock", ("north", 7))], id="in any order"),
        pytest.param("sku=7:warehouse=a%3Ab%2Cc", [("Stock", ("a:b,c", 7))], id="with separators in a value"),
        pytest.param("sku=7:warehouse=south", [], id="no such row"),
        pytest.param(
            "sku=7:warehouse=north,sku=7:warehouse=a%3Ab%2Cc",
            [("Stock", ("north", 7)), ("Stock", ("a:b,c", 7))],
            id="two of them",
        ),
    ],
)
def test_a_composite_key_is_spelt_with_the_names_of_its_columns(
    cli: Command, shop: Shop, spelt: str, evicted: list[Any]
) -> None:
    filled(shop)
    cli("invalidate", "stock", "--pks", spelt)
    assert lost(shop) == evicted


@pytest.mark.parametrize("spelt", ["7", "north:7", "sku=7", "sku=7:warehouse=a:b", "sku=7:sku=8", "a=1:b=2"])
def test_a_composite_key_without_its_names_is_refused(cli: Command, shop: Shop, spelt: str) -> None:
    filled(shop)
    assert "takes sku=...:warehouse=..., got" in cli("invalidate", "stock", "--pks", spelt).problem
    assert lost(shop) == []


def test_a_table_whose_key_no_read_has_registered_is_evicted_as_a_whole(cli: Command, shop: Shop) -> None:
    filled(shop)
    done = cli("invalidate", "orders", "--pks", "99")
    assert "no cached read of orders is narrowed by its primary key" in done.err
    assert lost(shop) == ["orders"] and done.status == 0


def test_a_column_that_no_read_names_is_told(cli: Command, shop: Shop) -> None:
    filled(shop)
    done = cli("touched", "users", "--columns", "nmae")
    assert (
        done.status == 0 and "no cached read names the column 'nmae' of users (is it spelt so?)" in done.err
    )
    assert "names" not in lost(shop)


def test_an_unknown_table_is_an_error_that_names_those_known(cli: Command, shop: Shop) -> None:
    filled(shop)
    for command in ("touched", "invalidate"):
        assert "it has something of orders, stock, teams, users" in cli(command, "nope").problem
        assert cli(command, "nope", "--if-known").well == "nope: 0 stamps replaced (rows)\n"
    assert lost(shop) == []


def test_everything_goes_only_if_that_is_confirmed(
    cli: Command, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(shop)
    for answer in ("", "n\n", "perhaps\n"):
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        assert cli("invalidate", "--all").status == 1
    assert lost(shop) == []
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert cli("invalidate", "--all").well == "everything: 1 stamp replaced (table): *\n"
    assert len(lost(shop)) == len(READS) + 3
    assert lost(shop) == []
    assert cli("invalidate", "--all", "--yes").status == 0
    assert len(lost(shop)) == len(READS) + 3


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((), id="nothing"),
        pytest.param(("users", "--all"), id="both"),
        pytest.param(("--all", "--yes", "--pks", "1"), id="all with keys"),
        pytest.param(("users", "--pks", "1,,2"), id="an empty key"),
        pytest.param(("users", "--pks", "\ud800"), id="no text of any database"),
    ],
)
def test_what_cannot_be_meant_evicts_nothing(cli: Command, shop: Shop, arguments: tuple[str, ...]) -> None:
    filled(shop)
    assert cli("invalidate", *arguments).problem
    assert lost(shop) == []


def test_a_read_under_way_is_neither_served_nor_stored(cli: Command, shop: Shop) -> None:
    """::

    1. A read misses, samples its stamps and asks the database.
    2. The row is written elsewhere, and the command tells of it.
    3. The read comes back with what it saw before: it must not be stored.
    """
    shop.get(User, 2)  # the table is known

    @event.listens_for(shop.engine, "after_cursor_execute", once=True)
    def meanwhile(*_: Any) -> None:
        assert cli("touched", "users", "--pks", "1").status == 0

    first = shop.get(User, 1)
    assert (first.decision, first.fill) == ("miss", "fenced")
    assert shop.get(User, 1).decision == "miss"
    assert shop.get(User, 1).decision == "hit"


def test_a_read_registered_between_looking_and_marking_is_evicted_too(
    cli: Command, shop: Shop, server: RedisServer, prefix: str
) -> None:
    shop.get(User, 1)
    with connected(Where(server.url, prefix, "shop")) as one:
        store = one.one()
        mark: Callable[..., Any] = store.mark
        answers = []

        def late(*arguments: Any) -> Any:
            if not answers:
                assert shop.ask(NAMES).fill == "stored"
            answers.append(mark(*arguments))
            return answers[-1]

        store.mark = late
        writes.replace_rows(one, store, "users", ["1"], None, "touched", "test")
    assert answers[0] is None and len(answers) == 2
    assert shop.ask(NAMES).reason == "manual_invalidated"


def test_what_was_marked_is_released_when_the_command_is_interrupted(
    cli: Command, shop: Shop, server: RedisServer, prefix: str
) -> None:
    key = shop.get(User, 1).key
    with connected(Where(server.url, prefix, "shop")) as one:
        store = one.one()

        def interrupted(*_: Any) -> None:
            raise KeyboardInterrupt

        store.settle = interrupted
        with pytest.raises(KeyboardInterrupt):
            writes.replace_rows(one, store, "users", ["1"], None, "touched", "test")
    found = json.loads(cli("explain", str(key), "--json").well)
    assert found["reason"] == "manual_invalidated" and not any(one["in_flight"] for one in found["stamps"])


def test_every_process_hears_of_it(
    cli: Command, shop: Shop, open_shop: Callable[..., Shop], server: RedisServer
) -> None:
    evictions: list[Any] = []
    shop.cache.on_evict(evictions.append)
    shop.get(User, 1)
    cli("invalidate", "users", "--pks", "1")
    until(lambda: evictions, "the process to hear of it")
    assert [(one.table, one.cause.cause, one.tags) for one in evictions] == [
        ("users", "explicit", ("users:1",))
    ]


_TYPES: list[Any] = [
    (Integer(), st.integers(-(2**63), 2**63)),
    (String(), st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]))),
    (Date(), st.dates()),
    (postgresql.UUID(as_uuid=True), st.uuids()),
]


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_key_as_the_database_shows_it_is_found_whatever_its_type(data: st.DataObject) -> None:
    type_, values = data.draw(st.sampled_from(_TYPES))
    value = data.draw(values)
    column: Column[Any] = Column("id", type_)
    Table("t", MetaData(), column)
    canonical = canonicaliser(column, postgresql.asyncpg.dialect())
    assert canonical is not None
    text, shown = canonical(value), is_open(column, postgresql.asyncpg.dialect())
    for known in (shown, None):
        assert (type(text), text) in [(type(one), one) for one in writes.spellings(str(value), shown=known)]


def test_a_key_has_few_spellings() -> None:
    assert writes.spellings("42", shown=True) == ["42"]
    assert writes.spellings("42", shown=False) == [Private("42")]
    assert writes.spellings("42") == ["42", Private("42")]  # an integer's, and a string's
    assert writes.spellings("007", shown=False) == ["007", "7"]
    assert writes.spellings("null") == ["%6Eull"]
    assert writes.spellings(datetime.date(2024, 2, 29).isoformat()) == ["2024-02-29"]
    one = uuid.UUID(int=2**127)
    assert writes.spellings(str(one).upper(), shown=True) == [str(one)]
    assert set(writes.spellings(one.hex)) == {one.hex, str(one)}
    assert writes.spellings("1", alone=False, shown=False) == ["1", "true"]
