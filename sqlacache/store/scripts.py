"""The server-side scripts of the stamp protocol: named files in ``lua/``, each with its keys and arguments in its head.

``common.lua`` is put before each. A script is called by its digest; a server that lost it gets it again.
"""

from __future__ import annotations

from hashlib import sha1
from importlib.resources import files
from typing import NamedTuple


class Script(NamedTuple):
    """A script's source and the digest that the server knows it by."""

    name: str
    source: bytes
    digest: bytes


def _load(name: str) -> Script:
    folder = files(__package__).joinpath("lua")
    source = b"".join(folder.joinpath(f"{part}.lua").read_bytes() for part in ("common", name))
    return Script(name, source, sha1(source).hexdigest().encode())  # what Redis names scripts by


SAMPLE, FILL, MARK, SETTLE, UNMARK = map(_load, ("sample", "fill", "mark", "settle", "unmark"))
