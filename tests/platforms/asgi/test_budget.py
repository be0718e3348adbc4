"""ASGI at a silent or slow ingest: one budget for a request, and the platform's deadline."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

import doow_serverless as doow
from doow_serverless.asgi import DoowMiddleware
from doow_serverless.local import Fault
from tests.lambda_context import LambdaContext
from tests.metering import per_post
from tests.network import Metronome, Server, silent
from tests.platforms.asgi.apps import LAST, START, Wire, http, unattended, wait_for_post
from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from doow_serverless import Tracker
    from doow_serverless.asgi import App, Message, Receive, Send
    from doow_serverless.local import Ingest


BUDGET_S = 0.3
SLACK_S = 0.06


def after_the_response(pause: Callable[[], None] = lambda: None) -> App:
    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        doow.track("early")
        await send(START)
        await send(LAST)
        pause()
        doow.track("late")

    return app


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_silent_ingest_costs_the_budget_once(
    new_tracker: Callable[..., Tracker], backend: str
) -> None:
    """Both flushes of a request together wait no longer than that, on either loop."""

    async def send(message: Message) -> None:
        await anyio.lowlevel.checkpoint()

    with Server(silent) as server, Metronome() as noise:
        tracker = new_tracker(server.url, budget=BUDGET_S, dead_letter="off")
        wrapped = DoowMiddleware(after_the_response(), tracker=tracker)
        began = time.monotonic()
        anyio.run(wrapped, http(), Wire().receive, send, backend=backend)
        took_s = time.monotonic() - began
    within(took_s, BUDGET_S + SLACK_S + noise.worst_s, at_least_s=BUDGET_S - SLACK_S)


@pytest.mark.parametrize("given", ["configure", "middleware"])
def test_a_slow_ingest_has_one_budget_for_both_flushes(
    new_tracker: Callable[..., Tracker], ingest: Ingest, given: str
) -> None:
    """What the first has used, the second does not have."""
    ingest.fault(Fault(delay_s=0.2, times=None))
    outcomes: list[tuple[int, int]] = []
    tracker = new_tracker(
        ingest.url,
        budget=BUDGET_S if given == "configure" else 9.0,
        dead_letter="off",
        on_flush=lambda outcome: outcomes.append((outcome.accepted, sum(outcome.unsent.values()))),
    )
    budget = None if given == "configure" else BUDGET_S
    with Metronome() as noise:
        wrapped = DoowMiddleware(after_the_response(), tracker=tracker, budget=budget)
        began = time.monotonic()
        Wire().serve(wrapped)
        took_s = time.monotonic() - began
    assert outcomes == [(1, 0), (0, 1)]
    within(took_s, BUDGET_S + SLACK_S + noise.worst_s, at_least_s=BUDGET_S - SLACK_S)


def test_a_cancelled_flush_has_used_its_part_of_the_budget(
    new_tracker: Callable[..., Tracker], ingest: Ingest
) -> None:
    """What the application records on being cancelled does not get a budget of its own."""
    ingest.fault(Fault(delay_s=0.2, times=None))

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        doow.track("early")
        await send(START)
        try:
            await send(LAST)
        finally:
            doow.track("late")

    async def serve() -> float:
        tracker = new_tracker(ingest.url, budget=BUDGET_S, dead_letter="off")
        began = time.monotonic()
        task = asyncio.create_task(Wire().run(DoowMiddleware(app, tracker=tracker)))
        await asyncio.to_thread(wait_for_post, ingest)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - began

    with Metronome() as noise:
        took_s = asyncio.run(serve())
    within(took_s, BUDGET_S + SLACK_S + noise.worst_s)


@pytest.mark.parametrize("left_s", [0.2, 0.6])
def test_the_deadline_in_the_scope(new_tracker: Callable[..., Tracker], left_s: float) -> None:
    """Where Mangum puts Lambda's context, no wait comes nearer to the deadline than the reserve."""
    with unattended() as url, Metronome() as noise:
        tracker = new_tracker(url, budget=5.0, reserve=0.25, dead_letter="off")
        wrapped = DoowMiddleware(after_the_response(), tracker=tracker)
        began = time.monotonic()
        Wire().serve(wrapped, {**http(), "aws.context": LambdaContext(left_s * 1000)})
        took_s = time.monotonic() - began
    within(took_s, max(0.0, left_s - 0.25) + SLACK_S + noise.worst_s)


def test_what_was_recorded_leaves_before_the_deadline(
    new_tracker: Callable[..., Tracker], ingest: Ingest
) -> None:
    """An application that is about to be killed has its events delivered while it still works."""

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        doow.track("early")
        await asyncio.to_thread(ingest.wait_for, 1, 2.0)
        assert context.get_remaining_time_in_millis() > 50
        await send(START)
        await send(LAST)

    context = LambdaContext(500)
    wrapped = DoowMiddleware(app, tracker=new_tracker(ingest.url, warm_up="connect"))
    Wire().serve(wrapped, {**http(), "aws.context": context})
    assert per_post(ingest) == [["early"]]
