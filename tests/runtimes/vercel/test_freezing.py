"""A Vercel function stands still while nobody asks it, and runs as long as anybody does."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.runtimes.processes import ends, exists, state
from tests.runtimes.vercel.sample_functions import MODES, SHAPES
from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless.local.vercel.runtime import VercelRuntime

PAUSE_S = 0.5
TICK_S = 0.005
"""A background thread of the function counts so often."""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", SHAPES)
def test_background_threads_stand_still_between_invocations(
    start: Callable[..., VercelRuntime], shape: str, mode: str
) -> None:
    """The process is stopped when the answer is there, and a thread of it does not count on."""
    with start(shape, mode) as runtime:
        assert runtime.stopped
        before = int(runtime.request("GET", "/tick").body)
        assert runtime.stopped
        assert state(runtime.pid) in "TD"  # By a signal, or by a control group.
        time.sleep(PAUSE_S)  # about a hundred ticks, if it ran
        after = int(runtime.request("GET", "/tick").body)
    assert after > before
    within((after - before) * TICK_S, 0.2)


@pytest.mark.parametrize("mode", MODES)
def test_without_freezing_background_threads_go_on(
    start: Callable[..., VercelRuntime], mode: str
) -> None:
    """The counterpart: the same thread counts on when the freeze is switched off."""
    with start("handler", mode, freeze=False) as runtime:
        before = int(runtime.request("GET", "/tick").body)
        assert not runtime.stopped
        time.sleep(PAUSE_S)
        after = int(runtime.request("GET", "/tick").body)
    within((after - before) * TICK_S, 10.0, at_least_s=0.2)


@pytest.mark.parametrize("shape", SHAPES)
def test_requests_run_at_the_same_time(start: Callable[..., VercelRuntime], shape: str) -> None:
    """Three requests that wait for each other are all answered, and only then the process stops."""
    with start(shape) as runtime, ThreadPoolExecutor(3) as pool:
        responses = list(pool.map(lambda _: runtime.request("GET", "/meet"), range(3)))
        assert [response.body for response in responses] == [b"path /meet"] * 3
        assert runtime.stopped


def test_an_invocation_is_not_frozen_by_the_end_of_another(
    start: Callable[..., VercelRuntime],
) -> None:
    """While one request is under way, others come and go, and the process runs."""
    with start("handler") as runtime, ThreadPoolExecutor(1) as pool:
        stream = pool.submit(runtime.request, "GET", "/stream")
        while runtime.stopped:
            time.sleep(0.001)
        for _ in range(5):
            assert runtime.request("GET", "/path").body == b"path /path"
            if runtime.stopped:
                stream.result(2)  # It is over: of a process that stands still nothing more comes.
        assert stream.result().body == b"one,two"
        assert runtime.stopped


@pytest.mark.parametrize("mode", MODES)
def test_freezing_by_hand_stalls_an_invocation(
    start: Callable[..., VercelRuntime], mode: str
) -> None:
    """A pause of the process in the middle of an invocation prolongs it, no more."""
    with start("handler", mode) as runtime:
        runtime.request("GET", "/path")
        pauses = [threading.Timer(0.1, runtime.freeze), threading.Timer(0.7, runtime.thaw)]
        for pause in pauses:
            pause.start()
        response = runtime.request("GET", "/stream")
        for pause in pauses:
            pause.join()
        assert response.body == b"one,two"
        assert response.duration_s >= 0.6
        assert runtime.stopped


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_left_behind(start: Callable[..., VercelRuntime], mode: str) -> None:
    """Leaving the block ends the stopped process and what it started, and the output stays."""
    with start("handler", mode) as runtime:
        child = int(runtime.request("GET", "/fork").body)
        assert exists(runtime.pid)
        assert exists(child)
        written = runtime.stdout
    assert not exists(runtime.pid)
    assert ends(child)
    assert runtime.stdout == written
