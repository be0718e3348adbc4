"""The guard: when it delivers on which machine, and how it leaves the interpreter."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import pytest

from doow_serverless._delivery import guard
from doow_serverless._delivery.guard import Guard, Schedule

if TYPE_CHECKING:
    from collections.abc import Callable


def test_on_a_core_of_its_own() -> None:
    """Once, a quarter of a second before the deadline."""
    schedule = Schedule(1.0)
    assert (schedule.leads_s, schedule.last_words_s) == ([0.25], 0.08)


@pytest.mark.parametrize("share", [1 / 2, 1 / 4, 1 / 7, 1 / 14, 1 / 100])
def test_on_a_part_of_a_core(share: float) -> None:
    """Earlier, and again and again; the last words outlast a period in which it stands still."""
    schedule = Schedule(share)
    leads_s = schedule.leads_s
    assert leads_s == sorted(leads_s, reverse=True)
    assert 2.0 >= leads_s[0] > leads_s[-1] == 0.25
    assert schedule.last_words_s > 0.08 + 0.1 * (1 - share)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A schedule that can be waited for."""
    schedule = Schedule(1.0)
    schedule.leads_s, schedule.last_words_s = [0.3, 0.2, 0.1], 0.15
    monkeypatch.setattr(guard, "PUNCTUAL_S", 10.0)
    monkeypatch.setattr(guard, "_schedule", schedule)


@pytest.mark.usefixtures("often")
def test_it_delivers_at_each_moment_and_then_rests() -> None:
    """Each has the time that is left, and the last, on a punctual machine, a little more of it.

    Meanwhile threads take turns more often.
    """
    usual_s = sys.getswitchinterval()
    lefts: list[Callable[[], float]] = []
    watch = Guard(time.monotonic() + 0.35, lefts.append)
    ends_at = time.monotonic() + 5
    while len(lefts) < 3 and time.monotonic() < ends_at:
        time.sleep(0.005)
    assert sys.getswitchinterval() < usual_s
    assert len(lefts) == 3
    assert lefts[0]() < lefts[2]()
    watch.cancel()
    assert sys.getswitchinterval() == usual_s
    watch.cancel()
    assert sys.getswitchinterval() == usual_s


@pytest.mark.usefixtures("often")
def test_an_invocation_that_never_ends_leaves_nothing_behind() -> None:
    """After the deadline threads take turns as before, whether or not anybody cancels."""
    usual_s = sys.getswitchinterval()
    lefts: list[Callable[[], float]] = []
    Guard(time.monotonic() + 0.15, lefts.append)
    ends_at = time.monotonic() + 5
    while not (lefts and sys.getswitchinterval() == usual_s) and time.monotonic() < ends_at:
        time.sleep(0.005)
    assert (len(lefts), sys.getswitchinterval()) == (1, usual_s)


@pytest.mark.usefixtures("often")
def test_cancelled_it_delivers_nothing() -> None:
    """Nor is anything left of it, when its moments come."""
    usual_s = sys.getswitchinterval()
    lefts: list[Callable[[], float]] = []
    watch = Guard(time.monotonic() + 0.32, lefts.append)
    watch.cancel()
    time.sleep(0.1)
    assert (lefts, sys.getswitchinterval()) == ([], usual_s)


@pytest.mark.usefixtures("often")
def test_moments_that_have_passed_are_left_out() -> None:
    """An invocation that has little time from the start is watched for the rest."""
    watch = Guard(time.monotonic() + 0.25, lambda _: None)
    assert watch._leads_s == [0.1]
    watch.cancel()


@pytest.mark.usefixtures("often")
def test_late_it_writes_down_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the machine has let the guard wait, the last delivery leaves more for last words."""
    monkeypatch.setattr(guard, "PUNCTUAL_S", 0.0)
    lefts: list[Callable[[], float]] = []
    watch = Guard(time.monotonic() + 0.15, lefts.append)
    ends_at = time.monotonic() + 5
    while not lefts and time.monotonic() < ends_at:
        time.sleep(0.005)
    assert lefts[0]() < 0
    watch.cancel()
