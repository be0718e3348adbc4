"""How a WSGI server may leave a response: closed, half-way, for ever; and what that costs."""

from __future__ import annotations

import gc
import threading
import time
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless.local import Fault
from doow_serverless.wsgi import DoowMiddleware
from tests.network import Metronome, silent
from tests.network import Server as TcpServer
from tests.platforms.wsgi.apps import (
    TEXT,
    Closing,
    Server,
    Trace,
    call,
    configure,
    metrics,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless.local import Ingest


@pytest.fixture
def trace(doow_ingest: Ingest) -> Trace:
    return Trace(doow_ingest)


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
    assert metrics(trace.ingest) == ["closed"]


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
    assert metrics(trace.ingest) == []
    Server(DoowMiddleware(complete)).get()
    assert sorted(metrics(trace.ingest)) == ["complete", "dropped", "first"]


def test_a_response_that_nobody_asked_for_loses_nothing(trace: Trace) -> None:
    """Neither iterated over nor closed: what the call has recorded leaves with the next flush."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [TEXT])
        doow.track("first")
        return Closing(b"text")

    call(DoowMiddleware(app))
    gc.collect()
    assert doow.flush().accepted == 1
    assert metrics(trace.ingest) == ["first"]


@pytest.mark.parametrize("ends", [True, False], ids=["ends", "goes on"])
@pytest.mark.parametrize("closes", [True, False], ids=["closed", "not closed"])
def test_what_a_thread_records_afterwards_leaves_with_the_next_flush(
    closes: bool, ends: bool, trace: Trace
) -> None:
    """In the context of a request that is over, whether or not the thread has ended by then."""
    is_over, has_recorded, may_end = threading.Event(), threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def afterwards() -> None:
        is_over.wait(10)
        doow.track("afterwards")
        has_recorded.set()
        may_end.wait(10)

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [TEXT])
        doow.track("tokens")
        context = copy_context()
        threads.append(threading.Thread(target=context.run, args=(afterwards,), daemon=True))
        threads[0].start()
        yield b"text"

    Server(DoowMiddleware(app), closes=closes).get()
    is_over.set()
    assert has_recorded.wait(10)
    if ends:
        may_end.set()
        threads[0].join()
        del threads[:]
        gc.collect()
    Server(DoowMiddleware(complete)).get()
    may_end.set()
    assert sorted(metrics(trace.ingest)) == ["afterwards", "complete", "tokens"]


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
    assert 0.65 < elapsed_s < 0.9 + 2 * noise.worst_s
    assert len(doow_ingest.wait_for(2)) == 2


@pytest.mark.parametrize("app", [twice, complete])
def test_a_silent_server_costs_one_budget(
    app: Any, new_tracker: Callable[..., doow.Tracker]
) -> None:
    """And the response is the same in the end."""
    with TcpServer(silent) as server:
        tracker = new_tracker(server.url, on_error=lambda _: None)
        served = DoowMiddleware(app, budget=0.3, tracker=tracker)
        with Metronome() as noise:
            elapsed_s = seconds(lambda: Server(served).get())
    assert 0.25 < elapsed_s < 0.5 + 2 * noise.worst_s


def seconds(call: Callable[[], object]) -> float:
    """How long ``call`` takes."""
    began_at = time.perf_counter()
    call()
    return time.perf_counter() - began_at
