"""A flight on real threads, where two things happen at once."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from doow_serverless._delivery.attempt import Sender
from doow_serverless._delivery.breaker import CircuitBreaker
from doow_serverless._delivery.credentials import Credentials
from doow_serverless._delivery.flight import Flight
from doow_serverless._outcome import Outcome
from doow_serverless._process.clock import Budget
from doow_serverless._process.workers import Workers
from doow_serverless._sealing import Batch
from doow_serverless.testing import MemoryTransport, rejecting
from tests.batches import batch
from tests.network import KEY

if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless._delivery.attempt import Failed, Settled
    from doow_serverless.testing import Answer

WAIT_S = 10


class Owner:
    """Hears of batches, and does nothing unless a test says what."""

    def __init__(self, **on: Callable[..., object]) -> None:
        self._on = on

    def _call(self, name: str, told: tuple[Any, ...]) -> None:
        if name in self._on:
            self._on[name](*told)

    def on_decided(self, *told: Any) -> None:
        self._call("decided", told)

    def on_given_up(self, *told: Any) -> None:
        self._call("given_up", told)

    def on_late(self, *told: Any) -> None:
        self._call("late", told)


def flight_by(
    transport: MemoryTransport, release: Callable[[int], None] = lambda _: None, **on: Any
) -> Flight:
    """A flight by ``transport``, whose owner does what ``on`` says."""
    sender = Sender(lambda: transport, Credentials(KEY))
    return Flight(
        sender, CircuitBreaker(), Workers(), Owner(**on), release=release, give_up_after_s=10.0
    )


def test_an_answer_waits_until_its_batch_is_kept() -> None:
    """One that comes just as its batch is given up finds it kept, and so is not forgotten."""
    posted, may_answer, late_came = threading.Event(), threading.Event(), threading.Event()
    order: list[str] = []

    def answer(_: Batch) -> Answer:
        posted.set()
        may_answer.wait(WAIT_S)
        return rejecting({"evt_1": "why"})

    def keep(batch: Batch, failure: Failed) -> None:
        may_answer.set()
        late_came.wait(0.1)
        order.append(f"kept for {failure.reason}")

    def late(batch: Batch, result: Settled) -> None:
        order.append(f"settled, {result.rejected}")
        late_came.set()

    transport = MemoryTransport(answer)
    flight = flight_by(transport, given_up=keep, late=late)
    body = b'{"batch_id":"b","sdk_version":"1","events":[{"event_id":"evt_1"}]}'
    flight.add([Batch("b", ("evt_1",), body, False, "1")])
    assert posted.wait(WAIT_S)
    outcome = Outcome()
    errors = flight.close(Budget(0.0), outcome)
    assert late_came.wait(WAIT_S)
    assert order == ["kept for TIMEOUT", "settled, [('evt_1', 'why')]"]
    assert outcome.unsent == {"TIMEOUT": 1}
    assert [(error.kind, error.event_ids) for error in errors] == [("TIMEOUT", ("evt_1",))]


def test_what_was_answered_last_is_the_reason() -> None:
    """A batch that failed until the budget was used up is unsent for its failure, not for time."""
    posted = threading.Event()

    def answer(_: Batch) -> int:
        if len(transport.batches) > 1:
            posted.set()
        return 500

    transport = MemoryTransport(answer)
    flight = flight_by(transport)
    flight.add([Batch("b", ("evt_1",), b"{}", False, "1")])
    assert posted.wait(WAIT_S)
    outcome = Outcome()
    errors = flight.close(Budget(0.0), outcome)
    assert outcome.unsent == {"TRANSPORT_ERROR": 1}
    assert [str(error) for error in errors] == ["1 event not delivered: HTTP 500"]


def test_halves_that_come_while_all_is_given_up_are_accounted_for() -> None:
    """A batch that is split just then leaves two behind, which are given up as well."""
    posted, may_answer, has_split = threading.Semaphore(0), threading.Event(), threading.Event()
    kept: list[str] = []

    def answer(one: Batch) -> int:
        posted.release()
        may_answer.wait(WAIT_S)
        return 413 if one.id == "second" else 500

    def keep(one: Batch, _: Failed) -> None:
        kept.extend(one.event_ids)
        may_answer.set()
        has_split.wait(WAIT_S)

    def release(_: int) -> None:
        time.sleep(0.1)  # Meanwhile the halves become pending.

    flight = flight_by(
        MemoryTransport(answer),
        given_up=keep,
        decided=lambda *_: has_split.set(),
        release=release,
    )
    flight.add([batch(3, batch_id="first"), batch(4, batch_id="second")])
    assert all(posted.acquire(timeout=WAIT_S) for _ in range(2))
    outcome = Outcome()
    errors = flight.close(Budget(0.0), outcome)
    ids = [*(f"first-{n}" for n in range(3)), *(f"second-{n}" for n in range(4))]
    assert sorted(kept) == ids
    assert sum(outcome.unsent.values()) == 7
    assert sorted(one for error in errors for one in error.event_ids) == ids
