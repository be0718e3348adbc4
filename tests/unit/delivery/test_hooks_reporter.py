"""The thread of the hooks: in order, one at a time, bounded, and holding up nobody."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless import Outcome
from doow_serverless._config import Config
from doow_serverless._delivery import hooks
from doow_serverless._delivery.hooks import MOST_WAITING, Reporter
from doow_serverless._process.workers import Workers
from doow_serverless.errors import DoowError, ErrorKind
from tests.network import KEY

if TYPE_CHECKING:
    from tests.unit.delivery.turns import Turns

ERROR = DoowError("away", ErrorKind.TIMEOUT)
OTHER = DoowError("full", ErrorKind.DROPPED_EVENTS)
OUTCOME = Outcome(accepted=1)


@pytest.fixture(autouse=True)
def _in_turns(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    workers = partial(Workers, idle=turns)  # type: ignore[arg-type]  # in its place
    monkeypatch.setattr(hooks, "Workers", workers)
    monkeypatch.setattr(hooks, "monotonic", turns.clock)
    monkeypatch.setattr(hooks, "threading", SimpleNamespace(Event=turns.event))


def new_reporter(**options: Any) -> Reporter:
    return Reporter(Config(KEY, environ={}, **options))


def test_hooks_are_told_in_order(turns: Turns) -> None:
    """Of errors before the outcome, then whoever waits; one call after the other."""
    told: list[object] = []

    def hook(what: object) -> None:
        told.append(what)
        turns.sleep(0.25)

    reporter = new_reporter(on_error=hook, on_flush=hook)
    reporter.tell([ERROR, OTHER], OUTCOME, lambda: told.append("first"))
    reporter.tell([], OUTCOME, lambda: told.append("second"))
    assert (told, repr(reporter)) == ([], "Reporter(2 calls waiting, 0 dropped)")
    turns.sleep(2.0)
    assert told == [ERROR, OTHER, OUTCOME, "first", OUTCOME, "second"]
    assert (turns.started, repr(reporter)) == (1, "Reporter(0 calls waiting, 0 dropped)")


@pytest.mark.parametrize(
    ("names", "expected"),
    [((), False), (("on_error",), True), (("on_flush",), True), (("on_error", "on_flush"), True)],
)
def test_whether_anyone_is_to_be_told(names: tuple[str, ...], expected: bool) -> None:
    """There is a hook."""
    assert new_reporter(**dict.fromkeys(names, print)).is_wanted is expected


def test_what_no_hook_is_for_is_logged_at_once(
    turns: Turns, caplog: pytest.LogCaptureFixture
) -> None:
    """On this thread; an outcome without a hook is told to nobody."""
    told: list[object] = []
    reporter = new_reporter()
    reporter.tell([ERROR, OTHER], OUTCOME, lambda: told.append("done"))
    assert (caplog.messages, told) == (["TIMEOUT: away", "DROPPED_EVENTS: full"], ["done"])
    with_error = new_reporter(on_error=told.append)
    with_error.tell([], OUTCOME, lambda: told.append("nothing to tell"))
    assert (told, turns.started) == (["done", "nothing to tell"], 0)
    with_flush = new_reporter(on_flush=told.append)
    with_flush.tell([ERROR], None, lambda: told.append("logged"))
    assert (told[2:], turns.started, len(caplog.messages)) == (["logged"], 0, 3)
    with_flush.tell([ERROR], OUTCOME, lambda: told.append("both"))
    turns.rest()
    assert (told[3:], len(caplog.messages)) == ([OUTCOME, "both"], 4)


def test_whoever_reports_waits_a_little(turns: Turns) -> None:
    """Until the hook has returned, and no longer than a tenth of a second."""
    pauses = iter([0.0625, 60.0])
    reporter = new_reporter(on_error=lambda _: turns.sleep(next(pauses)))
    reporter.report(ERROR)
    assert turns.clock.now == 1_000.0625
    reporter.report(ERROR)
    assert turns.clock.now == 1_000.0625 + 0.1


@pytest.mark.parametrize(("runs_s", "waits_s"), [(0.03125, 0.1), (0.0625, 0.0)])
def test_many_errors_do_not_cost_a_wait_each(turns: Turns, runs_s: float, waits_s: float) -> None:
    """Nobody waits while a hook is slow."""
    reporter = new_reporter(on_error=lambda _: turns.sleep(60.0))
    reporter.tell([ERROR], None, lambda: None)
    turns.sleep(runs_s)
    reporter.report(OTHER)
    assert turns.clock.now == 1_000.0 + runs_s + waits_s


def test_nobody_waits_for_a_hook_that_is_late(turns: Turns) -> None:
    """It has not returned for a second; those behind it are told once it has."""
    told: list[float] = []

    def hook(_: object) -> None:
        told.append(turns.clock.now)
        turns.sleep(60.0 if len(told) == 1 else 0.0)

    reporter = new_reporter(on_error=hook)
    assert not reporter.is_late
    reporter.tell([ERROR], None, lambda: None)
    turns.sleep(0.75)
    assert not reporter.is_late
    turns.sleep(0.25)
    assert reporter.is_late
    reporter.report(ERROR)
    assert turns.clock.now == 1_001.0
    turns.sleep(60.0)
    assert (told, reporter.is_late) == ([1_000.0, 1_060.0], False)


def test_a_thread_of_ours_does_not_wait_for_hooks(turns: Turns) -> None:
    """A hook that reports would wait for itself."""
    told: list[float] = []

    def hook(_: object) -> None:
        told.append(turns.clock.now)
        if len(told) == 1:
            reporter.report(OTHER)
            told.append(turns.clock.now)

    reporter = new_reporter(on_error=hook)
    reporter.report(ERROR)
    turns.rest()
    assert told == [1_000.0] * 3


def test_calls_that_wait_are_bounded(turns: Turns, caplog: pytest.LogCaptureFixture) -> None:
    """Beyond a thousand they are dropped, so that memory does not grow; it is said how many."""
    told: list[str] = []
    done: list[int] = []
    reporter = new_reporter(on_error=lambda error: told.append(str(error)))
    for number in range(MOST_WAITING + 3):
        error = DoowError(str(number), ErrorKind.TIMEOUT)
        reporter.tell([error], None, partial(done.append, number))
    assert done == [MOST_WAITING, MOST_WAITING + 1, MOST_WAITING + 2]
    assert repr(reporter) == "Reporter(1000 calls waiting, 3 dropped)"
    turns.rest()
    assert told == [str(number) for number in range(MOST_WAITING)]
    assert sorted(done) == list(range(MOST_WAITING + 3))
    assert caplog.messages == ["3 calls of hooks were dropped: those before them took too long"]
    reporter.tell([ERROR], None, lambda: None)
    turns.rest()
    assert (len(told), len(caplog.messages)) == (MOST_WAITING + 1, 1)


def test_a_hook_that_raises_holds_up_nobody(turns: Turns, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever waits is told that it is over, and the next call comes."""

    def hook(_: object) -> None:
        raise LookupError("mine")

    done: list[str] = []
    reporter = new_reporter(on_error=hook, on_flush=hook)
    reporter.tell([ERROR], None, lambda: done.append("first"))
    reporter.tell([], OUTCOME, lambda: done.append("second"))
    turns.rest()
    assert done == ["first", "second"]
    assert caplog.messages == [
        "on_error raised LookupError('mine')",
        "on_flush raised LookupError('mine')",
    ]
    assert not reporter.is_late


def test_where_no_thread_can_be_had_hooks_run_here(turns: Turns) -> None:
    """Rather than never."""
    told: list[object] = []
    turns.can_start = False
    reporter = new_reporter(on_error=told.append)
    reporter.tell([ERROR], None, lambda: told.append("done"))
    assert told == [ERROR, "done"]
