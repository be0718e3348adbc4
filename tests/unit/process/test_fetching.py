"""When keys are fetched, and how long that is waited for: every order of facts, and the threads."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless._process.fetching import (
    DOUBT_S,
    FRESH_S,
    LOST_S,
    RETRY_S,
    FetchedKeys,
    FetchState,
)
from tests.clock import Clock

if TYPE_CHECKING:
    from doow_serverless._process.fetching import Fetch

KEYS, OTHERS = (b"key",), (b"other",)


def begun(state: FetchState, now: float) -> Fetch:
    fetch = state.begin(now)
    assert fetch is not None
    return fetch


def fresh(now: float) -> FetchState:
    """A state whose keys were fetched at that time."""
    state = FetchState()
    state.succeeded(begun(state, now), KEYS)
    return state


# ── the state machine ───────────────────────────────────────────────────────────────────────────


def test_one_fetch_at_a_time() -> None:
    """While one is under way no other begins; when it has succeeded none does for an hour."""
    state = FetchState()
    fetch = begun(state, 0.0)
    assert [state.begin(at) for at in (0.0, LOST_S - 1)] == [None, None]
    state.succeeded(fetch, KEYS)
    assert (state.keys, state.begin(FRESH_S - 1)) == (KEYS, None)
    begun(state, FRESH_S)
    assert state.keys == KEYS


def test_a_failure_is_shared() -> None:
    """For half a minute; then another fetch begins, and its success clears the trouble."""
    state = FetchState()
    state.failed(begun(state, 0.0), "no", 1.0)
    assert (state.begin(RETRY_S), state.trouble, state.keys) == (None, "no", ())
    state.succeeded(begun(state, RETRY_S + 1), KEYS)
    assert (state.trouble, state.keys) == ("", KEYS)


def test_a_failed_refresh_keeps_the_keys() -> None:
    """They are old, and still keys."""
    state = fresh(0.0)
    state.failed(begun(state, FRESH_S), "no", FRESH_S)
    assert (state.keys, state.trouble, state.begin(FRESH_S + 1)) == (KEYS, "no", None)


def test_a_wait_ends_with_the_age_of_the_fetch() -> None:
    """Whoever comes later waits for less; with old keys at hand, shorter; without a fetch, not."""
    state = FetchState()
    assert state.wait(0.0, 3.0, 0.5) is None
    fetch = begun(state, 0.0)
    assert [state.wait(at, 3.0, 0.5) for at in (0.0, 2.0, 3.0)] == [
        (fetch, 3.0),
        (fetch, 1.0),
        None,
    ]
    state.succeeded(fetch, KEYS)
    again = begun(state, FRESH_S)
    assert [state.wait(FRESH_S + after, 3.0, 0.5) for after in (0.0, 0.5)] == [(again, 0.5), None]


def test_a_lost_fetch_is_replaced() -> None:
    """What it brings in the end counts only if there are no keys; its failure does not."""
    state = FetchState()
    lost = begun(state, 0.0)
    other = begun(state, LOST_S)
    state.failed(lost, "frozen", LOST_S + 1)
    assert (state.trouble, state.begin(LOST_S + 1)) == ("", None)
    state.succeeded(lost, OTHERS)
    assert (state.keys, state.begin(LOST_S + 1)) == (OTHERS, None)
    state.succeeded(other, KEYS)
    assert (state.keys, state.begin(LOST_S + 1)) == (KEYS, None)


def test_a_late_success_does_not_replace_newer_keys() -> None:
    """It may bring the key before the current one."""
    state = FetchState()
    lost = begun(state, 0.0)
    state.succeeded(begun(state, LOST_S), KEYS)
    state.succeeded(lost, OTHERS)
    assert state.keys == KEYS


def test_a_failure_of_a_frozen_fetch_postpones_nothing() -> None:
    """The invocation that thaws it begins another, and waits for that one longer."""
    state = fresh(0.0)
    fetch = begun(state, FRESH_S)
    thawed_at = FRESH_S + 7_200.0
    state.failed(fetch, "closed", thawed_at)
    assert state.wait(thawed_at, 3.0, 0.5) is None
    again = begun(state, thawed_at)
    assert state.wait(thawed_at, 3.0, 0.5) == (again, 3.0)
    state.succeeded(again, OTHERS)
    assert state.wait(thawed_at, 3.0, 0.5) is None
    usual = begun(state, thawed_at + FRESH_S)
    assert state.wait(thawed_at + FRESH_S, 3.0, 0.5) == (usual, 0.5)


@pytest.mark.parametrize("hours", [-5, 0, 5])
def test_a_restored_process_forgets_its_times(hours: int) -> None:
    """Keys are old, failures and fetches are the snapshot's, wherever the clock stands."""
    state = fresh(36_000.0)
    state.doubt(36_000.0)
    lost = begun(state, 36_000.0)
    state.expire()
    now = 36_000.0 + hours * 3_600.0
    fetch = begun(state, now)
    assert state.wait(now, 3.0, 0.5) == (fetch, 0.5)
    state.succeeded(lost, OTHERS)
    assert state.keys == KEYS


def test_unknown_signatures_cause_one_fetch_a_minute() -> None:
    """However many there are."""
    state = fresh(0.0)
    fetches = 0
    for at in range(0, int(2 * DOUBT_S), 10):
        state.doubt(float(at))
        fetch = state.begin(float(at))
        if fetch is not None:
            fetches += 1
            state.succeeded(fetch, KEYS)
    assert fetches == 2


# ── the threads ─────────────────────────────────────────────────────────────────────────────────


class Source:
    """Brings keys once it is opened, or raises."""

    def __init__(self, result: Any = KEYS, *, is_open: bool = True) -> None:
        self.result = result
        self.is_open = threading.Event()
        self.has_begun = threading.Event()
        self.threads: list[str] = []
        if is_open:
            self.is_open.set()

    def __call__(self, _: object) -> tuple[bytes, ...]:
        self.threads.append(threading.current_thread().name)
        self.has_begun.set()
        assert self.is_open.wait(20)
        if isinstance(self.result, BaseException):
            raise self.result
        keys: tuple[bytes, ...] = self.result
        return keys


def test_all_wait_for_the_same_fetch() -> None:
    """It runs on a thread of its own, and wakes them all."""
    source = Source(is_open=False)
    fetched = FetchedKeys(source, Clock(), "doow-key")
    seen = []

    def wait() -> None:
        fetched.ask()
        fetched.wait(20.0, 20.0)
        seen.append(fetched.state.keys)

    threads = [threading.Thread(target=wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert source.has_begun.wait(20)
    source.is_open.set()
    for thread in threads:
        thread.join()
    assert (seen, source.threads) == ([KEYS] * 8, ["doow-key"])


def test_a_fetch_that_hangs_costs_its_first_seconds_only() -> None:
    """Then nobody waits, and no other thread is begun."""
    source, clock = Source(is_open=False), Clock()
    fetched = FetchedKeys(source, clock, "doow-key")
    fetched.ask()
    clock.now += 3.0
    for _ in range(100):
        fetched.ask()
        fetched.wait(3.0, 3.0)
    source.is_open.set()
    fetched.wait(20.0, 20.0)
    assert (fetched.state.keys, len(source.threads)) == (KEYS, 1)


@pytest.mark.parametrize("problem", [RuntimeError("no"), SystemExit("no"), KeyboardInterrupt("no")])
def test_whatever_is_raised_wakes_who_waits(problem: BaseException) -> None:
    """They learn why."""
    fetched = FetchedKeys(Source(problem), Clock(), "doow-key")
    fetched.ask()
    fetched.wait(20.0, 20.0)
    assert (fetched.state.keys, fetched.state.trouble) == ((), "no")


@pytest.mark.parametrize("aside", [False, True])
def test_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch, *, aside: bool) -> None:
    """Who waits fetches by itself; who does not goes on without."""

    def fail(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    source = Source()
    fetched = FetchedKeys(source, Clock(), "doow-key")
    fetched.ask(aside=aside)
    fetched.wait(20.0, 20.0)
    expected = ((), "the system starts no more threads", 0) if aside else (KEYS, "", 1)
    assert (fetched.state.keys, fetched.state.trouble, len(source.threads)) == expected


def test_an_interrupted_application_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it fetches by itself, Ctrl-C passes; the fetch has failed for all others."""

    def fail(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    fetched = FetchedKeys(Source(KeyboardInterrupt("Ctrl-C")), Clock(), "doow-key")
    with pytest.raises(KeyboardInterrupt):
        fetched.ask()
    assert (fetched.state.trouble, fetched.state.is_under_way) == ("Ctrl-C", False)


def test_a_child_fetches_although_a_thread_of_its_parent_did() -> None:
    """A fork leaves that thread behind, with its lock and its turn."""
    source = Source(is_open=False)
    fetched = FetchedKeys(source, Clock(), "doow-key")
    fetched.ask()
    assert source.has_begun.wait(20)
    assert fetched._lock.acquire(blocking=False)
    source.is_open.set()
    fetched.reset_after_fork()
    fetched.ask()
    fetched.wait(20.0, 20.0)
    assert (fetched.state.keys, len(source.threads)) == (KEYS, 2)
