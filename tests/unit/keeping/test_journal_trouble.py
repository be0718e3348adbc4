"""Full disks, broken logs, too many files: the journal says so once, and keeps what it had."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING

import pytest

from doow_serverless._keeping import journal as journal_module
from doow_serverless._keeping.journal import Journal
from doow_serverless._sealing import seal
from tests.unit.keeping.journals import crash, events, files, sent, told, use, warnings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


# ── trouble ────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def failing(name: str, error: int) -> Iterator[None]:
    """Have a system call fail."""

    def fail(*args: object, **named: object) -> None:
        raise OSError(error, os.strerror(error))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os if hasattr(os, name) else fcntl, name, fail)
        yield


@pytest.mark.parametrize(
    ("name", "error"),
    [("write", errno.ENOSPC), ("write", errno.EDQUOT), ("open", errno.EROFS),
     ("open", errno.EMFILE), ("makedirs", errno.EACCES), ("flock", errno.ENOLCK),
     ("lstat", errno.EIO), ("ftruncate", errno.EIO)],
)  # fmt: skip
def test_trouble_is_said_once(
    folder: Path, caplog: pytest.LogCaptureFixture, name: str, error: int
) -> None:
    """Whatever fails, no call raises, and one warning gives the system's reason."""
    journal = Journal(folder)
    with failing(name, error):
        use(journal)
    use(journal)
    journal.close()
    why = os.strerror(error)
    assert warnings(caplog) == [f"the journal is off, and a crash may lose events: {why}"]


def test_recording_warns_only_afterwards(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A log handler that records events must not meet locks that are held."""
    journal = Journal(folder)
    with failing("open", errno.EROFS):
        journal.record_many(events(1))
        assert warnings(caplog) == []
        journal.note_settled("any")
    assert len(warnings(caplog)) == 1


def test_a_log_handler_that_raises_is_survived(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No call raises for what an application's logging does."""

    def fail(message: str) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr(journal_module, "warn", fail)
    with failing("open", errno.EROFS):
        use(Journal(folder))


def test_what_was_written_before_the_disk_was_full_is_recovered(folder: Path) -> None:
    """A write that fails, whole or in part, costs its own events only."""
    journal = Journal(folder)
    journal.record_many(events(3))
    write = os.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: write(fd, data[: len(data) // 2]))
        journal.record_many(events(3, 3))
    journal.record_many(events(3, 6))
    crash(journal)
    recovered = Journal(folder).recover()
    assert [one["event_id"] for one in sent(recovered)] == ["evt-0", "evt-1", "evt-2"]


def test_a_batch_that_cannot_be_noted_is_not_sent_twice(folder: Path) -> None:
    """Its events are about to go out under an id that no other process would know."""
    journal = Journal(folder)
    journal.record_many(events(3))
    (batch,) = seal(events(3))
    with failing("write", errno.ENOSPC):
        journal.note_sealed(batch)
    crash(journal)
    assert Journal(folder).recover() == []
    assert files(folder) == []


def test_after_a_full_disk_batches_are_still_noted(folder: Path) -> None:
    """Events that were noted in time stay safe until their batch is settled."""
    journal = Journal(folder)
    journal.record_many(events(2))
    with failing("write", errno.ENOSPC):
        journal.record_many(events(1, 2))
    (batch,) = seal(events(3))
    journal.note_sealed(batch)
    crash(journal)
    assert told(Journal(folder).recover()) == told([batch])


def test_a_full_disk_at_recovery_leaves_the_file_for_later(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be sealed on disk is not handed out, and not lost."""
    dead = Journal(folder)
    dead.record_many(events(3))
    crash(dead)
    with failing("write", errno.ENOSPC):
        assert Journal(folder).recover() == []
    assert len(warnings(caplog)) == 1
    assert [batch.event_ids for batch in Journal(folder).recover()] == [("evt-0", "evt-1", "evt-2")]


def test_a_full_journal_takes_events_again_once_there_is_room(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond its bound the file takes no events, but still the batches of those it has."""
    journal = Journal(folder, max_bytes=2_000)
    for event in events(50):
        journal.record_many([event])
    size = files(folder)[0].stat().st_size
    assert size <= 2_000
    journal.note_sealed(*seal(events(50, 100)))
    assert files(folder)[0].stat().st_size == size
    (batch,) = seal(events(50))
    journal.note_sealed(batch)
    assert len(warnings(caplog)) == 1
    journal.note_settled(batch.id)
    journal.record_many(events(1, 70))
    crash(journal)
    assert [one["event_id"] for one in sent(Journal(folder).recover())] == ["evt-70"]


def test_recovery_is_bounded(folder: Path) -> None:
    """What would be too much at once waits for the next call, oldest first, and is not lost."""
    for number in range(6):
        dead = Journal(folder)
        dead.record_many(events(5, 5 * number))
        crash(dead)
    living = Journal(folder, max_bytes=200)
    rounds = [[one["event_id"] for one in sent(living.recover())] for _ in range(7)]
    assert [len(one) for one in rounds] == [5, 5, 5, 5, 5, 5, 0]
    assert list(chain.from_iterable(rounds)) == [one[0] for one in events(30)]


def test_files_held_open_are_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash loop does not use up the file descriptors."""
    monkeypatch.setattr(journal_module, "MAX_TAKEN", 2)
    for number in range(3):
        dead = Journal(folder)
        dead.record_many(events(1, number))
        crash(dead)
    living = Journal(folder)
    found = living.recover()
    assert len(found) == 2
    assert living.recover() == []
    living.note_settled(found[0].id)
    assert len(living.recover()) == 1
