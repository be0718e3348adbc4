"""Connections that are kept between invocations, and have died meanwhile in one way or another."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import pytest

from doow_serverless import Outcome
from tests.network import ACCEPTED, Peer, Server, accepting
from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless import Tracker

BUDGET_S = 1.0


def closed_while_idle(peer: Peer) -> None:
    """(a) The first connection ends in order after its first answer."""
    peer.request()
    peer.send(ACCEPTED)
    while peer.number and peer.request():
        peer.send(ACCEPTED)


def reset_while_idle(peer: Peer) -> None:
    """(a) The first connection is reset after its first answer."""
    peer.request()
    peer.send(ACCEPTED)
    if peer.number == 0:
        time.sleep(0.05)  # Until the answer is read: a reset discards what was not.
        peer.reset()
    while peer.request():
        peer.send(ACCEPTED)


def closed_after_reading(peer: Peer) -> None:
    """(b) The first connection is closed once its second request is read, without an answer."""
    peer.request()
    peer.send(ACCEPTED)
    while peer.request() and peer.number:
        peer.send(ACCEPTED)


def reset_after_reading(peer: Peer) -> None:
    """(b) The first connection is reset once its second request is read."""
    peer.request()
    peer.send(ACCEPTED)
    while peer.request():
        if peer.number == 0:
            peer.reset()
        peer.send(ACCEPTED)


def silently_dead(peer: Peer) -> None:
    """(c) The first connection swallows all but its first request; new ones work."""
    peer.request()
    peer.send(ACCEPTED)
    while peer.request():
        if peer.number:
            peer.send(ACCEPTED)


WAYS = [
    pytest.param(closed_while_idle, 1, 0.1, id="closed-while-idle"),
    pytest.param(reset_while_idle, 1, 0.1, id="reset-while-idle"),
    pytest.param(closed_after_reading, 2, 0.1, id="closed-after-reading"),
    pytest.param(reset_after_reading, 2, 0.1, id="reset-after-reading"),
    pytest.param(silently_dead, 2, BUDGET_S / 2, id="silently-dead"),
]


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize(("behave", "requests", "within_s"), WAYS)
def test_dead_connection(
    behave: Callable[[Peer], None],
    requests: int,
    within_s: float,
    kind: str,
    new_tracker: Callable[..., Tracker],
) -> None:
    """The events arrive within the same invocation, and count once."""
    took_s: list[float] = []
    while not took_s or (took_s[-1] >= within_s and len(took_s) < 5):  # The machine may be busy.
        with Server(behave) as server:
            outcomes = two_invocations(new_tracker, server, kind)
            arrived = list(server.requests)
        took_s.append(max(outcome.elapsed_s for outcome in outcomes))
        for outcome in outcomes:
            outcome.elapsed_s = 0.0
        assert outcomes == [Outcome(1, requests=1), Outcome(1, requests=requests)]
        # A server that knows batches by their id counts each once; under one id come the same
        # bytes.
        sent = {(request.batch["batch_id"], request.body) for request in arrived}
        assert len(sent) == len({batch_id for batch_id, _ in sent}) == 2
        assert {event for request in arrived for event in request.event_ids} == {"evt_1", "evt_2"}
    within(min(took_s), within_s)


def two_invocations(
    new_tracker: Callable[..., Tracker], server: Server, kind: str
) -> list[Outcome]:
    """One, a freeze during which the connection may die, and another."""
    outcomes: list[Outcome] = []
    tracker = new_tracker(server.url, budget=BUDGET_S, on_flush=outcomes.append)

    @tracker.tracked
    def handler(event_id: str) -> None:
        tracker.track("tokens", 3, event_id=event_id)

    @tracker.tracked
    async def async_handler(event_id: str) -> None:
        tracker.track("tokens", 3, event_id=event_id)

    for event_id in ("evt_1", "evt_2"):
        if kind == "def":
            handler(event_id)
        else:
            asyncio.run(async_handler(event_id))
        time.sleep(0.1)
    return outcomes


def test_all_kept_connections_dead(new_tracker: Callable[..., Tracker]) -> None:
    """Ten batches arrive within half the budget although all kept connections are silently dead."""
    frozen = threading.Event()
    together = threading.Barrier(4)

    def behave(peer: Peer) -> None:
        born_dead = not frozen.is_set()
        while peer.request():
            if not frozen.is_set():
                together.wait(5)  # So that four connections are needed, and kept.
            if not (frozen.is_set() and born_dead):
                peer.send(ACCEPTED)

    outcomes: list[Outcome] = []
    with Server(behave) as server:
        # Each event is a batch of its own.
        tracker = new_tracker(server.url, budget=BUDGET_S, flush_at=1, on_flush=outcomes.append)

        @tracker.tracked
        def handler(events: int) -> None:
            for _ in range(events):
                tracker.track("tokens", 3)

        handler(4)
        frozen.set()
        handler(10)
    assert [(outcome.accepted, outcome.unsent) for outcome in outcomes] == [(4, {}), (10, {})]
    within(outcomes[1].elapsed_s, BUDGET_S / 2)


def test_connection_is_kept(new_tracker: Callable[..., Tracker]) -> None:
    """A hundred invocations in turn share one connection, and each makes one POST."""
    with Server(accepting) as server:
        tracker = new_tracker(server.url)

        @tracker.tracked
        def handler(number: int) -> None:
            tracker.track("tokens", 3, event_id=f"evt_{number}")

        for number in range(100):
            handler(number)
        arrived = [(request.connection, request.event_ids) for request in server.requests]
    assert arrived == [(0, [f"evt_{number}"]) for number in range(100)]


def test_waiting_for_a_turn_is_no_silence(new_tracker: Callable[..., Tracker]) -> None:
    """Ten batches on slow but living connections go out once each, although it takes them long."""

    def slow(peer: Peer) -> None:
        while peer.request():
            time.sleep(BUDGET_S / 8)  # Half of what makes a silent connection doubtful.
            peer.send(ACCEPTED)

    outcomes: list[Outcome] = []
    with Server(slow) as server:
        tracker = new_tracker(server.url, budget=BUDGET_S, flush_at=1, on_flush=outcomes.append)

        @tracker.tracked
        def handler() -> None:
            for _ in range(10):
                tracker.track("tokens", 3)

        handler()
    assert [(outcome.accepted, outcome.requests) for outcome in outcomes] == [(10, 10)]
