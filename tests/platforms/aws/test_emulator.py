"""Code after the response under AWS's own emulator, which holds to its rules of extensions."""

from __future__ import annotations

import os
import signal
import statistics
from typing import TYPE_CHECKING

import pytest

from doow_serverless.local import Fault
from tests.network import KEY
from tests.runtimes.aws.emulator import Emulator
from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from doow_serverless.local import Ingest

pytestmark = pytest.mark.extensive

SLOW_S = 0.3
APP = """
import os, time
import doow_serverless as doow

@doow.tracked(flush_mode=os.environ["MODE"])
def work(event, context):
    for number in range(event.get("events", 1)):
        doow.track("tokens", number + 1)
    time.sleep(event.get("sleeps", 0))
    return os.getpid()

def handler(event, context):
    return os.getpid() if event.get("untracked") else work(event, context)
"""


@pytest.fixture
def start(tmp_path: Path, ingest: Ingest) -> Callable[..., Emulator]:
    (tmp_path / "app.py").write_text(APP)

    def start(mode: str = "after_response", timeout_s: int = 10, **env: str) -> Emulator:
        env = {
            "DOOW_TRACK_API_KEY": KEY,
            "DOOW_TRACK_ENDPOINT": ingest.url,
            "DOOW_TRACK_LICENSE_ID": "lic_test",
            "MODE": mode,
            **env,
        }
        return Emulator("app.handler", tmp_path, env=env, timeout_s=timeout_s)

    return start


@pytest.mark.parametrize("mode", ["before_response", "after_response"])
def test_a_slow_server_is_waited_for_before_or_after_the_response(
    mode: str, start: Callable[..., Emulator], ingest: Ingest
) -> None:
    """Thirty invocations: all events are there before the next one, whenever the response went."""
    with start(mode) as emulator:
        emulator.invoke({})
        ingest.reset()
        ingest.fault(Fault(delay_s=SLOW_S, times=None))
        for number in range(1, 31):
            emulator.invoke({"events": 2})
            assert len(ingest.events()) == 2 * number
        timings = emulator.timings()[1:]
    response_s = statistics.median(timing.response_s for timing in timings)
    assert all(timing.whole_s >= SLOW_S for timing in timings)
    if mode == "after_response":
        within(response_s, SLOW_S / 2)
    else:
        assert response_s >= SLOW_S


def test_an_invocation_of_nothing_tracked_is_not_held(start: Callable[..., Emulator]) -> None:
    """The emulator waits for the extension, which waits for the response alone."""
    with start() as emulator:
        for _ in range(3):
            emulator.invoke({"untracked": True})
        within(max(timing.whole_s for timing in emulator.timings()), 1.0)


def test_a_silent_server_ends_in_the_log_and_not_in_a_timeout(
    start: Callable[..., Emulator], ingest: Ingest
) -> None:
    """With less time than the budget has: the same process serves the next invocation."""
    with start(timeout_s=2, DOOW_TRACK_BUDGET="5000") as emulator:
        pid = emulator.invoke({})
        ingest.fault(Fault(hang=True, times=None))
        assert emulator.invoke({"sleeps": 1}) == pid
        assert "doow_dead_letter" in emulator.log
        ingest.clear_faults()
        assert emulator.invoke({}) == pid
        within(emulator.timings()[1].whole_s, 2.0)


def test_timeouts_and_kills_lose_nothing(start: Callable[..., Emulator], ingest: Ingest) -> None:
    """The guard delivers before the emulator resets the sandbox; another registers anew."""
    with start(timeout_s=2) as emulator:
        first = emulator.invoke({"events": 3})
        assert len(ingest.events()) == 3
        emulator.invoke({"events": 2, "sleeps": 9})
        assert len(ingest.events()) == 5
        second = emulator.invoke({})
        assert second != first
        assert len(ingest.events()) == 6
        os.kill(emulator.function_pid(), signal.SIGKILL)
        emulator.invoke({}, is_alive=False)  # It is told of the death by the next invocation.
        assert emulator.invoke({"events": 4}) != second
        assert len(ingest.events()) == 10
