"""Hooks, clocks and transports of the user's: what they raise goes no further."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless.testing import MemoryTransport
from tests.network import KEY
from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless.errors import DoowError

RAISED = [
    asyncio.CancelledError("mine"),
    GeneratorExit("mine"),
    SystemExit("mine"),
    pytest.fail.Exception("mine"),
    LookupError("mine"),
]


@pytest.fixture(params=RAISED, ids=lambda raised: type(raised).__name__)
def raised(request: pytest.FixtureRequest) -> BaseException:
    problem: BaseException = request.param
    return problem


@pytest.fixture
def raising(raised: BaseException) -> Callable[..., Any]:
    def call(*_: object) -> Any:
        raise raised

    return call


def tracker(**options: Any) -> Any:
    transport = options.pop("transport", None) or MemoryTransport()
    return doow.Tracker(
        KEY, transport=transport, license_id="lic_1", environ={}, dead_letter="off", **options
    )


def test_a_hook_ends_the_wait_of_a_handler(
    raising: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A def gets its result at once, and the log has one line about the hook."""
    ours = tracker(on_flush=raising, budget=30.0)

    @ours.tracked  # type: ignore[untyped-decorator]  # it is Any
    def handler() -> int:
        ours.track("tokens")
        return 7

    began = time.monotonic()
    assert handler() == 7
    within(time.monotonic() - began, 15.0)
    assert [line.partition("(")[0] for line in caplog.messages] == [
        f"on_flush raised {raised_name(raising)}"
    ]


def raised_name(raising: Callable[..., Any]) -> str:
    try:
        raising()
    except BaseException as raised:
        return type(raised).__name__
    return ""


@pytest.mark.parametrize("hook", ["on_flush", "on_error"])
def test_an_async_handler_keeps_its_result(hook: str, raising: Callable[..., Any]) -> None:
    """No hook cancels it, whatever it raises."""
    ours = tracker(**{hook: raising})

    @ours.tracked  # type: ignore[untyped-decorator]  # it is Any
    async def handler() -> int:
        ours.track("tokens")
        ours.track("")
        return 7

    assert asyncio.run(handler()) == 7


def test_track_does_not_raise_what_on_error_does(raising: Callable[..., Any]) -> None:
    """A refused event is reported on the caller's thread."""
    ours = tracker(on_error=raising)
    ours.track("")
    ours.track("tokens", unit="")
    assert ours.flush().accepted == 1


def test_a_transport_that_raises_has_failed(raising: Callable[..., Any]) -> None:
    """Its batch is kept, with a reason, instead of being waited for."""

    class Transport(MemoryTransport):
        post = raising

    told: list[DoowError] = []
    ours = tracker(transport=Transport(), on_error=told.append, budget=0.2)
    ours.track("tokens")
    outcome = ours.flush()
    assert (outcome.accepted, outcome.unsent) == (0, {"TRANSPORT_ERROR": 1})
    assert [error.kind for error in told] == ["TRANSPORT_ERROR"]


def test_a_clock_that_raises_is_replaced(
    raising: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """By the system's, from where it stood; the log has one line about it."""
    times = iter([5.0] * 20)

    def clock() -> float:
        return next(times, None) or raising()

    transport = MemoryTransport()
    ours = tracker(transport=transport, clock=clock)
    for _ in range(10):
        ours.track("tokens")
        assert ours.flush().accepted == 1
    assert [line.partition(" raised ")[0] for line in caplog.messages] == ["the clock"]
