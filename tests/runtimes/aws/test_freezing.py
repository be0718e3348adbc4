"""Between invocations a Lambda function stands still, and after the last nothing of it is left."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

from tests.runtimes.processes import ends, exists
from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless.local.lambda_runtime import LambdaRuntime

PAUSE_S = 0.5
TICK_S = 0.005
"""A background thread of the function ``ticking`` counts so often."""


def test_background_threads_freeze_between_invocations(
    start: Callable[..., LambdaRuntime],
) -> None:
    """A thread that counts all the time has not counted while nobody was served."""
    with start("ticking") as runtime:
        before = json.loads(runtime.invoke({}).payload)
        time.sleep(PAUSE_S)  # about a hundred ticks, if it ran
        after = json.loads(runtime.invoke({}).payload)
    assert after > before
    within((after - before) * TICK_S, 0.2)


def test_without_freezing_background_threads_go_on(start: Callable[..., LambdaRuntime]) -> None:
    """The counterpart: the same thread counts on when the freeze is switched off."""
    with start("ticking", freeze=False) as runtime:
        before = json.loads(runtime.invoke({}).payload)
        time.sleep(PAUSE_S)
        after = json.loads(runtime.invoke({}).payload)
    within((after - before) * TICK_S, 10.0, at_least_s=0.2)


def test_freezing_by_hand_stalls_an_invocation(start: Callable[..., LambdaRuntime]) -> None:
    """A pause of the whole sandbox in the middle of an invocation prolongs it."""
    with start("sleeping") as runtime:
        runtime.invoke(0)
        pauses = [threading.Timer(0.05, runtime.freeze), threading.Timer(0.4, runtime.thaw)]
        for pause in pauses:
            pause.start()
        invocation = runtime.invoke(0.1)
        for pause in pauses:
            pause.join()
    assert invocation.error is None
    assert invocation.duration_s >= 0.35


def test_a_recycled_sandbox_is_replaced(start: Callable[..., LambdaRuntime]) -> None:
    """After kill() of the frozen process the next invocation starts one, and stdout has both."""
    with start("loud") as runtime:
        runtime.invoke({})
        pid = runtime.pid
        runtime.kill()
        assert not exists(pid)
        assert runtime.invoke({}).error is None
        assert runtime.pid != pid
        assert runtime.stdout.count("x" * 300_000) == 2
        assert runtime.stdout.count("to standard error") == 2


def test_nothing_is_left_behind(start: Callable[..., LambdaRuntime]) -> None:
    """Leaving the block kills the frozen process and what it started."""
    with start("forking") as runtime:
        child = json.loads(runtime.invoke({}).payload)
        assert exists(child)
    assert not exists(runtime.pid)
    assert ends(child)
