"""How a WSGI server may leave a response: closed, half-way, for ever; and what that costs."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless.local import Fault
from doow_serverless.wsgi import DoowMiddleware
from tests.metering import Trace, accepted, configure
from tests.network import Metronome
from tests.platforms.wsgi.apps import Server, call
from tests.platforms.wsgi.shapes import TEXT, Closing
from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless.local import Ingest


def complete(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [("Content-Length", "4")])
    doow.track("complete")
    yield b"text"


# ── close() ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("chunks", [0, 1, None], ids=["unused", "half-way", "exhausted"])
def test_close_is_called_once_and_its_events_arrive(chunks: int | None, trace: Trace) -> None:
    """However much of the response was asked for, when ``close()`` returns."""
    body = Closing(b"some ", b"text", records="closed")

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [TEXT])
        return body

    if chunks == 0:
        call(DoowMiddleware(app)).close()
    else:
        Server(DoowMiddleware(app)).get(chunks=chunks)
    assert body.closed == 1
    assert accepted(trace.ingest) == ["closed"]


def test_a_generator_that_is_closed_half_way_cleans_up(trace: Trace) -> None:
    """What its ``finally`` records has arrived when the server's ``close()`` returns."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [TEXT])
        try:
            yield b"some "
            yield b"text"
        finally:
            doow.track("cleaned up")

    Server(DoowMiddleware(app), trace).get(chunks=1)
    assert trace.calls[-1] == ("over", None, 1)


def test_close_sends_a_head_that_was_kept(trace: Trace) -> None:
    """A server that does not iterate for HEAD still learns what the application has said."""
    heads: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [TEXT])
        doow.track("tokens")
        return Closing(b"text")

    call(DoowMiddleware(app), lambda *head: heads.append(head), method="HEAD").close()
    assert heads == [("200 OK", [TEXT])]


# ── servers that never close ───────────────────────────────────────────────────────────────────


def test_without_close_all_of_a_whole_response_arrives(trace: Trace) -> None:
    """At its end, not later."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [TEXT])
        doow.track("first")
        yield b"text"
        doow.track("last")

    Server(DoowMiddleware(app), trace, closes=False).get()
    assert trace.calls[-2:] == [("end", None, 2), ("over", None, 2)]


def test_a_response_that_is_dropped_half_way_loses_nothing(trace: Trace) -> None:
    """Its events leave with the next flush, also what a generator records as it is dropped."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [TEXT])
        doow.track("first")
        try:
            yield b"some "
        finally:
            doow.track("dropped")

    Server(DoowMiddleware(app), closes=False).get(chunks=1)
    gc.collect()
    assert accepted(trace.ingest) == []
    Server(DoowMiddleware(complete)).get()
    assert sorted(accepted(trace.ingest)) == ["complete", "dropped", "first"]


def test_a_response_that_nobody_asked_for_loses_nothing(trace: Trace) -> None:
    """Neither iterated over nor closed: what the call has recorded leaves with the next flush."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [TEXT])
        doow.track("first")
        return Closing(b"text")

    call(DoowMiddleware(app))
    gc.collect()
    assert doow.flush().accepted == 1
    assert accepted(trace.ingest) == ["first"]


# ── the budget ─────────────────────────────────────────────────────────────────────────────────


def twice(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [TEXT])
    doow.track("tokens")
    return Closing(b"text", records="closed")


def test_completion_and_close_share_one_budget(doow_ingest: Ingest) -> None:
    """Of a server that answers, but slowly: what is left after the first flush is all there is."""
    configure(doow_ingest)
    doow_ingest.fault(Fault(delay_s=0.5, times=None))
    with Metronome() as noise:
        elapsed_s = seconds(lambda: Server(DoowMiddleware(twice, budget=0.7)).get())
    within(elapsed_s, 0.9 + 2 * noise.worst_s, at_least_s=0.65)
    assert len(doow_ingest.wait_for(2)) == 2


def seconds(call: Callable[[], object]) -> float:
    """How long ``call`` takes."""
    began_at = time.perf_counter()
    call()
    return time.perf_counter() - began_at
