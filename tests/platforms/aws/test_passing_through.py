"""Results and exceptions of handlers pass as they are."""

from __future__ import annotations

import asyncio
import traceback
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless._recording.scope import current
from tests.metering import metrics
from tests.platforms.aws.handlers import WAIT_S, Silent, configure, decorated

if TYPE_CHECKING:
    from doow_serverless.testing import MemoryTransport


@pytest.mark.parametrize("kind", ["def", "async def", "def that returns a coroutine"])
@pytest.mark.parametrize(
    "exception",
    [ValueError("no"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()],
    ids=lambda exception: type(exception).__name__,
)
def test_exceptions_pass_untouched(
    kind: str, exception: BaseException, events: MemoryTransport
) -> None:
    """The same object comes out, from the same frames of the user, and the events are sent."""

    def fail() -> None:
        raise exception

    if kind == "def":

        def handler(event: Any, context: Any) -> None:
            doow.track("tokens")
            fail()

    else:

        async def handler(event: Any, context: Any) -> None:  # type: ignore[misc]  # either
            doow.track("tokens")
            fail()

    tracked = doow.tracked(
        handler if kind != "def that returns a coroutine" else decorated(handler)
    )
    run: Any = _run_async if kind != "def" else lambda handler: handler({}, None)
    with pytest.raises(type(exception)) as caught:
        run(tracked)
    assert caught.value is exception
    assert caught.value.__context__ is None
    assert [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)][-2:] == [
        "handler",
        "fail",
    ]
    assert metrics(events.events) == ["tokens"]


def _run_async(handler: Any) -> None:
    """Call ``handler`` on a loop, and let even what ends a loop come out of it."""
    raised: list[BaseException] = []

    async def main() -> None:
        try:
            await handler({}, None)
        except BaseException as exception:
            raised.append(exception)

    asyncio.run(main())
    raise raised[0]


def test_a_coroutine_that_is_closed_flushes(silent: Silent) -> None:
    """A closed coroutine may not await, and its events leave all the same."""
    configure(silent, budget=0.1)

    @doow.tracked
    async def handler(event: Any, context: Any) -> None:
        doow.track("tokens")
        await asyncio.Event().wait()

    async def main() -> None:
        coroutine = handler({}, None)
        coroutine.send(None)
        coroutine.close()

    asyncio.run(main())
    assert silent.posted.wait(WAIT_S)
    assert current.get() is None


@pytest.mark.parametrize("result", [None, 0, [], object(), NotImplemented, {"a": 1}])
def test_the_result_is_the_same_object(result: Any, events: MemoryTransport) -> None:
    """Whatever a handler returns comes back as itself."""
    assert doow.tracked(lambda event, context: result)({}, None) is result
