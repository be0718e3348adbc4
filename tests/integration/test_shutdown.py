"""The end of real processes: what waits is delivered, and nobody else's end is changed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from doow_serverless._process.shutdown import EXIT_LIMIT_S
from doow_serverless.local import Fault, Ingest
from tests.integration.endings import TOLERANCE_S, delivered, run
from tests.network import Server, silent
from tests.timing import within

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")


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
    within(ended.took_s, TOLERANCE_S)
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
    within(ended.took_s, EXIT_LIMIT_S + TOLERANCE_S, at_least_s=EXIT_LIMIT_S - 0.1)
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
    within(ended.took_s, TOLERANCE_S)
