"""Entries as bytes, for tests that look at those alone."""

from __future__ import annotations

from sqlacache.store.records import NOT_DECODED, entry_of, split_entry
from sqlacache.store.stamps import Entry


def decode_entry(data: bytes) -> Entry:
    """Return an entry whose rows are still encoded (``data``); raise ``SerializationError`` for other bytes."""
    header, rows = split_entry(data)
    return entry_of(header, header.under, rows, NOT_DECODED)
