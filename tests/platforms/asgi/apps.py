"""The two ends of an ASGI connection by hand: applications that say a script, and a server."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import doow_serverless as doow
from tests.network import ACCEPTED, Peer, Server

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping

    from doow_serverless.asgi import App, Message, Receive, Send
    from doow_serverless.local import Ingest

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
DELIVERED = ["received", "answered"]
"""What :func:`slow_ingest` notes of a POST."""
LAST: Message = {"type": "http.response.body", "body": b"done"}


def http(method: str = "GET", /, **more: Any) -> dict[str, Any]:
    """The scope of a request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        **more,
    }


def websocket(**more: Any) -> dict[str, Any]:
    """The scope of a session."""
    scope = http(**more)
    del scope["method"]
    return {**scope, "type": "websocket", "scheme": "ws", "subprotocols": []}


def start(status: int = 200, *headers: tuple[bytes, bytes], **more: Any) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers), **more}


def body(content: bytes = b"", **more: Any) -> Message:
    return {"type": "http.response.body", "body": content, **more}


def saying(*messages: Message) -> App:
    """An application that sends these messages, and records an event before each."""

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        for message in messages:
            doow.track("messages")
            await send(message)

    return app


def silent(*messages: Message) -> App:
    """An application that sends these messages, and records nothing."""

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def recording(*messages: Message, events: int = 1) -> App:
    """An application that records, and then sends these messages."""

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        for number in range(events):
            doow.track("steps", number + 1)
        for message in messages:
            await send(message)

    return app


class Wire:
    """The server's end of one connection.

    Args:
        incoming: What the application receives, in order; after that nothing comes.
        log: Where the type of each message is noted, beside what others note there.

    Attributes:
        sent: The messages of the application, the very objects.
    """

    def __init__(self, *incoming: Message, log: list[str] | None = None) -> None:
        self._incoming = deque(incoming)
        self.log = [] if log is None else log
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        if not self._incoming:
            await asyncio.Event().wait()
        return self._incoming.popleft()

    async def send(self, message: Message) -> None:
        self.log.append(str(message.get("type")).rpartition(".")[2])
        self.sent.append(message)
        await asyncio.sleep(0)  # As a server does that writes to a socket.

    async def run(self, app: App, scope: MutableMapping[str, Any] | None = None) -> Wire:
        """Have ``app`` serve the connection."""
        await app(http() if scope is None else scope, self.receive, self.send)
        return self

    def serve(self, app: App, scope: MutableMapping[str, Any] | None = None) -> Wire:
        """The same, on a loop of its own."""
        return asyncio.run(self.run(app, scope))


@contextmanager
def slow_ingest(log: list[str], pause_s: float = 0.05) -> Iterator[Server]:
    """An ingest that notes ``received`` and, a while later, ``answered``."""
    over = threading.Event()

    def behave(peer: Peer) -> None:
        while peer.request():
            log.append("received")
            over.wait(pause_s)
            log.append("answered")
            peer.send(ACCEPTED)

    with Server(behave) as server:
        yield server
        over.set()


@contextmanager
def unattended() -> Iterator[str]:
    """The URL of an ingest whose system takes connections, and which never looks at them."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def wait_for_post(ingest: Ingest) -> None:
    """Return once a POST has reached the ingest, although it is not answered yet."""
    while not ingest.posts():
        time.sleep(0.002)


async def later(name: str) -> None:
    """What a background task does on the loop."""
    await asyncio.sleep(0)
    doow.track(name)
