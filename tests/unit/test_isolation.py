"""Tests do not disturb each other, nor does the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from doow_serverless import Tracker
from doow_serverless.testing import MemoryTransport
from tests import timing
from tests.network import KEY
from tests.timing import Starvation

if TYPE_CHECKING:
    from pathlib import Path

    from doow_serverless._recording.buffer import Buffer

_left: list[Buffer] = []
"""What the earlier turn of a test has recorded into."""


@pytest.mark.parametrize("turn", [1, 2])
def test_events_of_an_earlier_test_are_forgotten(turn: int) -> None:
    """Whoever holds them: nobody has flushed them, and no engine lists those of a transaction."""
    assert [buffer.has_waiting for buffer in _left] == [False] * len(_left)
    tracker = Tracker(
        KEY, transport=MemoryTransport(), license_id="lic_1", warm_up=False, environ={}
    )
    tracker.track("tokens", turn)
    transaction = tracker.engine.unattended.transaction()
    transaction.adopt(tracker.engine.unattended.take())
    tracker.track("tokens", turn)
    _left[:] = [tracker.engine.unattended, transaction]
    assert [buffer.has_waiting for buffer in _left] == [True, True]


def wait_ns(folder: Path, thread: int, waited_ns: int) -> None:
    """Say of a thread how long it was ready to run, and did not."""
    (folder / str(thread)).mkdir(exist_ok=True)
    (folder / str(thread) / "schedstat").write_text(f"1 {waited_ns} 1\n")


def test_a_thread_that_ends_takes_nothing_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test is starved, though a thread of an earlier test ends that had waited for longer."""
    monkeypatch.setattr(timing, "_TASKS", tmp_path)
    wait_ns(tmp_path, 1, 1_000_000_000)
    wait_ns(tmp_path, 2, 9_000_000_000)
    starvation = Starvation()
    (tmp_path / "2" / "schedstat").unlink()
    wait_ns(tmp_path, 1, 1_500_000_000)
    wait_ns(tmp_path, 3, 2_000_000_000)
    assert starvation.seconds() == 2.5
