"""Effects that HTTP servers have no words for, on the TCP connection of a request."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Receive

    from doow_serverless.local._protocol import Answer


class OpenProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, which lets the application reach the transport of its request."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Publish the transport in ``scope["state"]``: each request gets a copy of that."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


def transport_of(scope: Mapping[str, Any]) -> asyncio.Transport:
    """The transport of a request that came through :class:`OpenProtocol`."""
    return cast("asyncio.Transport", scope["state"]["transport"])


async def gone(receive: Receive) -> None:
    """Wait until the connection is closed, by whichever side."""
    while (await receive())["type"] != "http.disconnect":
        pass


def reset(transport: asyncio.Transport) -> None:
    """Close the connection with RST: the other side sees "connection reset by peer"."""
    # A linger time of zero makes close() discard the connection instead of ending it in order.
    linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()


def rendered(answer: Answer) -> tuple[bytes, bytes]:
    """Head and body of an answer as they stand on the wire; the connection ends behind them."""
    try:
        phrase = HTTPStatus(answer.status).phrase
    except ValueError:
        phrase = ""
    headers = {
        "content-type": "application/json",
        **answer.headers,
        "content-length": str(len(answer.body)),
        "connection": "close",
    }
    lines = [f"HTTP/1.1 {answer.status} {phrase}", *(f"{k}: {v}" for k, v in headers.items())]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1"), answer.body


def break_off(transport: asyncio.Transport, answer: Answer, where: str) -> None:
    """End the connection before, within or instead of the answer."""
    head, body = rendered(answer)
    if where == "close":
        transport.close()
        return
    if where == "mid_answer":
        transport.write(head[: len(head) // 2])
    elif where == "mid_body":
        transport.write(head + body[: len(body) // 2])
    reset(transport)


async def drip(
    transport: asyncio.Transport, answer: Answer, head_s: float | None, body_s: float | None
) -> bool:
    """Send an answer byte by byte, and tell whether the client took all of it."""
    for part, pause_s in zip(rendered(answer), (head_s, body_s), strict=True):
        if pause_s is None:
            transport.write(part)
            continue
        for byte in part:
            await asyncio.sleep(pause_s)
            if transport.is_closing():
                return False
            transport.write(bytes([byte]))
    transport.close()
    return True
