"""Errors of sqlacache: one base, so that ``except CacheError`` catches them all.

::

    CacheError
    ├── ConfigError         wrong configuration, found by configure() or bind()
    ├── TransportError      the backend could not be reached or answered wrongly
    └── SerializationError  a value has no safe byte form (a fill counts it; a read never sees it)

None of them is raised into a query: the cache being wrong or dead costs speed only. ``ConfigError`` is raised to the
person who configures, ``TransportError`` only where ``on_error="raise"`` asks for it or by calls such as
:meth:`CacheManager.invalidate`.
"""

from __future__ import annotations


class CacheError(Exception):
    """Base of every error that sqlacache raises."""


class ConfigError(CacheError, ValueError):
    """Wrong configuration: names the key, what it got (secrets masked) and what it takes."""


class TransportError(CacheError):
    """The backend could not be reached, timed out or answered wrongly."""


class SerializationError(CacheError):
    """A value that the driver returned has no safe byte form, or bytes are not of this format."""
