"""Fleets of ill servers on simulated time: the campaign's in short, and that it notices faults."""

from __future__ import annotations

from typing import TYPE_CHECKING

from doow_serverless._delivery import blame, hooks
from tests.campaign.fleets import Run

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest


def runs(count: int) -> Iterator[Run]:
    """So many runs."""
    for number in range(count):
        run = Run(f"unit/{number}")
        run.run()
        yield run


def test_each_event_once() -> None:
    """Whatever ails the servers, each event is accepted once or rejected once, if it can be."""
    troubles = {repr(run): run.troubles for run in runs(60) if run.troubles}
    assert troubles == {}


def test_a_run_is_that_of_its_seed() -> None:
    """The same seed gives the same run."""
    first, second = ([(run.fleet.posts, run.healing_s) for run in runs(5)] for _ in range(2))
    assert first == second


def test_hasty_blame_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """If one failure among others is enough, events are given up that are well."""
    monkeypatch.setattr(blame, "GIVE_UP_AT", 0.5)
    monkeypatch.setattr(blame, "PATIENCE_S", 0.0)
    assert any("given up without poison" in str(run.troubles) for run in runs(100))


def test_hooks_that_hold_up_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a caller waits longer for a hook that hangs than it may."""
    monkeypatch.setattr("doow_serverless._delivery.flush.HOOKS_WAIT_S", 5.0)
    monkeypatch.setattr(hooks, "LATE_S", 1e9)
    assert any("took" in str(run.troubles) for run in runs(100))
