"""The deadline of a request on Vercel, which its runtime tells, and after which it kills."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from doow_serverless._platforms import vercel
from doow_serverless.local import Fault
from doow_serverless.local.vercel.runtime import VercelRuntimeError
from tests.network import Metronome
from tests.platforms.vercel.stage import Stage
from tests.timing import within

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process")

RESERVE_S = 0.25  # the default
EVERYWHERE = [
    pytest.param(shape, mode, id=f"{shape}-{mode}")
    for shape in ("handler", "wsgi", "asgi")
    for mode in ("ipc", "lambda")
]


@pytest.mark.parametrize(("shape", "mode"), EVERYWHERE)
@pytest.mark.parametrize(("budget_ms", "limit_s"), [(5000, 1.0 - RESERVE_S), (300, 0.3)])
def test_a_silent_ingest_takes_no_more_than_is_left(
    shape: str, mode: str, budget_ms: int, limit_s: float, tmp_path: Path, vercel_python: Path
) -> None:
    """The budget, or the time until the deadline less the reserve, whichever is shorter."""
    with Stage(
        tmp_path,
        vercel_python,
        shape,
        mode,
        max_duration_s=1.0,
        env={"DOOW_TRACK_BUDGET": str(budget_ms)},
    ) as stage:
        stage.runtime.request("HEAD", "/plain/warm")
        stage.ingest.reset()
        stage.ingest.fault(Fault(hang=True, times=None))
        with Metronome() as noise:
            response = stage.request("plain", call := stage.next_call())
        assert response.body == f"the answer to {call}".encode()
        within(response.ended_s, limit_s + 0.1 + noise.worst_s, at_least_s=limit_s - 0.1)
        # Given up, but kept: it stands in the log.
        assert "doow_dead_letter" in stage.runtime.stdout


@pytest.mark.parametrize(("shape", "mode"), EVERYWHERE)
def test_what_a_killed_handler_had_recorded_has_arrived(
    shape: str, mode: str, tmp_path: Path, vercel_python: Path
) -> None:
    """Shortly before the deadline it is delivered, although the handler still works."""
    with (
        Stage(tmp_path, vercel_python, shape, mode, max_duration_s=1.0) as stage,
        ThreadPoolExecutor(1) as pool,
    ):
        call = stage.next_call()
        began_at = time.monotonic()
        hanging = pool.submit(stage.request, "hang", call)
        stage.ingest.wait_for(1)
        [post] = stage.ingest.posts()
        time.sleep(max(0.0, began_at + 1.0 - time.monotonic()))  # The deadline.
        stage.runtime.kill()
        with pytest.raises(VercelRuntimeError):
            hanging.result()
        assert stage.recorded(call) == ["begun"]
        within(post.received_at - began_at, 1.0, at_least_s=0.5)


def test_the_deadline_is_that_of_the_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the monotonic clock, since the wall clock may be set while the handler works."""
    runtime = ModuleType("vercel_runtime")
    deadline = datetime.now(timezone.utc) + timedelta(seconds=10)
    monkeypatch.setattr(runtime, "get_deadline", lambda: deadline, raising=False)
    monkeypatch.setitem(sys.modules, "vercel_runtime", runtime)
    ends_at = vercel.find_deadline((), {})
    assert ends_at == pytest.approx(time.monotonic() + 10, abs=5)


def test_there_may_be_no_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Off Vercel, with an older runtime, and where the request carried none."""
    monkeypatch.delitem(sys.modules, "vercel_runtime", raising=False)
    assert vercel.find_deadline((), {}) is None
    runtime = ModuleType("vercel_runtime")
    monkeypatch.setitem(sys.modules, "vercel_runtime", runtime)
    assert vercel.find_deadline((), {}) is None
    monkeypatch.setattr(runtime, "get_deadline", lambda: None, raising=False)
    assert vercel.find_deadline((), {}) is None
