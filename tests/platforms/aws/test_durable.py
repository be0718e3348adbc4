"""AWS Lambda's durable functions under AWS's own local runner: code between steps runs again."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.metering import metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless import Tracker
    from doow_serverless.testing import MemoryTransport

if sys.version_info < (3, 11):
    pytest.skip("AWS's SDK needs CPython 3.11", allow_module_level=True)

from aws_durable_execution_sdk_python import DurableContext, durable_execution
from aws_durable_execution_sdk_python.config import Duration
from aws_durable_execution_sdk_python_testing import DurableFunctionTestRunner

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def transport() -> MemoryTransport:
    from doow_serverless.testing import MemoryTransport

    return MemoryTransport()


@pytest.fixture
def tracker(transport: MemoryTransport, new_tracker: Callable[..., Tracker]) -> Tracker:
    return new_tracker(transport=transport)


def run(handler: Callable[..., Any]) -> str:
    """Run one durable execution to its end, however many invocations that takes; its status."""
    with DurableFunctionTestRunner(handler) as runner:
        status = str(runner.run(input="{}", execution_timeout=30).status.value)
    runner._scheduler._loop.close()  # Else it is found unclosed, in whatever test comes then.
    return status


def work(tracker: Tracker) -> Callable[[Any, DurableContext], str]:
    """A function that is suspended three times, and records in all the places that it may."""

    def helper(of: DurableContext, name: str) -> None:
        tracker.track(name)
        of.wait(Duration.from_seconds(5))

    def child(context: DurableContext) -> None:
        tracker.track("child-begun")
        context.step(lambda _: tracker.track("child-stepped"), name="in-child")
        helper(context, "child-helped")
        tracker.track("child-ended")

    def handler(event: Any, context: DurableContext) -> str:
        tracker.track("begun")
        context.step(lambda _: tracker.track("stepped"), name="first")
        tracker.track("after-step")
        context.wait(Duration.from_seconds(5))
        tracker.track("resumed")
        context.run_in_child_context(child, name="child")
        tracker.track("after-child")
        context.wait(Duration.from_seconds(5))
        context.step(lambda _: tracker.track("last-step"), name="last")
        tracker.track("ended")
        return "done"

    return handler


ALL = {
    "begun", "stepped", "after-step", "resumed", "child-begun", "child-stepped", "child-helped",
    "child-ended", "after-child", "last-step", "ended",
}  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"on_exception": "discard"}, {"idempotent": True}])
def test_each_event_counts_once(options: Any, tracker: Tracker, transport: MemoryTransport) -> None:
    """However often its code runs; and a suspension is no failure, that would forget events."""
    handler = durable_execution(tracker.tracked(**options, metric="runs")(work(tracker)))
    assert run(handler) == "SUCCEEDED"
    assert Counter(metrics(transport.events)) == dict.fromkeys(ALL | {"runs"}, 1)


def test_tracked_around_it_all(tracker: Tracker, transport: MemoryTransport) -> None:
    """Above ``@durable_execution``, which runs the function on a thread that sees the context."""
    handler = tracker.tracked(durable_execution(work(tracker)))
    assert run(handler) == "SUCCEEDED"
    tracker.flush()
    assert Counter(metrics(transport.events)) == dict.fromkeys(ALL, 1)


def test_branches_at_once(tracker: Tracker, transport: MemoryTransport) -> None:
    """Each replays for itself, on a thread of its own, while the function around it does."""

    def branch(context: DurableContext, item: int, index: int, items: Any) -> None:
        tracker.track("branch-begun")
        context.wait(Duration.from_seconds(5 + index))
        context.step(lambda _: (tracker.track("branch-stepped"), context)[:0], name="step")
        tracker.track("branch-ended")

    @durable_execution
    @tracker.tracked
    def handler(event: Any, context: DurableContext) -> None:
        tracker.track("begun")
        context.map([1, 2, 3], branch, name="branches")
        tracker.track("ended")

    assert run(handler) == "SUCCEEDED"
    tracker.flush()
    branches = dict.fromkeys(("branch-begun", "branch-stepped", "branch-ended"), 3)
    assert Counter(metrics(transport.events)) == {"begun": 1, "ended": 1, **branches}


def test_a_block_around_a_suspension(tracker: Tracker, transport: MemoryTransport) -> None:
    """What it recorded before counts, and what it records after; not what fails in the end."""

    @durable_execution
    @tracker.tracked
    def handler(event: Any, context: DurableContext) -> None:
        with tracker.transaction():
            tracker.track("before")
            context.wait(Duration.from_seconds(5))
            tracker.track("after")
        with tracker.transaction():
            tracker.track("failing")
            raise ValueError

    assert run(handler) == "FAILED"
    assert Counter(metrics(transport.events)) == {"before": 1, "after": 1}
