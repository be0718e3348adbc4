"""The file that a tracked handler class writes to is the file that it was, to all who use it."""

from __future__ import annotations

import io
from contextlib import nullcontext
from typing import Any

import pytest

import doow_serverless as doow
from tests.metering import Trace, accepted, unmetered
from tests.platforms.vercel.handler_classes import (
    as_it_is,
    exchange,
    handler_class,
    in_several_writes,
    no_content,
    request,
    serving,
    writes,
)


@pytest.mark.parametrize("data", ["text", None, 4, ["text"]])
def test_what_is_no_bytes_is_refused_as_ever(data: Any, trace: Trace) -> None:
    """The same exception, with the same words, and the response goes on."""
    raised: list[str] = []

    def do(self: Any) -> None:
        self.head(200, Content_Length="4")
        for file in (self.wire, self.wfile):
            with pytest.raises(TypeError) as problem:
                file.write(data)
            raised.append(str(problem.value))
        doow.track("tokens")
        self.wfile.write(b"text")

    assert writes(do, trace)[-1] == (b"text", 1)
    assert raised[0] == raised[1]


def test_wfile_says_what_the_file_says(trace: Trace) -> None:
    """Its answers are passed on, also how much was written."""
    answers: list[Any] = []

    def do(self: Any) -> None:
        self.head(200, Content_Length="4")
        answers.extend(
            [file.writable(), file.readable(), file.closed, file.fileno(), file.flush()]
            for file in (self.wire, self.wfile)
        )
        answers.append(self.wfile.write(b"text"))

    writes(do, trace)
    assert answers[0] == answers[1]
    assert answers[2] == 4


def test_wfile_is_a_context_manager(trace: Trace) -> None:
    """As every file is; that it is closed then meets the server in the same way."""

    def do(self: Any) -> None:
        self.head(200, Content_Length="4", Connection="close")
        doow.track("tokens")
        with self.wfile as file:
            file.write(b"text")
        assert self.wfile.closed

    outcomes = []
    for track, surroundings in ((doow.tracked, nullcontext()), (as_it_is, unmetered())):
        with surroundings, serving(track(handler_class(do))) as server:
            answer = exchange(server, request(Connection="close"))
            outcomes.append((answer, [repr(problem) for problem in server.errors]))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0].endswith(b"\r\n\r\ntext")
    assert accepted(trace.ingest)[0] == "tokens"


def test_wfile_is_the_file_again_afterwards(trace: Trace) -> None:
    """Between two requests nothing of ours is left; a file that the handler put there stays."""
    left: list[str] = []
    own = io.BytesIO()

    def do_POST(self: Any) -> None:  # noqa: N802  # its name is the contract
        self.head(204)
        self.wfile = own

    def handle_one_request(self: Any) -> None:
        super(type(self), self).handle_one_request()
        left.append({self.wire: "the server's", own: "the handler's"}.get(self.wfile, "ours"))

    cls = doow.tracked(
        handler_class(no_content, do_POST=do_POST, handle_one_request=handle_one_request)
    )
    with serving(cls) as server:
        exchange(server, request(), request("POST"))
    assert left == ["the server's", "the handler's", "the handler's"]


def test_a_buffered_wfile_is_flushed_by_the_server(trace: Trace) -> None:
    """``wbufsize`` lets writes wait, and nothing changes about what completes the response."""
    cls = doow.tracked(handler_class(in_several_writes, wbufsize=-1))
    with serving(cls) as server:
        assert exchange(server, request(Connection="close")).endswith(b"\r\n\r\ntext")
    assert accepted(trace.ingest) == ["tokens", "more tokens", "late"]
