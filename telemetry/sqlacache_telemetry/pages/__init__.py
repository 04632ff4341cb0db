"""Pages for people: what this process decided and invalidated lately, and why. Off until an application mounts them.

::

    from sqlacache_telemetry.pages import Pages

    app.mount("/sqlacache", Pages(cache, auth=may_look))          # FastAPI, Starlette, any ASGI router
    app.mount("/sqlacache", Pages(cache, development=True))       # on a developer's machine
    DispatcherMiddleware(app.wsgi_app, {"/sqlacache": WSGIPages(cache, auth=may_look)})       # Flask, by Werkzeug

``may_look`` takes the ASGI scope (headers, client) and returns, or as a coroutine function resolves to, ``True`` for
those who may look; anything else is refused. The pages are read-only, load nothing from elsewhere, set no cookies, and
show of keys and values what decisions carry, no more. Behind each page is JSON, under ``api/``.

They take Jinja2: ``pip install 'sqlacache[pages]'``. See ``docs/pages.md``.
"""

from __future__ import annotations

from .access import Auth, Scope
from .app import Pages
from .wsgi import WSGIPages

__all__ = ["Auth", "Pages", "Scope", "WSGIPages"]
