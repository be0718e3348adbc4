"""ASGI within more of ours, and many requests at once: one POST each, and no mixing."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless._recording.scope import current
from doow_serverless.asgi import DoowMiddleware
from doow_serverless.local import Fault
from tests.metering import per_post
from tests.platforms.asgi.apps import (
    LAST,
    START,
    Wire,
    body,
    http,
    recording,
    slow_ingest,
    start,
    websocket,
)

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from doow_serverless import Tracker
    from doow_serverless.asgi import App, Receive, Send
    from doow_serverless.local import Ingest


class Application:
    """An application as frameworks are: an object."""

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        doow.track("steps")
        await send(START)
        await send(LAST)

    async def method(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        await self(scope, receive, send)


class Plain:
    """An application whose ``__call__`` returns the coroutine of another."""

    def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> Any:
        return Application()(scope, receive, send)


async def with_more(
    more: str, scope: MutableMapping[str, Any], receive: Receive, send: Send
) -> None:
    await Application()(scope, receive, send)


def inner(tracker: Tracker, app: App) -> App:
    return DoowMiddleware(app, tracker=tracker)


NESTS: dict[str, Callable[[Tracker, App], Any]] = {
    "middleware": inner,
    "in another": lambda tracker, app: inner(tracker, inner(tracker, app)),
    "in two others": lambda tracker, app: inner(tracker, inner(tracker, inner(tracker, app))),
    "tracked": lambda tracker, app: tracker.tracked(app),
    "tracked with options": lambda tracker, app: tracker.tracked(budget=5.0)(app),
    "tracked object": lambda tracker, app: tracker.tracked(Application()),
    "tracked plain object": lambda tracker, app: tracker.tracked(Plain()),
    "tracked method": lambda tracker, app: tracker.tracked(Application().method),
    "tracked partial": lambda tracker, app: tracker.tracked(partial(with_more, "more")),
    "tracked twice": lambda tracker, app: tracker.tracked(tracker.tracked(app)),
    "middleware in tracked": lambda tracker, app: tracker.tracked(inner(tracker, app)),
    "tracked in middleware": lambda tracker, app: inner(tracker, tracker.tracked(app)),
}


@pytest.mark.parametrize("scope", [http("GET"), http("HEAD")], ids=["GET", "HEAD"])
@pytest.mark.parametrize("nest", NESTS)
def test_however_it_is_wrapped(
    new_tracker: Callable[..., Tracker], nest: str, scope: dict[str, Any]
) -> None:
    """What completes the response waits for its events, which leave in one POST."""
    log: list[str] = []
    with slow_ingest(log) as server:
        wire = Wire(log=log)
        wire.serve(NESTS[nest](new_tracker(server.url), recording(START, LAST)), scope)
    delivered = ["received", "answered"]
    if scope["method"] == "HEAD":
        assert [*delivered, "start", "body"] == log
    else:
        assert ["start", *delivered, "body"] == log
    assert [id(START), id(LAST)] == [id(message) for message in wire.sent]
    assert current.get() is None


@pytest.mark.parametrize("nest", NESTS)
def test_sessions_and_lives_however_wrapped(
    new_tracker: Callable[..., Tracker], ingest: Ingest, nest: str
) -> None:
    """A session's events leave in one POST, and a life belongs to no invocation."""
    app = NESTS[nest](new_tracker(ingest.url), recording(START, LAST))
    Wire().serve(app, websocket())
    assert per_post(ingest) == [["steps"]]


def test_the_life_of_a_tracked_application(
    new_tracker: Callable[..., Tracker], ingest: Ingest
) -> None:
    """It is no invocation: what is recorded at the start does not wait for the end of it all."""
    tracker = new_tracker(ingest.url)

    @tracker.tracked
    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        assert (current.get() is None) == (scope["type"] == "lifespan")
        tracker.track(scope["type"])
        if scope["type"] == "http":
            await send(START)
            await send(LAST)

    Wire().serve(app, {"type": "lifespan", "asgi": {"version": "3.0"}})
    Wire().serve(app)
    assert per_post(ingest) == [["http", "lifespan"]]


def test_the_second_flush_is_the_outermosts(
    new_tracker: Callable[..., Tracker], ingest: Ingest
) -> None:
    """What background tasks record is one more POST, not one for each that is wrapped around."""

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        doow.track("before")
        await send(START)
        await send(LAST)
        doow.track("after")

    tracker = new_tracker(ingest.url)
    Wire().serve(tracker.tracked(inner(tracker, inner(tracker, app))))
    assert per_post(ingest) == [["before"], ["after"]]


def test_within_a_tracked_function_that_is_no_application(
    new_tracker: Callable[..., Tracker], ingest: Ingest
) -> None:
    """As under an adapter: the function's end delivers, once, also for several requests."""
    tracker = new_tracker(ingest.url)
    app = inner(tracker, recording(START, LAST))

    @tracker.tracked
    async def handler(event: dict[str, Any]) -> str:
        for _ in range(3):
            await Wire().run(app)
        assert ingest.posts() == []
        return "done"

    assert asyncio.run(handler({"requests": 3})) == "done"
    assert per_post(ingest) == [["steps"] * 3]


def test_two_trackers(new_tracker: Callable[..., Tracker], ingest: Ingest) -> None:
    """Each delivers what it recorded, both before the response is complete."""
    one, other = (new_tracker(ingest.url, license_id=name) for name in ("lic_one", "lic_other"))

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        one.track("of one")
        other.track("of other")
        await send(START)
        await send(LAST)
        assert sorted(per_post(ingest)) == [["of one"], ["of other"]]  # Both were on their way.

    Wire().serve(inner(one, inner(other, app)))
    assert {
        (event["license_id"], event["measurements"][0]["metric_name"]) for event in ingest.events()
    } == {("lic_other", "of other"), ("lic_one", "of one")}


@pytest.mark.parametrize("fails", [False, True])
def test_discard_within(new_tracker: Callable[..., Tracker], ingest: Ingest, fails: bool) -> None:
    """An inner one that discards takes only its own events with it."""
    tracker = new_tracker(ingest.url)

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        doow.track("inner")
        if fails:
            raise LookupError
        await send(START)
        await send(LAST)

    discarding = DoowMiddleware(app, tracker=tracker, on_exception="discard")

    async def around(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        doow.track("outer")
        try:
            await discarding(scope, receive, send)
        except LookupError:
            await send(start(500))
            await send(body())

    Wire().serve(inner(tracker, around))
    assert [["outer"] if fails else ["outer", "inner"]] == per_post(ingest)


# ── many ───────────────────────────────────────────────────────────────────────────────────────

REQUESTS = 50


def busy() -> App:
    """An application that records on the loop, in tasks and on threads, in its request's name."""

    def record(name: str, number: int) -> None:
        doow.track("tokens", number, attribution={"request": name})

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        name = scope["path"]
        record(name, 1)
        await send(START)
        await asyncio.sleep(0)
        await asyncio.gather(asyncio.create_task(later(name)), asyncio.to_thread(record, name, 3))
        await send(body(name.encode(), more_body=True))
        await send(body())
        await asyncio.sleep(0)
        record(name, 4)

    async def later(name: str) -> None:
        await asyncio.sleep(0.001)
        record(name, 2)

    return app


def carried(ingest: Ingest) -> Counter[tuple[str, tuple[int, ...]]]:
    """For each POST whose request it was, and what it held."""
    by_batch: dict[str, list[dict[str, Any]]] = {}
    for event in ingest.events():
        by_batch.setdefault(event["batch_id"], []).append(event)
    return Counter(
        (
            "+".join(sorted({event["attribution"]["request"] for event in batch})),
            tuple(sorted(event["measurements"][0]["quantity"] for event in batch)),
        )
        for batch in by_batch.values()
    )


def test_fifty_requests_at_once(new_tracker: Callable[..., Tracker], ingest: Ingest) -> None:
    """Each has two POSTs of its own, with all of its events and no other's."""
    ingest.fault(Fault(delay_s=0.02, times=None))
    tracker = new_tracker(ingest.url, budget=20.0)
    app = inner(tracker, busy())
    names = [f"/{number}" for number in range(REQUESTS)]

    async def serve() -> list[Wire]:
        requests = (Wire().run(app, http(path=name)) for name in names)
        return await asyncio.gather(*(asyncio.create_task(request) for request in requests))

    wires = asyncio.run(serve())
    expected = Counter({(name, what): 1 for name in names for what in ((1, 2, 3), (4,))})
    assert expected == carried(ingest)
    assert len(ingest.posts()) == 2 * REQUESTS
    assert names == [wire.sent[1]["body"].decode() for wire in wires]


def test_one_task_serves_one_request_after_the_other(
    new_tracker: Callable[..., Tracker], ingest: Ingest
) -> None:
    """As on a connection that is kept: nothing of one is left for the next."""
    app = inner(new_tracker(ingest.url), busy())
    names = [f"/{number}" for number in range(5)]

    async def serve() -> None:
        for name in names:
            await Wire().run(app, http(path=name))
            assert current.get() is None

    asyncio.run(serve())
    expected = Counter({(name, what): 1 for name in names for what in ((1, 2, 3), (4,))})
    assert expected == carried(ingest)


def test_what_is_between_two_records_for_the_outer_one(
    new_tracker: Callable[..., Tracker], ingest: Ingest
) -> None:
    """A middleware of the application's that meters what goes through it, in both directions."""
    tracker = new_tracker(ingest.url, license_id="lic_default")

    async def between(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        async def metered_send(message: MutableMapping[str, Any]) -> None:
            doow.track("sent")
            await send(message)

        async def metered_receive() -> MutableMapping[str, Any]:
            doow.track("received")
            return await receive()

        await innermost(scope, metered_receive, metered_send)

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send(START)
        await send(LAST)

    innermost = DoowMiddleware(app, tracker=tracker, license_id="lic_inner")
    wire = Wire({"type": "http.request", "body": b""})
    wire.serve(DoowMiddleware(between, tracker=tracker, license_id="lic_outer"))
    assert {event["license_id"] for event in ingest.events()} == {"lic_outer"}
    assert per_post(ingest) == [["received", "sent", "sent"]]
