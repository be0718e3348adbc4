"""The journal's file: when it is made, how large it gets, and when it goes."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any

from doow_serverless._keeping import journal as journal_module
from doow_serverless._keeping import journal_file
from doow_serverless._keeping.journal import Journal
from doow_serverless._sealing import seal
from tests.unit.keeping.journals import crash, events, files, sent, told

if TYPE_CHECKING:
    from pathlib import Path

    from doow_serverless._sealing import Batch


# ── the file ───────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_made_before_the_first_event(folder: Path) -> None:
    """Without events there is no folder, and looking for some makes none."""
    journal = Journal(folder)
    assert journal.recover() == []
    journal.note_settled("unknown")
    journal.forget(["unknown"])
    journal.close()
    assert not folder.exists()


def test_only_the_user_may_read_it(folder: Path) -> None:
    """The folder is 0700 and the file 0600."""
    journal = Journal(folder)
    journal.record_many(events(1))
    (path,) = files(folder)
    modes = [stat.S_IMODE(one.stat().st_mode) for one in (folder, path)]
    assert modes == [0o700, 0o600]


def test_the_file_is_emptied_when_all_is_settled(folder: Path) -> None:
    """An idle process leaves an empty file, and goes on with it."""
    journal = Journal(folder)
    for number in range(3):
        journal.record_many(events(2, number))
        (batch,) = seal(events(2, number))
        journal.note_sealed(batch)
        journal.note_settled(batch.id)
        assert [path.stat().st_size for path in files(folder)] == [0]
    journal.record_many(events(1))
    crash(journal)
    assert [one["event_id"] for one in sent(Journal(folder).recover())] == ["evt-0"]


def test_the_file_stays_small_under_steady_load(folder: Path) -> None:
    """Where something is outstanding at any time, what is settled is cleared out all the same."""
    journal = Journal(folder, max_bytes=2 * journal_file.COMPACT_FROM)
    largest = 0
    before: list[Batch] = []
    for number in range(60):
        journal.record_many(events(500, 500 * number))
        now = list(seal(events(500, 500 * number), compress=False))
        journal.note_sealed(now[0])
        for batch in before:
            journal.note_settled(batch.id)
        before = now
        largest = max(largest, files(folder)[0].stat().st_size)
    assert largest < 2 * journal_file.COMPACT_FROM
    assert len(files(folder)) == 1
    journal.record_many(events(1, 90_000))
    crash(journal)
    recovered = Journal(folder).recover()
    assert told(recovered[:-1]) == told(before)
    assert recovered[-1].event_ids == ("evt-90000",)


def test_a_file_that_was_compacted_is_still_locked(folder: Path, monkeypatch: Any) -> None:
    """Nobody takes the file of a living process while, or after, it is written anew."""
    monkeypatch.setattr(journal_module, "COMPACT_FROM", 1)
    monkeypatch.setattr(journal_file, "COMPACT_FROM", 1)
    journal = Journal(folder)
    journal.record_many(events(3))
    (batch,) = seal(events(1))
    journal.note_sealed(batch)
    inode = files(folder)[0].stat().st_ino
    journal.note_settled(batch.id)
    assert files(folder)[0].stat().st_ino != inode
    assert Journal(folder).recover() == []
    crash(journal)
    assert [one["event_id"] for one in sent(Journal(folder).recover())] == ["evt-1", "evt-2"]


def test_a_crash_while_compacting_leaves_no_second_copy(folder: Path) -> None:
    """A half-written copy is removed with the file that it was to replace."""
    dead = Journal(folder)
    dead.record_many(events(3))
    crash(dead)
    (path,) = files(folder)
    (folder / f"{path.name}.new").write_bytes(path.read_bytes())
    living = Journal(folder)
    assert [batch.event_ids for batch in living.recover()] == [("evt-0", "evt-1", "evt-2")]
    assert files(folder) == [path]


def test_closing_leaves_what_is_not_settled(folder: Path) -> None:
    """After an orderly end the next process sends the rest; a file without a rest is removed."""
    idle, busy = Journal(folder), Journal(folder)
    (batch,) = seal(events(1))
    idle.record_many(events(1))
    idle.note_sealed(batch)
    idle.note_settled(batch.id)
    busy.record_many(events(2))
    idle.close()
    busy.close()
    busy.record_many(events(9))
    assert len(files(folder)) == 1
    assert [batch.event_ids for batch in Journal(folder).recover()] == [("evt-0", "evt-1")]


def test_a_dead_process_with_nothing_left_is_cleared_away(folder: Path) -> None:
    """Empty files do not pile up."""
    for _ in range(3):
        dead = Journal(folder)
        (batch,) = seal(events(1))
        dead.record_many(events(1))
        dead.note_sealed(batch)
        dead.note_settled(batch.id)
        crash(dead)
    assert len(files(folder)) == 3
    assert Journal(folder).recover() == []
    assert files(folder) == []
