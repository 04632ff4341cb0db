"""Values typed at the command line find what applications named by digests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from .conftest import Application
from .people import Person, Seat, Ticket

pytestmark = pytest.mark.integration

KEY = "a key of all workers"
ANN = select(Person.nick).where(Person.nick == "ann")


def warm(one: Application) -> None:
    for _ in range(2):
        one.get(Person, "ann@example.com")
        one.get(Person, "bob@example.com")
        one.get(Seat, (1, "ann@example.com"))
        one.get(Ticket, 1)
        one.ask(ANN)


def decided(one: Application) -> dict[str, str | None]:
    return {
        "ann": one.decided(lambda: one.get(Person, "ann@example.com"))[1],
        "bob": one.decided(lambda: one.get(Person, "bob@example.com"))[1],
        "seat": one.decided(lambda: one.get(Seat, (1, "ann@example.com")))[1],
        "ticket": one.decided(lambda: one.get(Ticket, 1))[1],
    }


@pytest.mark.parametrize(
    ("options", "environment"),
    [({}, {}), ({"digest_key": KEY}, {"SQLACACHE_DIGEST_KEY": KEY}), ({"expose_values": True}, {})],
    ids=["default", "keyed", "exposed"],
)
def test_a_row_is_found_by_what_the_database_shows_of_its_key(
    options: dict[str, Any], environment: dict[str, str], on_redis: Callable[..., Application], cli: Any
) -> None:
    one = on_redis(**options)
    gone = "manual_invalidated"
    for arguments, evicted in (
        (["invalidate", "people", "--pks", "ann@example.com"], "ann"),
        (["touched", "people", "--pks", "bob@example.com"], "bob"),
        (["touched", "seats", "--pks", "hall=1:holder=ann@example.com"], "seat"),
        (["invalidate", "tickets", "--pks", "1"], "ticket"),
    ):
        warm(one)
        status, said = cli(*arguments, **environment)
        assert status == 0, said
        assert ("example.com" in said) == (options.get("expose_values", False) and evicted != "ticket")
        assert decided(one) == {**dict.fromkeys(("ann", "bob", "seat", "ticket")), evicted: gone}


def test_the_key_of_the_application_is_needed_for_values_and_for_nothing_else(
    on_redis: Callable[..., Application], cli: Any
) -> None:
    one = on_redis(digest_key=KEY)
    warm(one)
    for environment in ({}, {"SQLACACHE_DIGEST_KEY": "another key of sixteen"}):
        status, said = cli("invalidate", "people", "--pks", "ann@example.com", **environment)
        assert status == 2
        assert (
            said.startswith("sqlacache: ") and "digests under another key" in said and said.count("\n") == 1
        )
        assert decided(one) == dict.fromkeys(("ann", "bob", "seat", "ticket"))
    for command in (["stats"], ["health"], ["mode"]):
        assert cli(*command)[0] == 0
    assert cli("touched", "people", "--columns", "nick")[0] == 0
    assert one.decided(lambda: one.ask(ANN)) == ("miss", "manual_invalidated")
    assert one.decided(lambda: one.get(Ticket, 1)) == ("hit", None)  # nothing was voided by the way
    assert one.cache.health().status == "ok"
    status, _ = cli("invalidate", "people", "--pks", "ann@example.com", "--digest-key", KEY)
    assert status == 0
    assert cli("invalidate", "--all", "--yes")[0] == 0
    assert one.decided(lambda: one.get(Ticket, 1)) == ("miss", "manual_invalidated")


def test_an_entry_is_explained_by_its_key_whoever_asks(
    on_redis: Callable[..., Application], cli: Any
) -> None:
    one = on_redis(digest_key=KEY)
    with one.cache.record() as seen:
        one.ask(ANN)
    key = str(seen.decisions[-1].key)
    status, said = cli("explain", key)
    assert (status, said.startswith("HIT")) == (0, True), said
    one.cache.invalidate(Person)
    assert cli("explain", key)[1].startswith("MISS (manual_invalidated)")
