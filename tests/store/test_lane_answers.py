"""What a server answers to lookups is taken apart wherever the network cut it."""

from __future__ import annotations

import pytest
from redis.connection import Connection

from sqlacache.store.lane import Values, pack, parse

STREAM = b"*3\r\n$1\r\na\r\n$-1\r\n$0\r\n\r\n-MOVED 1 h:1\r\n*1\r\n$6\r\n\r\n*1\r\n\r\n*0\r\n"
ANSWERS: list[Values | None] = [[b"a", None, b""], None, [b"\r\n*1\r\n"], []]


def taken(stream: bytes) -> tuple[list[Values | None], int]:
    """The answers at the beginning of ``stream``, and where they end."""
    found, at = [], 0
    while at < len(stream):
        end, answer = parse(stream, at)
        if not end:
            break
        found.append(answer)
        at = end
    return found, at


def test_answers_follow_one_another() -> None:
    assert taken(STREAM) == (ANSWERS, len(STREAM))


def test_what_is_not_all_there_is_waited_for_wherever_it_ends() -> None:
    for cut in range(len(STREAM)):
        found, at = taken(STREAM[:cut])
        assert found == ANSWERS[: len(found)]
        rest, end = taken(STREAM[at:])
        assert found + rest == ANSWERS
        assert at + end == len(STREAM)


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 400\r\n", b"+OK\r\n", b"$1\r\na\r\n", b"*x\r\n", b"*1\r\n$x\r\n"]
)
def test_anything_else_is_no_answer(said: bytes) -> None:
    with pytest.raises(ValueError):
        parse(said, 0)


def test_a_command_is_sent_as_redis_py_sends_it() -> None:
    command = (b"MGET", "shop:é", b"\x00\r\n", "")
    theirs = Connection().pack_command(*command)
    assert pack(command) == b"".join(theirs)
