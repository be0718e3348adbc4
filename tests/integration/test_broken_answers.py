"""Answers that end before they are complete: they decide nothing."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from doow_serverless._delivery.connection import Connection
from doow_serverless._delivery.transport import HttpTransport
from doow_serverless.errors import ErrorKind
from doow_serverless.testing import TransportFault
from tests.batches import batch
from tests.integration.services import Service
from tests.network import ACCEPTED, KEY, Peer, Server, dripping_body, dripping_head, silent
from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless import Tracker

HEAD = b"HTTP/1.1 202 Accepted\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
ENDLESS = b"HTTP/1.0 202 Accepted\r\n\r\n{"
BROKEN = {
    "status": b"HTTP/1.1 202 Acc",
    "status without its line feed": b"HTTP/1.1 202 Accepted\r",
    "status alone": HEAD,
    "header": HEAD + b"Content-Ty",
    "headers without the empty line": HEAD + b"Content-Length: 0\r\n",
    "interim status": b"HTTP/1.1 103 Early",
    "interim headers": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n",
    "after an interim answer": b"HTTP/1.1 100 Continue\r\n\r\n",
    "head after an interim answer": b"HTTP/1.1 103 Early Hints\r\n\r\n" + HEAD,
    "body": HEAD + b"Content-Length: 10\r\n\r\n{",
    "body that has not begun": HEAD + b"Content-Length: 10\r\n\r\n",
    "no chunk": CHUNKED,
    "size of a chunk": CHUNKED + b"2",
    "chunk": CHUNKED + b"2\r\n{",
    "before the last chunk": CHUNKED + b"2\r\n{}\r\n",
    "last chunk": CHUNKED + b"2\r\n{}\r\n0",
}
WHOLE = {
    "length": ACCEPTED,
    "after interim answers": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hint\r\n\r\n" + ACCEPTED,
    "chunks": CHUNKED + b"2\r\n{}\r\n0\r\n\r\n",
    "chunks and trailers": CHUNKED + b"2\r\n{}\r\n0\r\nX-Sum: 1\r\n\r\n",
    "chunks and a broken trailer": CHUNKED + b"2\r\n{}\r\n0\r\nX-Su",
    "last chunk without the empty line": CHUNKED + b"2\r\n{}\r\n0\r\n",
    "until the connection ends": b"HTTP/1.0 202 Accepted\r\n\r\n{}",
    "bare line feeds": b"HTTP/1.1 202 Accepted\nContent-Length: 2\n\n{}",
}


def saying(answer: bytes) -> Callable[[Peer], None]:
    """Read one request, send this, and close the connection in order."""

    def behave(peer: Peer) -> None:
        peer.request()
        peer.send(answer)

    return behave


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
def test_a_broken_answer_leaves_it_open_what_arrived(answer: bytes) -> None:
    """Wherever the server closes the connection before the end of its answer."""
    with Server(saying(answer)) as server:
        transport = HttpTransport(server.url, timeout_s=30)
        with pytest.raises(TransportFault) as caught:
            transport.post(batch(), KEY)
    fault = caught.value
    assert (fault.kind, fault.is_unsent) == (ErrorKind.NETWORK_ERROR, False)


@pytest.mark.parametrize("answer", WHOLE.values(), ids=WHOLE)
def test_a_complete_answer_counts(answer: bytes) -> None:
    """Whatever frames its body, and whatever is missing behind a complete one."""
    with Server(saying(answer)) as server:
        received = HttpTransport(server.url, timeout_s=30).post(batch(), KEY)
    assert (received.status, received.body, received.is_cut) == (202, b"{}", False)


def test_an_answer_without_a_body_is_complete() -> None:
    """A 204 has none, even if it names a length."""
    with Server(saying(b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n")) as server:
        received = HttpTransport(server.url, timeout_s=30).post(batch(), KEY)
    assert (received.status, received.body) == (204, b"")


@pytest.mark.parametrize("line", [b"HTTP/1.1 202 ", b"HTTP/1.1 202 Accepted\r\nX-Long: "])
def test_a_line_that_is_too_long_is_no_answer(line: bytes) -> None:
    """At most 64 KiB of a line are read."""
    behave = saying(line + b"a" * 70_000 + b"\r\n\r\n")
    with Server(behave) as server, pytest.raises(TransportFault, match="LineTooLong"):
        HttpTransport(server.url, timeout_s=30).post(batch(), KEY)


@pytest.mark.parametrize(
    "answer",
    [b"", HEAD + b"X-Slow: zzz", HEAD, ENDLESS, CHUNKED + b"1\r\n{"],
    ids=["silence", "header", "status", "body without a length", "chunks"],
)
def test_an_answer_that_we_cut_off_decides_nothing(answer: bytes) -> None:
    """It looks as if the server had closed the connection, but the reason is the timeout."""
    has_sent = threading.Event()

    def behave(peer: Peer) -> None:
        peer.request()
        peer.send(answer)
        has_sent.set()
        peer.wait_for_end()

    connection = Connection(None, {})
    faults: list[TransportFault] = []

    def post(url: str) -> None:
        try:
            connection.post(url, b"{}", {}, 600.0)
        except TransportFault as fault:
            faults.append(fault)

    with Server(behave) as server:
        thread = threading.Thread(target=post, args=[server.url])
        thread.start()
        assert has_sent.wait(30)
        # Before it reads a body that ends with the connection, http.client gives up the socket.
        while answer is ENDLESS and getattr(connection._live, "sock", answer) is not None:
            time.sleep(0.01)
        connection.abort()
        thread.join(10)
        assert not thread.is_alive()
    connection.close()
    told = [(fault.kind, str(fault), fault.is_unsent, fault.is_stale) for fault in faults]
    assert told == [(ErrorKind.TIMEOUT, "the server did not answer in time", False, False)]


def test_a_flush_reports_nothing_as_accepted(new_tracker: Callable[..., Tracker]) -> None:
    """The events of a broken answer are sent again, in the same batch."""
    answers = [HEAD + b"Content-Ty", ACCEPTED]

    def behave(peer: Peer) -> None:
        peer.request()
        peer.send(answers.pop(0))

    with Server(behave) as server:
        service = Service(new_tracker, server.url)
        service.invoke("evt_1")
        batches = {request.batch["batch_id"] for request in server.requests}
    assert (len(server.requests), len(batches)) == (2, 1)
    assert [(each.accepted, each.requests) for each in service.outcomes] == [(1, 2)]


@pytest.mark.parametrize("hang", [silent, dripping_head, dripping_body])
def test_the_timeout_holds_for_a_request_that_a_flush_waits_for(
    hang: Callable[[Peer], None], new_tracker: Callable[..., Tracker]
) -> None:
    """The request is cut off, and sent again within the same flush."""

    def behave(peer: Peer) -> None:
        if peer.number == 0:
            hang(peer)
        elif peer.request():
            peer.send(ACCEPTED)

    with Server(behave) as server:
        service = Service(new_tracker, server.url, budget=30.0, timeout=0.3)
        service.invoke("evt_1")
        batches = {request.batch["batch_id"] for request in server.requests}
    assert (len(server.requests), len(batches)) == (2, 1)
    assert [(each.accepted, each.requests) for each in service.outcomes] == [(1, 2)]


@pytest.mark.parametrize("hang", [silent, dripping_head, dripping_body])
def test_the_timeout_holds_for_a_request_that_no_flush_waits_for(
    hang: Callable[[Peer], None], new_tracker: Callable[..., Tracker]
) -> None:
    """It is cut off although no invocation comes any more."""
    is_cut_off = threading.Event()

    def behave(peer: Peer) -> None:
        try:
            hang(peer)
        finally:
            is_cut_off.set()

    with Server(behave) as server:
        service = Service(new_tracker, server.url, budget=0.1, timeout=0.3)
        service.invoke("evt_1")
        assert is_cut_off.wait(30)
    assert [each.unsent for each in service.outcomes] == [{ErrorKind.TIMEOUT: 1}]


@pytest.mark.parametrize("hang", [silent, dripping_head, dripping_body])
def test_the_timeout_holds_for_a_heartbeat(hang: Callable[[Peer], None]) -> None:
    """Although nobody waits for it, as an outbox does for its requests."""
    with Server(hang) as server:
        transport = HttpTransport(server.url, timeout_s=0.5)
        began = time.monotonic()
        with pytest.raises(TransportFault) as caught:
            transport.connect(KEY)
        within(time.monotonic() - began, 10, at_least_s=0.4)
    assert (caught.value.kind, transport.has_idle()) == (ErrorKind.TIMEOUT, False)
