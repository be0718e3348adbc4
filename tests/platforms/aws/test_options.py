"""Scopes and options: whose event it is, with which labels, and what fails with it."""

from __future__ import annotations

import asyncio
import gc
import logging
import warnings
from contextlib import suppress
from typing import Any

import pytest

import doow_serverless as doow
from doow_serverless._recording.scope import current
from doow_serverless.errors import InvalidEvent
from doow_serverless.testing import MemoryTransport
from tests.metering import metrics
from tests.network import KEY
from tests.platforms.aws.handlers import call, configure, decorated, native, plain


def test_no_scope_leaks_into_the_next_call(events: MemoryTransport) -> None:
    """After a call, be it well or ill, what is recorded belongs to nobody's invocation."""
    seen = []

    @doow.tracked(license_id="lic_own")
    def handler(event: Any, context: Any) -> None:
        seen.append(current.get())
        if event:
            raise ValueError

    for event in (False, True, False):
        with suppress(ValueError):
            handler(event, None)
        assert current.get() is None
    doow.track("later")
    doow.flush()
    assert [event["license_id"] for event in events.events] == ["lic_1"]
    assert len(set(map(id, seen))) == 3


def test_nested_wrappers_share_one_post(events: MemoryTransport) -> None:
    """The outermost delivers, once."""
    inner = doow.tracked(plain)

    @doow.tracked
    def outer(event: Any, context: Any) -> Any:
        inner(event, context)
        assert events.batches == []
        return inner(event, context)

    call(outer)
    assert (metrics(events.events), len(events.batches)) == (["tokens", "tokens"], 1)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("kind", ["def", "async def", "def that returns a coroutine"])
def test_discard(kind: str, fails: bool, events: MemoryTransport) -> None:
    """With ``on_exception="discard"`` a failed invocation is not metered, nor its own metric."""

    def body() -> None:
        doow.track("tokens")
        if fails:
            raise ValueError

    def handler(event: Any, context: Any) -> None:
        body()

    async def async_handler(event: Any, context: Any) -> None:
        body()

    wrap = doow.tracked(on_exception="discard", metric="api_calls")
    kinds = {"def": handler, "async def": async_handler}
    tracked: Any = wrap(kinds.get(kind, decorated(async_handler)))
    with suppress(ValueError):
        call(tracked)
    assert metrics(events.events) == ([] if fails else ["api_calls", "tokens"])
    assert len(events.batches) == (0 if fails else 1)


def test_its_own_metric(events: MemoryTransport) -> None:
    """``metric=`` records one of it for each invocation, with the wrapper's license and labels."""
    tracked = doow.tracked(metric="api_calls", license_id="lic_2", attribution={"team": "ai"})(
        plain
    )
    call(tracked)
    assert [
        (event["measurements"][0], event["license_id"], event["attribution"])
        for event in events.events
    ] == [
        ({"metric_name": "api_calls", "quantity": 1}, "lic_2", {"team": "ai"}),
        ({"metric_name": "tokens", "quantity": 1}, "lic_2", {"team": "ai"}),
    ]


def test_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    """``track`` over ``tracked``, the inner over the outer, over the environment, over code."""
    transport = MemoryTransport()
    monkeypatch.setenv("DOOW_TRACK_LICENSE_ID", "lic_env")
    monkeypatch.setenv("DOOW_TRACK_ATTRIBUTION", '{"b": "env", "c": "env", "d": "env", "e": "env"}')
    configure(transport, license_id="lic_code", attribution=dict.fromkeys("abcde", "code"))

    @doow.tracked(license_id="lic_inner", attribution={"d": "inner", "e": "inner"})
    def inner() -> None:
        doow.track("inner")
        doow.track("own", license_id="lic_own", attribution={"e": "own"})

    @doow.tracked(attribution={"c": "outer", "d": "outer"})
    def middle() -> None:
        doow.track("middle")
        inner()

    @doow.tracked(license_id="lic_outer")
    def outer() -> None:
        doow.track("outer")
        middle()

    doow.track("stray")
    outer()
    found = {
        event["measurements"][0]["metric_name"]: (
            event["license_id"],
            [event["attribution"][name] for name in "abcde"],
        )
        for event in transport.events
    }
    assert found == {
        "stray": ("lic_env", ["code", "env", "env", "env", "env"]),
        "outer": ("lic_outer", ["code", "env", "env", "env", "env"]),
        "middle": ("lic_outer", ["code", "env", "outer", "outer", "env"]),
        "inner": ("lic_inner", ["code", "env", "outer", "inner", "inner"]),
        "own": ("lic_own", ["code", "env", "outer", "inner", "own"]),
    }


def test_a_disabled_process_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is recorded, checked or sent, and the handler runs as ever."""
    monkeypatch.setenv("DOOW_TRACK_DISABLED", "true")
    transport = MemoryTransport()
    tracker = configure(transport, strict=True)

    @doow.tracked(metric="api_calls")
    def handler(event: Any, context: Any) -> Any:
        doow.track("", -1)  # as wrong as can be
        with doow.transaction():
            doow.track("tokens")
        assert current.get() is None
        return event

    assert call(handler, 5) == 5
    assert asyncio.run(doow.tracked(native)(6, None)) == 6
    assert doow.flush() == doow.Outcome()
    assert (transport.batches, tracker.engine.unattended.in_hand) == ([], 0)


def test_strict_mode_refuses_before_the_body_of_a_coroutine() -> None:
    """An async handler whose own metric is refused is not begun: nothing is left unawaited."""
    tracker = doow.Tracker(KEY, transport=MemoryTransport(), strict=True, warm_up=False)
    begun: list[str] = []

    class Handler:
        async def __call__(self) -> None:
            begun.append("the body")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(InvalidEvent, match="license_id"):
            asyncio.run(tracker.tracked(metric="api_calls")(Handler())())
        gc.collect()
    assert (begun, [str(each.message) for each in caught]) == ([], [])


def test_hooks_that_raise_are_contained(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever ``on_error`` and ``on_flush`` do, the handler hears nothing of it."""

    def failing(argument: object) -> None:
        raise RuntimeError(f"of {type(argument).__name__}")

    configure(MemoryTransport([400]), on_error=failing, on_flush=failing)
    with caplog.at_level(logging.WARNING, "doow_serverless"):
        assert call(doow.tracked(plain), 5) == 5
        doow.track("tokens", -1)
    assert caplog.messages == [
        "on_error raised RuntimeError('of DoowError')",
        "on_flush raised RuntimeError('of Outcome')",
        "on_error raised RuntimeError('of InvalidEvent')",
    ]
