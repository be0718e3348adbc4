"""The live page at ``/``: what arrives, as it arrives; and faults that can be switched on.

It is a tool of one machine, and pages of strangers must not reach it: what is asked for under
another name than this machine's own is refused, as is what another page has asked for; nothing
changes but by POST; and the page loads nothing from elsewhere, nor runs what it was sent.
"""

from __future__ import annotations

import asyncio
import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from doow_serverless.local._faults import Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from doow_serverless.local._app import App

GUARDED = ("/_page/", "/_local/")
"""What is for the page, and for tools on this machine; and ``/`` itself."""
_NAMES = {"127.0.0.1", "localhost", "[::1]"}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_ASSETS = {"page.js": "text/javascript", "page.css": "text/css", "icon.svg": "image/svg+xml"}
_PAUSE_S = 0.2

FAULTS: dict[str, Fault] = {
    "delay": Fault(delay_s=1.0, times=None),
    "429": Fault(rate_limit_s=5.0, times=None),
    "limit": Fault(rate_limit_s=30.0, times=3),
    "500": Fault(status=500, times=None),
    "503": Fault(status=503, headers={"Retry-After": "1"}, times=None),
    "silent": Fault(hang=True, times=None),
    "lost": Fault(reset="before_answer", record_first=True, times=1),
    "reset": Fault(reset="before_answer", times=None),
    "401": Fault(status=401, times=None),
}
"""What can be switched on from the page."""


class Page:
    """The routes of the page.

    Args:
        app: What they look at, and change.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._fault = ""

    def routes(self) -> list[Route]:
        """For the application's own."""
        return [
            Route("/", self._index),
            Route("/_page/state", self._state),
            Route("/_page/stream", self._stream),
            Route("/_page/fault", self._set_fault, methods=["POST"]),
            Route("/_page/clear", self._clear, methods=["POST"]),
            Route("/_page/{name}", self._asset),
        ]

    async def _index(self, _: Request) -> Response:
        return Response(_read("index.html"), media_type="text/html", headers=_HEADERS)

    async def _asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _ASSETS:
            return _said(404, "there is no such file")
        return Response(_read(name), media_type=_ASSETS[name], headers=_HEADERS)

    async def _state(self, request: Request) -> Response:
        """Everything that the page shows, for what it is filtered by."""
        asked = request.query_params
        try:
            before = int(asked["before"]) if "before" in asked else None
            after, most = int(asked.get("after", 0)), int(asked.get("most", 100))
        except ValueError:
            return _said(400, "before, after and most are whole numbers")
        view, app = self._app.view, self._app
        with app.changed:
            state: dict[str, Any] = {
                "version": app.version,
                "count": view.count(),
                "events": view.events(
                    before=before,
                    after=after,
                    metric=asked.get("metric", ""),
                    license_id=asked.get("license_id", ""),
                    text=asked.get("text", ""),
                    most=most,
                ),
            }
            if before is None:
                state |= {
                    "totals": view.totals(),
                    "minutes": view.minutes(),
                    "batches": view.batches(),
                    "rejections": view.rejections(),
                    "fault": self._fault if app.faults.waiting else "",
                    "heartbeats": app.heartbeats,
                    "takes_any_key": app.keys.accepted is None,
                }
        return Response(json.dumps(state), media_type="application/json", headers=_HEADERS)

    async def _stream(self, request: Request) -> Response:
        """Tells of every change, a few times a second at most."""

        async def changes() -> AsyncIterator[str]:
            told, quiet = -1, 0
            while not await request.is_disconnected():
                version = self._app.version
                if version != told:
                    told, quiet = version, 0
                    yield f"data: {version}\n\n"
                elif (quiet := quiet + 1) % 75 == 0:
                    yield ": still there\n\n"
                await asyncio.sleep(_PAUSE_S)

        return StreamingResponse(changes(), media_type="text/event-stream", headers=_HEADERS)

    async def _set_fault(self, request: Request) -> Response:
        name = (await request.json()).get("name") if await request.body() else None
        if name not in {"", *FAULTS}:
            return _said(400, "there is no such fault")
        with self._app.changed:
            self._app.faults.clear()
            if name:
                self._app.faults.append(FAULTS[name])
            self._fault = name
            self._app.version += 1
        return _said(200, "")

    async def _clear(self, _: Request) -> Response:
        self._app.reset()
        return _said(200, "")


class Guard:
    """Refuses what strangers' pages ask of the page, and of the tools on this machine."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what may pass."""
        path = scope.get("path", "")
        if scope["type"] == "http" and (path == "/" or path.startswith(GUARDED)):
            refusal = _refusal(scope)
            if refusal is not None:
                await _said(403, refusal)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _refusal(scope: Scope) -> str | None:
    """Why a request may not pass, if it may not."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    host = headers.get("host", "")
    if host.rpartition(":")[0] not in _NAMES and host not in _NAMES:
        return "ask for this page by the name of this machine: 127.0.0.1 or localhost"
    origin = headers.get("origin")
    if origin is not None and origin != f"http://{host}":
        return "another page has asked for this"
    if headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}:
        return "another page has asked for this"
    is_page = scope["path"].startswith("/_page/")
    if is_page and scope["method"] == "POST" and origin is None:
        return "only the page itself may change anything"
    return None


def _said(status: int, message: str) -> Response:
    content = {"message": message} if message else {"ok": True}
    return JSONResponse(content, status_code=status, headers=_HEADERS)


def _read(name: str) -> bytes:
    return (files("doow_serverless.local") / "page" / name).read_bytes()
