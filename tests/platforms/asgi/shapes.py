"""ASGI applications of every shape, as a server or an adapter may serve them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import doow_serverless as doow
from doow_serverless.asgi import DoowMiddleware

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from doow_serverless.asgi import App, Message, Receive, Send

TEXT = (b"content-type", b"text/plain")
LENGTH_0 = (b"content-length", b"0")
LENGTH_9 = (b"content-length", b"9")


def start(status: int, *headers: tuple[bytes, bytes], **more: Any) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers), **more}


def body(content: bytes = b"", **more: Any) -> Message:
    return {"type": "http.response.body", "body": content, **more}


MORE = {"more_body": True}
SHAPES: dict[str, tuple[str, list[Message]]] = {
    "plain": ("GET", [start(200, TEXT, LENGTH_9), body(b"some text")]),
    "plain without length": ("GET", [start(200, TEXT), body(b"some text")]),
    "stream": ("GET", [start(200, TEXT), body(b"some ", **MORE), body(b"text", **MORE), body()]),
    "stream of a length": (
        "GET",
        [start(200, TEXT, LENGTH_9), body(b"some ", **MORE), body(b"text", **MORE), body()],
    ),
    "empty": ("GET", [start(200, TEXT), body()]),
    "empty of a length": ("GET", [start(200, TEXT, LENGTH_0), body()]),
    "no content": ("DELETE", [start(204), body()]),
    "unchanged": ("GET", [start(304, (b"etag", b'"1"')), body()]),
    "redirect": ("GET", [start(302, (b"location", b"/"), LENGTH_0), body()]),
    "redirect without length": ("GET", [start(302, (b"location", b"/")), body()]),
    "HEAD": ("HEAD", [start(200, TEXT, LENGTH_9), body()]),
    "HEAD without length": ("HEAD", [start(200, TEXT), body()]),
    "HEAD of a stream": (
        "HEAD",
        [start(200, TEXT), body(b"some ", **MORE), body(b"text", **MORE), body()],
    ),
    "HEAD of a redirect": ("HEAD", [start(302, (b"location", b"/"), LENGTH_0), body()]),
    "error": ("GET", [start(500, TEXT, LENGTH_9), body(b"some text")]),
    "unavailable": ("GET", [start(503, LENGTH_0), body()]),
    "trailers": (
        "GET",
        [
            start(200, TEXT, (b"trailer", b"x-sum"), trailers=True),
            body(b"some text"),
            {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]},
        ],
    ),
    "early hint": (
        "GET",
        [
            {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]},
            start(200, TEXT, LENGTH_9),
            body(b"some text"),
        ],
    ),
    "pathsend": (
        "GET",
        [start(200, TEXT), {"type": "http.response.pathsend", "path": str(Path(__file__))}],
    ),
}
"""Each with a method, and the messages that the application sends."""

FAULTS: dict[str, tuple[str, list[Message]]] = {
    "two starts": ("GET", [start(204), start(200, TEXT), body(b"some text")]),
    "no start": ("GET", [body(b"some text")]),
    "length overrun": ("GET", [start(200, LENGTH_9), body(b"some more text")]),
    "more after the end": ("GET", [start(200, TEXT), body(b"some text"), body(b"more")]),
    "only a start": ("GET", [start(204)]),
    "only a start for HEAD": ("HEAD", [start(200, TEXT)]),
    "nothing": ("GET", []),
    "broken off": ("GET", [start(200, TEXT), body(b"some ", **MORE), {"type": "raise"}]),
    "broken off at once": ("GET", [{"type": "raise"}]),
    "broken off after a start": ("GET", [start(204), {"type": "raise"}]),
}
"""Those of applications that fail, or do not keep to the specification."""

ALL = {**SHAPES, **FAULTS}
PATHS = {name: f"/{number}" for number, name in enumerate(ALL)}
NEEDS = {
    "trailers": "http.response.trailers",
    "early hint": "http.response.early_hint",
    "pathsend": "http.response.pathsend",
}
"""The extension that a shape is for; without it the application sends the plain one."""


async def site(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    """All of them, by path. Each records the number before its messages, and something after."""
    if scope["type"] != "http":
        await _live(scope, receive, send)
        return
    number = scope["path"].strip("/")
    name = list(ALL)[int(number)]
    if name in NEEDS and NEEDS[name] not in (scope.get("extensions") or {}):
        name = "plain"
    doow.track(number)
    for message in ALL[name][1]:
        if message["type"] == "raise":
            raise LookupError("no such customer")
        await send(dict(message))
    doow.track("afterwards")


async def _live(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    while scope["type"] == "lifespan":
        phase = (await receive())["type"]
        await send({"type": f"{phase}.complete"})
        if phase == "lifespan.shutdown":
            return


WRAPPED: dict[str, App] = {"middleware": DoowMiddleware(site), "tracked": doow.tracked(site)}
"""Ways to meter the site."""


async def wrapped(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    """The site once for each way, below its name."""
    way, _, path = str(scope.get("path")).strip("/").partition("/")
    if scope["type"] == "http":
        await WRAPPED[way]({**scope, "path": path}, receive, send)
    else:
        await _live(scope, receive, send)
