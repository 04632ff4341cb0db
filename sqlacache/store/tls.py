"""TLS contexts that connections share.

redis-py makes one for each connection, and reads the system's authorities for it: 20 to 100 ms of processor time, while
the event loop stands still. Certificates are renewed while processes run: a file that changed makes a new context.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
_MOST = 8

_contexts: dict[str, Any] = {}


def share(connection: Any, options: Mapping[str, Any]) -> None:
    """Let an encrypted connection of redis-py that is not open yet have the context of others with its ``options``.

    Raises OSError, ValueError and redis-py's RedisError as making one does.
    """
    said = sorted((name, repr(value)) for name, value in options.items() if name.startswith("ssl_"))
    key = repr((said, [_state(options.get(name)) for name in _FILES]))
    if key not in _contexts:
        connection.ssl_context.get()
        while len(_contexts) >= _MOST:
            _contexts.pop(next(iter(_contexts)))
        _contexts[key] = connection.ssl_context
    connection.ssl_context = _contexts[key]


def _state(path: Any) -> Any:
    if not path:
        return None
    found = os.stat(path)
    return found.st_ino, found.st_mtime_ns, found.st_size
