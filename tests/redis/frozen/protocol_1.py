"""A process that speaks protocol 1, as it was first released: its scripts are copied into ``protocol_1/``.

It uses nothing of the library. If a test with it fails, running processes of the released version would, too: give the
new format another protocol number instead of changing this file.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from struct import Struct
from typing import Any, NamedTuple
from zlib import crc32

import msgpack
import redis

SCRIPTS = Path(__file__).parent / "protocol_1"
ENTRY = Struct(">4sII")
ROWS = ((1, "ann"), (2, None))
DESCRIPTION = (("id", *[None] * 6), ("name", *[None] * 6))


class Looked(NamedTuple):
    """What a lookup came to: ``hit``, ``miss`` or ``bypass``, and the entry's rows or the stamps sampled."""

    decision: str
    rows: bytes | None
    stamps: list[bytes | None]


class Process:
    """One process of the released version, on one table of one database."""

    def __init__(self, url: str, prefix: str, table: str = "users", lease: int = 30_000) -> None:
        self.redis = redis.Redis.from_url(url, protocol=2)
        self.run = self.redis.info("server")["run_id"].encode()
        self.prefix = prefix
        self.root = f"{prefix}:1:main:"
        self.table = table
        self.lease = lease
        self.generation = b""
        self.token = secrets.token_hex(8)

    def close(self) -> None:
        """Close the connection."""
        self.redis.close()

    def _script(self, name: str, keys: Sequence[str], arguments: Sequence[Any], token: str = "") -> Any:
        source = "".join((SCRIPTS / f"{part}.lua").read_text() for part in ("common", name))
        head = [1, self.run, secrets.token_hex(6), token, self.lease]
        return self.redis.eval(source, len(keys), *keys, *head, *arguments)

    def _head(self) -> list[str]:
        return [f"{self.prefix}:generation", f"{self.prefix}:fence"]

    def _of_table(self) -> list[str]:
        return [
            f"{self.root}w:{self.table}",
            f"{self.root}r:{self.table}",
            f"{self.root}s:{self.table}#table",
        ]

    def lookup(self, key: str, names: Sequence[str]) -> Looked:
        """Look an entry up."""
        generation, fence, mode, data, *stamps = self.redis.mget(
            *self._head(),
            f"{self.prefix}:mode",
            f"{self.root}e:{key}",
            *(f"{self.root}s:{name}" for name in names),
        )
        if fence is not None or mode is not None:
            return Looked("bypass", None, stamps)
        if generation is None or not generation.startswith(b"1|" + self.run + b"|"):
            return Looked("miss", None, [None] * len(names))
        self.generation = generation
        if data is None or None in stamps:
            return Looked("miss", None, stamps)
        magic, checksum, length = ENTRY.unpack_from(data)
        header = data[ENTRY.size : ENTRY.size + length]
        assert (magic, checksum) == (b"sqle", crc32(header))
        under, filled, *_ = msgpack.unpackb(header, use_list=False)
        current = [(name, int(stamp.split(b"|")[0], 16)) for name, stamp in zip(names, stamps)]
        flying = any(stamp.split(b"|")[3] for stamp in stamps)
        if under != generation or flying or [(name, nonce) for name, _, nonce in filled] != current:
            return Looked("miss", None, stamps)
        return Looked("hit", data[ENTRY.size + length :], stamps)

    def sample(self, names: Sequence[str], shapes: Sequence[tuple[str, list[str], Any, bool]]) -> Looked:
        """Register shapes (name, columns, footprint, keyed) and seed the stamps of a miss."""
        arguments: list[Any] = [60_000, 512, 2, 0, len(shapes)]
        for name, columns, footprint, keyed in shapes:
            arguments += [name, msgpack.packb([self.table, columns, footprint, keyed])]
        everything = [f"{self.root}w:*", f"{self.root}r:*", f"{self.root}s:*"]
        stamps = [f"{self.root}s:{name}" for name in names]
        status, generation, found = self._script(
            "sample", [*self._head(), *everything, *self._of_table(), *stamps], arguments
        )
        self.generation = generation
        return Looked({b"ok": "miss", b"busy": "miss"}.get(status, "bypass"), None, found)

    def fill(self, key: str, names: Sequence[str], stamps: Sequence[bytes], rows: bytes) -> bytes:
        """Store an entry under stamps as they were sampled."""
        parts = [stamp.split(b"|") for stamp in stamps]
        filled = [(name, int(part[1]), int(part[0], 16)) for name, part in zip(names, parts)]
        now = time.time()
        header = msgpack.packb([self.generation, filled, now, now + 60, 0.001, len(ROWS)])
        data = ENTRY.pack(b"sqle", crc32(header), len(header)) + header + rows
        keys = [*self._head(), f"{self.root}e:{key}", *(f"{self.root}s:{name}" for name in names)]
        outcome: bytes = self._script("fill", keys, [data, 60_000, *(part[0] for part in parts)])
        return outcome

    def mark(self, names: Sequence[str]) -> None:
        """Phase one of a commit that touches stamps."""
        revision = self.redis.hget(f"{self.root}r:{self.table}", "") or b""
        assert self._commit("mark", names, revision)[0] == b"ok"

    def settle(self, names: Sequence[str]) -> None:
        """Phase two."""
        self._commit("settle", names, b"")

    def _commit(self, script: str, names: Sequence[str], revision: bytes) -> Any:
        cause = ["row_update", self.table, list(names), ["name"], "UPDATE users", 1.5, 7, "old-host", None]
        message = [1, "frozen", 2, time.time(), [[self.table, list(names), json.dumps(cause)]]]
        keys = [*self._head(), *self._of_table(), *(f"{self.root}s:{name}" for name in names)]
        arguments = [
            f"{self.root}commits",
            json.dumps(message),
            1,
            len(names),
            revision,
            json.dumps(cause),
        ]
        return self._script(script, keys, arguments, self.token)
