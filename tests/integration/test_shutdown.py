"""The end of real processes: what waits is delivered, and nobody else's end is changed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from doow_serverless._keeping.dead_letter_reader import Assembly
from doow_serverless._process.shutdown import EXIT_LIMIT_S, SIGTERM_LIMIT_S
from doow_serverless.local import Fault, Ingest
from tests.batches import find_records
from tests.network import KEY, Server, silent

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")

COMMON = """
import os, signal, sys, threading, time
import doow_serverless as doow

def terminate():
    # On a busy machine the imports alone would take longer than is granted after the signal.
    for thread in threading.enumerate():
        if thread.name == "doow-warm-up":
            thread.join()
    os.kill(os.getpid(), signal.SIGTERM)

def record(*events):
    for event in events:
        doow.track("tokens", event_id=event)
"""

TOLERANCE_S = 0.5
"""For the threads of a busy machine, and writing down what is left."""


class Ended:
    """What a process that has ended left behind.

    Attributes:
        status: As its parent sees it; negative for a signal.
        stderr: What it complained about.
        took_s: Seconds from its word "now", or else its start, to its end.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        began = time.monotonic()
        lines = []
        for line in process.stdout:
            if line == "now\n":
                began = time.monotonic()
            else:
                lines.append(line)
        self._text = "".join(lines)
        _, self.stderr = process.communicate(timeout=60)
        self.took_s = time.monotonic() - began
        self.status = process.returncode

    @property
    def words(self) -> list[str]:
        """What it printed, without dead letters."""
        return [
            word for line in self._text.splitlines() if "{" not in line for word in line.split()
        ]

    @property
    def logged(self) -> list[str]:
        """The events of its dead letters."""
        assembly = Assembly()
        letters = [assembly.add(found) for found in find_records(self._text)]
        return [event_id for letter in letters if letter for event_id in letter.batch.event_ids]


def run(script: str, endpoint: str, cwd: Path, **env: str) -> Ended:
    surroundings: Mapping[str, str] = {
        **os.environ,
        "DOOW_TRACK_API_KEY": KEY,
        "DOOW_TRACK_ENDPOINT": endpoint,
        "DOOW_TRACK_LICENSE_ID": "lic_1",
        **env,
    }
    with subprocess.Popen(
        [sys.executable, "-u", "-c", COMMON + dedent(script)],
        cwd=cwd,
        env=surroundings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        return Ended(process)


def delivered(ingest: Ingest) -> list[str]:
    return sorted(event["event_id"] for event in ingest.events())


# ── the end of a script ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("raise SystemExit(4)", 4),
        ("raise ValueError('theirs')", 1),
        ("threading.Thread(target=record, args=('in-a-thread',)).start()", 0),
    ],
)
def test_the_end_of_a_script(ingest: Ingest, tmp_path: Path, ending: str, status: int) -> None:
    """What was recorded outside any handler is delivered; the exit status is the script's own."""
    ended = run(f'record("stray")\n{ending}', ingest.url, tmp_path)
    assert (ended.status, ended.words) == (status, [])
    assert ("theirs" in ended.stderr, "doow" in ended.stderr) == (status == 1, False)
    expected = ["in-a-thread", "stray"] if "in-a-thread" in ending else ["stray"]
    assert delivered(ingest) == expected


def test_the_backlog_at_the_end_of_a_script(ingest: Ingest, tmp_path: Path) -> None:
    """What an earlier flush could not deliver gets one more attempt, however lately it failed."""
    ingest.fault(Fault(status=429, headers={"Retry-After": "30"}))
    script = """
        doow.configure(on_error=lambda error: None)
        doow.tracked(record)("kept")
        print(doow.flush().ok)
    """
    ended = run(script, ingest.url, tmp_path)
    assert (ended.status, ended.stderr, ended.words) == (0, "", ["True"])
    assert delivered(ingest) == ["kept"]
    assert len({post.batch_id for post in ingest.posts()}) == 1


def test_nothing_recorded_costs_nothing(ingest: Ingest, tmp_path: Path) -> None:
    """A process without events ends as quickly as ever, and sends nothing."""
    ended = run('record(); print("now")', ingest.url, tmp_path)
    assert (ended.status, ended.stderr) == (0, "")
    assert ended.took_s < TOLERANCE_S
    assert ingest.posts() == []


def test_every_tracker_is_flushed(ingest: Ingest, tmp_path: Path) -> None:
    """Trackers of one's own, too, within one limit for all of them."""
    script = """
        mine = [doow.Tracker() for _ in range(3)]
        for number, tracker in enumerate(mine):
            tracker.track("tokens", event_id=f"{number}")
        record("default")
    """
    assert run(script, ingest.url, tmp_path).status == 0
    assert delivered(ingest) == ["0", "1", "2", "default"]


def test_an_outage_at_the_end(tmp_path: Path) -> None:
    """A silent server delays the end by no more than the limit, and the events are in the log."""
    script = """
        mine = [doow.Tracker(on_error=lambda error: None) for _ in range(3)]
        for number, tracker in enumerate(mine):
            tracker.track("tokens", event_id=f"{number}")
        print("now")
    """
    with Server(silent) as server:
        ended = run(script, server.url, tmp_path)
    assert (ended.status, ended.stderr) == (0, "")
    assert EXIT_LIMIT_S - 0.1 <= ended.took_s <= EXIT_LIMIT_S + TOLERANCE_S
    assert sorted(ended.logged) == ["0", "1", "2"]


def test_where_no_thread_starts_at_the_end(ingest: Ingest, tmp_path: Path) -> None:
    """As with CPython 3.12.0 and 3.12.1: what there is no thread for is written down, at once."""
    script = """
        import atexit
        doow.configure(on_error=lambda error: None, warm_up=False)

        def refuse(thread):
            raise RuntimeError("can't create new thread at interpreter shutdown")

        record("stray")

        def begin():
            threading.Thread.start = refuse
            print("now")

        atexit.register(begin)  # Runs first.
    """
    ended = run(script, ingest.url, tmp_path)
    assert (ended.status, ended.stderr, ended.logged) == (0, "", ["stray"])
    assert ended.took_s < TOLERANCE_S


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


@pytest.mark.parametrize(
    "lock",
    [
        "tracker.engine.unattended._lock",
        "tracker.engine._flusher._making",
        "tracker.engine._flusher._departure(tracker.engine.unattended).lock",
        "tracker.engine.outbox.workers._lock",
        "tracker.engine.outbox.backlog._lock",
        "tracker.engine.outbox.breaker._lock",
        "threading._active_limbo_lock",
    ],
)
def test_a_signal_while_a_lock_is_held(tmp_path: Path, ingest: Ingest, lock: str) -> None:
    """Whatever the main thread was just doing, the end comes within the limit."""
    script = f"""
        tracker = doow.Tracker()
        tracker.track("tokens")
        tracker.engine.warm_up.join()
        with {lock}:
            print("now")
            os.kill(os.getpid(), signal.SIGTERM)
    """
    ended = run(script, ingest.url, tmp_path)
    assert (ended.status, ended.stderr) == (-signal.SIGTERM, "")
    assert ended.took_s <= SIGTERM_LIMIT_S + TOLERANCE_S


def test_an_outage_at_the_signal(tmp_path: Path) -> None:
    """A silent server takes no more time than platforms grant, and the events are in the log."""
    script = """
        doow.configure(on_error=lambda error: None)
        record("stray")
        doow.Tracker().engine.warm_up.join()
        print("now")
        terminate()
    """
    with Server(silent) as server:
        ended = run(script, server.url, tmp_path)
    assert (ended.status, ended.stderr, ended.logged) == (-signal.SIGTERM, "", ["stray"])
    assert ended.took_s <= SIGTERM_LIMIT_S + TOLERANCE_S


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
