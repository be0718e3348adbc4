"""Tracked handler classes on a real server: which write completes a response, and that it waits."""

from __future__ import annotations

import array
import codecs
import io
import shutil
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from tests.metering import Trace, accepted, unmetered
from tests.platforms.vercel.handler_classes import (
    Base,
    as_it_is,
    exchange,
    handler_class,
    in_several_writes,
    no_content,
    request,
    serving,
    writes,
)

if TYPE_CHECKING:
    from doow_serverless.local import Ingest


OK = b"HTTP/1.1 200 OK"
# A chunk of 16 octets, within which it looks as if the body had ended; and the last one.
SPLIT_CHUNKS = (b"1", b"0\r\n0\r\n\r\nte", b"xtxtxtxt!\r", b"\n", b"0\r", b"\n\r", b"\n")


# ── which write completes a response ───────────────────────────────────────────────────────────


def in_one_write(self: Any) -> None:
    self.head(200, Content_Length="4")
    doow.track("tokens")
    self.wfile.write(b"text")
    doow.track("late")


def in_too_many_writes(self: Any) -> None:
    doow.track("tokens")
    self.head(200, Content_Length="3")
    self.wfile.write(b"te")
    self.wfile.write(b"xt")
    self.wfile.write(b"!")


def head_and_body_at_once(self: Any) -> None:
    doow.track("tokens")
    self.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length:4 \r\n\r\ntext")
    self.close_connection = True


def head_in_pieces(self: Any) -> None:
    doow.track("tokens")
    for part in (b"HTTP/1.1 200 OK\r\nConnection: cl", b"ose\r\nContent-Length: 4\r\n\r", b"\nte"):
        self.wfile.write(part)
    self.wfile.write(b"xt")
    self.close_connection = True


def empty(self: Any) -> None:
    doow.track("tokens")
    self.head(200, Content_Length="0")
    doow.track("late")


def not_modified(self: Any) -> None:
    doow.track("tokens")
    self.head(304, Content_Length="4")


def head_alone(self: Any) -> None:
    doow.track("tokens")
    self.head(200, Content_Length="4")


def without_length(self: Any) -> None:
    """Complete when the connection is closed, which is when the handler is done."""
    doow.track("tokens")
    self.head(200, Connection="close")
    self.wfile.write(b"te")
    self.wfile.write(b"xt")


def in_chunks(self: Any) -> None:
    doow.track("tokens")
    self.head(200, Transfer_Encoding="chunked")
    self.wfile.write(b"4\r\ntext\r\n")
    self.wfile.write(b"0\r\n\r\n")


def in_split_chunks(self: Any) -> None:
    doow.track("tokens")
    self.head(200, Transfer_Encoding="gzip, Chunked")
    for part in SPLIT_CHUNKS:
        self.wfile.write(part)


def in_chunks_at_once(self: Any) -> None:
    doow.track("tokens")
    self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ntext\r\n0\r\n\r\n")


def in_no_chunks(self: Any) -> None:
    doow.track("tokens")
    self.head(200, Transfer_Encoding="chunked")
    self.wfile.write(b"0\r\n\r\n")


def in_chunks_like_the_last(self: Any) -> None:
    """A stream of CSV, one line of which is a zero."""
    self.head(200, Transfer_Encoding="chunked")
    self.wfile.write(b"3\r\n0\r\n\r\n")
    doow.track("tokens")
    self.wfile.write(b"3\r\n1\r\n\r\n")
    self.wfile.write(b"0\r\n\r\n")


def in_chunks_with_trailers(self: Any) -> None:
    doow.track("tokens")
    self.head(200, Transfer_Encoding="chunked", Trailer="Sum")
    self.wfile.write(b"4\r\ntext\r\n")
    self.wfile.write(b"0\r\nSum: 1\r\n\r\n")


def in_chunks_with_split_trailers(self: Any) -> None:
    doow.track("tokens")
    self.head(200, Transfer_Encoding="chunked", Trailer="Sum, Mean")
    for part in (b"4\r\ntext\r\n0\r\nSum: 1\r\n", b"Mean: 1\r\n", b"\r\n"):
        self.wfile.write(part)


def after_early_hints(self: Any) -> None:
    doow.track("tokens")
    self.send_response_only(103)
    self.send_header("Link", "</style.css>")
    self.end_headers()
    self.head(200, Content_Length="4")
    self.wfile.write(b"text")


def after_early_hints_at_once(self: Any) -> None:
    doow.track("tokens")
    self.wfile.write(
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntext"
    )


def in_lines(self: Any) -> None:
    doow.track("tokens")
    self.head(200, Content_Length="4")
    self.wfile.writelines([b"te", b"xt"])


def through_text(self: Any) -> None:
    doow.track("tokens")
    self.head(200, Content_Length="5")
    text = io.TextIOWrapper(self.wfile, encoding="utf-8", write_through=True)
    text.write("größe"[:2])
    text.write("öß")
    text.detach()


def through_a_codec(self: Any) -> None:
    doow.track("tokens")
    self.head(200, Content_Length="4")
    codecs.getwriter("latin-1")(self.wfile).write("größ")


def by_copying(self: Any) -> None:
    doow.track("tokens")
    self.head(200, Content_Length="4")
    shutil.copyfileobj(io.BytesIO(b"text"), self.wfile, 2)


def of_other_types(self: Any) -> None:
    """Octets count, not items."""
    doow.track("tokens")
    self.head(200, Content_Length="12")
    self.wfile.write(bytearray(b"te"))
    self.wfile.write(memoryview(b"xt"))
    self.wfile.write(array.array("H", [1, 2]))
    self.wfile.write(memoryview(array.array("H", [1, 2])))


CASES: dict[Any, list[tuple[bytes, int]]] = {
    in_one_write: [(OK, 0), (b"text", 1)],
    in_several_writes: [(OK, 0), (b"te", 0), (b"", 0), (b"x", 0), (b"t", 2)],
    in_too_many_writes: [(OK, 0), (b"te", 0), (b"xt", 1), (b"!", 1)],
    head_and_body_at_once: [(OK, 1)],
    head_in_pieces: [(OK, 0), (b"ose\r\nContent-Length: 4\r\n\r", 0), (b"\nte", 0), (b"xt", 1)],
    empty: [(OK, 1)],
    no_content: [(b"HTTP/1.1 204 No Content", 1)],
    not_modified: [(b"HTTP/1.1 304 Not Modified", 1)],
    without_length: [(OK, 0), (b"te", 0), (b"xt", 0)],
    in_chunks: [(OK, 0), (b"4\r\ntext\r\n", 0), (b"0\r\n\r\n", 1)],
    in_split_chunks: [
        (OK, 0), *((part, 0) for part in SPLIT_CHUNKS[:-1]), (SPLIT_CHUNKS[-1], 1),
    ],
    in_chunks_at_once: [(OK, 1)],
    in_no_chunks: [(OK, 0), (b"0\r\n\r\n", 1)],
    in_chunks_like_the_last: [
        (OK, 0), (b"3\r\n0\r\n\r\n", 0), (b"3\r\n1\r\n\r\n", 0), (b"0\r\n\r\n", 1),
    ],
    in_chunks_with_trailers: [(OK, 0), (b"4\r\ntext\r\n", 0), (b"0\r\nSum: 1\r\n\r\n", 1)],
    in_chunks_with_split_trailers: [
        (OK, 0), (b"4\r\ntext\r\n0\r\nSum: 1\r\n", 0), (b"Mean: 1\r\n", 0), (b"\r\n", 1),
    ],
    after_early_hints: [(b"HTTP/1.1 103 Early Hints", 0), (OK, 0), (b"text", 1)],
    after_early_hints_at_once: [(b"HTTP/1.1 103 Early Hints", 1)],
    in_lines: [(OK, 0), (b"te", 0), (b"xt", 1)],
    through_text: [(OK, 0), (b"gr", 0), ("öß"[:1].encode() + "ß".encode(), 1)],
    through_a_codec: [(OK, 0), ("größ".encode("latin-1"), 1)],
    by_copying: [(OK, 0), (b"te", 0), (b"xt", 1)],
    of_other_types: [
        (OK, 0), (b"te", 0), (b"xt", 0), (b"\1\0\2\0", 0), (b"\1\0\2\0", 1),
    ],
}  # fmt: skip


@pytest.mark.parametrize("do", CASES)
def test_the_write_that_completes_a_response_waits(do: Any, trace: Trace) -> None:
    """Doow has accepted the events when it goes to the client; all others go at once."""
    assert writes(do, trace) == CASES[do]


def test_a_head_completes_the_response_to_head(trace: Trace) -> None:
    """Whatever length it tells."""
    assert writes(head_alone, trace, "HEAD") == [(OK, 1)]


def test_an_old_client_waits_for_the_end_of_the_connection(trace: Trace) -> None:
    """HTTP/1.0 without a length: all is delivered before the connection is closed."""
    seen = []

    def finish(self: Any) -> None:
        seen.append(accepted(trace.ingest))
        super(type(self), self).finish()

    sent = writes(without_length, trace, protocol_version="HTTP/1.0", finish=finish)
    assert sent == [(b"HTTP/1.0 200 OK", 0), (b"te", 0), (b"xt", 0)]
    assert seen == [["tokens"]]


def test_the_client_may_have_to_ask_for_the_answer_first(trace: Trace) -> None:
    """``100 Continue`` is no response, and is never held."""

    def do(self: Any) -> None:
        self.rfile.read(4)
        in_one_write(self)

    cls = doow.tracked(handler_class(do, "POST", trace=trace))
    with serving(cls) as server:
        head = request("POST", Expect="100-continue", Content_Length="4", Connection="close")
        answer = exchange(server, head + b"body")
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert [accepted for _, _, accepted in trace.calls] == [0, 0, 1]


def test_late_events_arrive_before_the_handler_is_done(trace: Trace) -> None:
    """What is recorded after the last write is delivered when ``do_GET`` returns."""
    seen = []

    def finish(self: Any) -> None:
        seen.append(accepted(trace.ingest))
        super(type(self), self).finish()

    writes(in_one_write, trace, finish=finish)
    assert seen == [["tokens", "late"]]
    assert len(trace.ingest.posts()) == 2


@pytest.mark.parametrize("do", [*CASES, head_alone])
def test_the_bytes_are_those_of_the_class_untracked(do: Any, doow_ingest: Ingest) -> None:
    """The response does not tell whether its handler is metered."""
    Trace(doow_ingest)
    answers = []
    for track, surroundings in ((doow.tracked, nullcontext()), (as_it_is, unmetered())):
        with (
            surroundings,
            serving(track(handler_class(do, "HEAD" if do is head_alone else "GET"))) as server,
        ):
            method = "HEAD" if do is head_alone else "GET"
            answers.append(exchange(server, request(method, Connection="close")))
            assert server.errors == []
    assert answers[0] == answers[1]


def test_a_handler_without_response_delivers(trace: Trace) -> None:
    """One that says nothing at all, or no head (HTTP/0.9)."""

    def do(self: Any) -> None:
        doow.track("tokens")
        self.wfile.write(b"text")
        self.close_connection = True

    assert issubclass(handler_class(do), Base)
    assert writes(do, trace) == [(b"text", 0)]
    assert accepted(trace.ingest) == ["tokens"]
