"""How values appear in the names of stamps and entries: as keyed digests, unless they are shown on purpose.

Inside a process, values are compared as canonical text (:mod:`.canonical`). Text becomes a *name* at two places only:
in a tag (:meth:`.tags.Shape.tag`) and in an entry's key (:mod:`.read.identify`). Names then go everywhere: to Redis,
into announcements and the causes that stamps carry, to observers, spans, logs, explanations and the command line. So
that is where values are replaced, and nothing that is made of names has to be looked at again:

- ``users:42``, the primary key of an integer or UUID column, stays: it is what people look for, and says nothing.
- ``users:~<digest>``: a primary key of another type.
- ``users?email=~<digest>``: any value of a condition, an integer's too (it may be a salary, or a person's number).
- ``null`` stays: it is the absence of a value.

**One shape, one rule.** Reader and writer must come to the same name, or a commit would miss an entry. Whether a value
is shown depends on the shape alone, which both have (the reader registers it), and on the type of the text. It does not
depend on what a process's metadata says of foreign keys or primary keys, which may differ from service to service.

A digest is BLAKE2b of table, column and text under a key. The same value in two columns has two digests, so that
knowing one (``active=true``) does not give away the other. Two values with one digest share a stamp: a write of one
evicts the other's reads as well, and no read is answered with the other's rows, since digests of 128 bits of all
parameters, not tags, are what entries are found by.

**The key** must be the same in all processes under one prefix. It is ``digest_key=`` or ``SQLACACHE_DIGEST_KEY``.
Without one it is derived from the prefix: several workers agree out of the box, from their first statement on, whether
Redis answers or not; but it is no secret, and whoever has a digest, the prefix and the source of this module can find
by trial which of the values they think of it is. (A random key in Redis itself would be no secret to whoever reads
Redis either, could be evicted or lost with the server, and would not be there for what is written while it is down.)

**Different keys never share.** The number of a scheme (how values appear, and under which key) is part of the protocol
number in the generation that every lookup reads, as that of another version of the library is::

    1. Worker A has one key, worker B another (or shows values). A has cached the reads of ``users?email=...``.
    2. B commits a change to that row. Its stamps have other names: those of A's entries stay as they are.
    3. But phase one of B's commit found A's number in the generation: it has replaced the generation, which voids all
       that A has stored, and raised the fence, for as long as a writer may be under way.
    4. A's next lookup finds neither its generation nor, until the fence is gone, a way to fill: ``protocol_mismatch``.

So both read from the database for as long as both are at work, and ``health()`` says why. A key is changed like a
version: worker by worker, with a cold cache afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b

Conceal = Callable[[str, str, str], str]
"""Returns what stands for a canonical text, given the table, the column and the text."""

MARK = "~"
"""What a digest in a name begins with; no canonical text of an integer or UUID does."""
SIZE = 12
"""Bytes of a digest in a name."""
LEAST_KEY = 16
"""Characters of a key, at least: a short one is found by trial."""
REMEMBERED = 4096
"""Values whose digests a process remembers."""


class Digests:
    """What stands for values in names.

    Args:
        prefix: Of the cache, from which the key is derived if there is none.
        key: The key, the same in all processes under the prefix.
        exposed: Values are shown as they are.
    """

    def __init__(self, prefix: str, key: str | None = None, *, exposed: bool = False) -> None:
        self.is_secret = key is not None and not exposed
        """Whether digests are under a key of the user's own."""
        self.conceal: Conceal | None = None
        """Returns the digest of a value; ``None`` where values are shown."""
        self.scheme = 0
        """Number of how values appear here, and under which key; 0 where they are shown."""
        self.entry_key = b""
        """Key of the digests that entries are stored under."""
        if exposed:
            return
        secret = blake2b(
            (key if key is not None else f"prefix {prefix}").encode(), person=b"sqlacache digest"
        ).digest()
        self.scheme = int.from_bytes(_derived(secret, b"scheme")[:5], "big") or 1
        self.entry_key = _derived(secret, b"entries")
        self.conceal = lru_cache(REMEMBERED)(_concealing(_derived(secret, b"names")))


def _derived(secret: bytes, purpose: bytes) -> bytes:
    return blake2b(purpose, key=secret, digest_size=32).digest()


def _concealing(key: bytes) -> Conceal:
    def conceal(table: str, column: str, text: str) -> str:
        given = "\0".join((table, column, text)).encode("utf-8", "surrogatepass")
        return MARK + blake2b(given, key=key, digest_size=SIZE).hexdigest()

    return conceal


EXPOSED = Digests("", exposed=True)
"""Shows values as they are."""
