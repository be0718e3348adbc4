"""SIGTERM: what was recorded leaves, and the process ends as it would without us."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from doow_serverless._process.shutdown import SIGTERM_LIMIT_S
from doow_serverless.local import Fault, Ingest
from tests.integration.endings import TOLERANCE_S, delivered, run
from tests.network import Server, silent
from tests.timing import within

if TYPE_CHECKING:
    from pathlib import Path


# ── SIGTERM ─────────────────────────────────────────────────────────────────────────────────────


def test_the_signal_still_kills(ingest: Ingest, tmp_path: Path) -> None:
    """Where nobody handles it: stray events, those of invocations, and the backlog leave first."""
    ingest.fault(Fault(status=429, headers={"Retry-After": "30"}))
    script = """
        doow.configure(on_error=lambda error: None)
        doow.tracked(record)("kept")
        record("stray")

        @doow.tracked
        def handler():
            record("in-an-invocation")
            with doow.transaction():
                record("in-a-transaction")
                terminate()

        handler()
    """
    ended = run(script, ingest.url, tmp_path)
    assert (ended.status, ended.stderr) == (-signal.SIGTERM, "")
    assert delivered(ingest) == ["in-an-invocation", "kept", "stray"]


def test_invocations_on_other_threads(ingest: Ingest, tmp_path: Path) -> None:
    """What concurrent invocations have recorded so far leaves, too."""
    script = """
        doow.configure()
        begun = threading.Barrier(5)

        @doow.tracked
        def handler(name):
            record(name)
            begun.wait()
            time.sleep(60)

        for number in range(4):
            threading.Thread(target=handler, args=(f"{number}",), daemon=True).start()
        begun.wait()
        terminate()
    """
    assert run(script, ingest.url, tmp_path).status == -signal.SIGTERM
    assert delivered(ingest) == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("handler", "status", "words"),
    [
        ("lambda *_: print('theirs')", 0, ["theirs", "after"]),
        ("lambda *_: sys.exit(7)", 7, []),
        ("lambda *args: print(args[0], args[1].f_code.co_name)", 0, ["15", "terminate", "after"]),
    ],
)  # fmt: skip
def test_an_earlier_handler_runs_afterwards(
    ingest: Ingest, tmp_path: Path, handler: str, status: int, words: list[str]
) -> None:
    """It is called as if we were not there, once the events have left."""
    script = f"""
        theirs = {handler}
        signal.signal(signal.SIGTERM, theirs)
        record("stray")
        terminate()
        print("after")
    """
    ended = run(script, ingest.url, tmp_path)
    assert (ended.status, ended.stderr, ended.words) == (status, "", words)
    assert delivered(ingest) == ["stray"]


def test_the_events_leave_before_the_earlier_handler(ingest: Ingest, tmp_path: Path) -> None:
    """A handler that ends the process at once loses nothing."""
    script = """
        signal.signal(signal.SIGTERM, lambda *_: os._exit(9))
        record("stray")
        terminate()
    """
    assert run(script, ingest.url, tmp_path).status == 9
    assert delivered(ingest) == ["stray"]


@pytest.mark.parametrize(
    ("theirs", "status", "words"),
    [
        ("lambda *_: print('theirs')", 0, ["theirs", "after"]),
        # It passes the signal on to the handler that it has found, which is ours.
        ("lambda *args: (print('theirs', flush=True), found(*args))", -15, ["theirs"]),
        # It puts that one back and signals again, as uvicorn does at its end.
        ("lambda *args: (signal.signal(15, found), os.kill(os.getpid(), 15))", -15, []),
    ],
)
def test_a_handler_that_is_set_between_decoration_and_the_first_invocation(
    ingest: Ingest, tmp_path: Path, theirs: str, status: int, words: list[str]
) -> None:
    """A server sets its own when it begins to serve: the events leave before it runs, once."""
    script = f"""
        handler = doow.tracked(record)
        found = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, {theirs})
        handler("first")
        doow.track("tokens", event_id="stray")
        terminate()
        print("after")
    """
    ended = run(script, ingest.url, tmp_path)
    assert (ended.status, ended.stderr, ended.words) == (status, "", words)
    assert delivered(ingest) == ["first", "stray"]


def test_a_later_handler_replaces_ours(ingest: Ingest, tmp_path: Path) -> None:
    """The application has the last word, and the end of the process flushes all the same."""
    script = """
        record("stray")
        signal.signal(signal.SIGTERM, lambda *_: print("theirs"))
        terminate()
        doow.Tracker()  # Does not take it back.
        terminate()
    """
    ended = run(script, ingest.url, tmp_path)
    assert (ended.status, ended.stderr, ended.words) == (0, "", ["theirs", "theirs"])
    assert delivered(ingest) == ["stray"]


def test_an_ignored_signal_stays_ignored(ingest: Ingest, tmp_path: Path) -> None:
    """Who ignores it wants to go on."""
    script = """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        record("stray")
        terminate()
        print(signal.getsignal(signal.SIGTERM) is signal.SIG_IGN)
    """
    ended = run(script, ingest.url, tmp_path)
    assert (ended.status, ended.stderr, ended.words) == (0, "", ["True"])
    assert delivered(ingest) == ["stray"]


def test_what_goes_on_after_the_signal(ingest: Ingest, tmp_path: Path) -> None:
    """An invocation that ends in an orderly way sends only what is new."""
    script = """
        signal.signal(signal.SIGTERM, lambda *_: None)

        @doow.tracked
        def handler():
            record("before")
            terminate()
            record("after")

        handler()
    """
    assert run(script, ingest.url, tmp_path).status == 0
    assert sorted(post.event_ids for post in ingest.posts()) == [("after",), ("before",)]


def test_a_tracker_made_on_another_thread(ingest: Ingest, tmp_path: Path) -> None:
    """Only the main thread may handle signals: the first tracker made there does."""
    script = """
        first = threading.Thread(target=record, args=("from-a-thread",))
        first.start()
        first.join()
        print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
        doow.Tracker(warm_up=False)
        record("stray")
        terminate()
    """
    ended = run(script, ingest.url, tmp_path)
    assert (ended.status, ended.stderr, ended.words) == (-signal.SIGTERM, "", ["True"])
    assert delivered(ingest) == ["from-a-thread", "stray"]


def test_a_signal_while_the_main_thread_records(tmp_path: Path, ingest: Ingest) -> None:
    """Whatever it was doing, all that it has recorded before it ends arrives, or is in the log."""
    script = """
        numbers = iter(range(10_000_000))

        @doow.tracked
        def handler():
            for number in numbers:
                doow.track("tokens", event_id=str(number))
                if number % 100 == 0:
                    time.sleep(0.001)  # No more than can be written down in the time granted.

        def end(*_):
            print("until", next(numbers))
            os._exit(3)

        signal.signal(signal.SIGTERM, end)
        doow.configure(
            max_queue_size=1_000_000, max_queue_bytes=2**30, on_error=lambda error: None
        )
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        handler()
    """
    for _ in range(5):
        ingest.reset()
        ended = run(script, ingest.url, tmp_path)
        assert (ended.status, ended.stderr) == (3, "")
        recorded = {str(number) for number in range(int(ended.words[1]))}
        # The very last one may have been interrupted before it was recorded.
        missing = recorded - {*ended.logged, *delivered(ingest)}
        assert missing <= {str(len(recorded) - 1)}
        assert len(recorded) > 1_000


def test_large_events_are_written_down(tmp_path: Path) -> None:
    """4 MB that nobody takes stand in the log, though writing them takes longer than the limit."""
    script = """
        doow.configure(on_error=lambda error: None)

        @doow.tracked
        def handler():
            for number in range(200):
                noise = os.urandom(10_000).hex()
                doow.track("tokens", event_id=str(number), metadata={"noise": noise})
            terminate(shutdown.SIGTERM_LIMIT_S)

        handler()
    """
    with Server(silent) as server:
        ended = run(script, server.url, tmp_path)
    assert (ended.status, ended.stderr) == (-signal.SIGTERM, "")
    assert sorted(ended.logged, key=int) == [str(number) for number in range(200)]


def test_a_signal_while_another_thread_waits_in_its_flush(tmp_path: Path) -> None:
    """The batch on its way is in the log, whoever waits for its answer."""
    script = """
        doow.configure(budget=5.0, on_error=lambda error: None)
        threading.Thread(target=doow.tracked(record), args=("under-way",), daemon=True).start()
        time.sleep(0.5)
        terminate(shutdown.SIGTERM_LIMIT_S)
    """
    with Server(silent) as server:
        ended = run(script, server.url, tmp_path)
        assert [request.event_ids for request in server.requests] == [["under-way"]]
    assert (ended.status, ended.logged) == (-signal.SIGTERM, ["under-way"])


@pytest.mark.parametrize(
    "lock",
    [
        "tracker.engine.unattended._lock",
        "tracker.engine.unattended.sealing",
        "tracker.engine.outbox.rescuers._lock",
        "tracker.engine.outbox.workers._lock",
        "tracker.engine.outbox._lock",
        "threading._active_limbo_lock",
    ],
)
def test_a_signal_while_a_lock_is_held(tmp_path: Path, ingest: Ingest, lock: str) -> None:
    """Whatever the main thread was just doing, the end comes within the limit."""
    script = f"""
        tracker = doow.Tracker()
        tracker.track("tokens")
        with {lock}:
            print("now")
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
    """
    ended = run(script, ingest.url, tmp_path)
    # What could not be sent may have been reported by then.
    assert (ended.status, "Traceback" in ended.stderr) == (-signal.SIGTERM, False)
    within(ended.took_s, SIGTERM_LIMIT_S * 1.5 + 1.0 + TOLERANCE_S)


def test_an_outage_at_the_signal(tmp_path: Path) -> None:
    """A silent server takes no more time than platforms grant, and the events are in the log."""
    script = """
        doow.configure(on_error=lambda error: None)
        record("stray")
        doow.Tracker()
        print("now")
        terminate(shutdown.SIGTERM_LIMIT_S)
    """
    with Server(silent) as server:
        ended = run(script, server.url, tmp_path)
    assert (ended.status, ended.stderr, ended.logged) == (-signal.SIGTERM, "", ["stray"])
    within(ended.took_s, SIGTERM_LIMIT_S * 1.5 + 1.0 + TOLERANCE_S)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_ends_for_itself(ingest: Ingest, tmp_path: Path) -> None:
    """A forked child delivers its own events at its end, and its parent's are the parent's."""
    script = """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        record("parent")
        pid = os.fork()
        if pid == 0:
            record("child")
            terminate()
        print(os.WTERMSIG(os.waitpid(pid, 0)[1]))
    """
    ended = run(script, ingest.url, tmp_path)
    assert (ended.status, ended.stderr, ended.words) == (0, "", ["15"])
    assert delivered(ingest) == ["child", "parent"]
    assert sorted(post.event_ids for post in ingest.posts()) == [("child",), ("parent",)]


def test_disabled_it_handles_nothing(ingest: Ingest, tmp_path: Path) -> None:
    """A tracker that records nothing has nothing to flush, and leaves the signal alone."""
    script = """
        record("nothing")
        print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
    """
    ended = run(script, ingest.url, tmp_path, DOOW_TRACK_DISABLED="true")
    assert (ended.status, ended.stderr, ended.words) == (0, "", ["True"])
    assert ingest.posts() == []
