"""Journals that are written, compacted and recovered at the same time."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from doow_serverless._keeping import journal as journal_module
from doow_serverless._keeping import journal_file
from doow_serverless._keeping.journal import Journal
from doow_serverless._sealing import seal
from tests.unit.keeping.journals import crash, events, files, sent, warnings

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


# ── races ──────────────────────────────────────────────────────────────────────────────────────


def test_a_new_file_may_be_taken_before_it_is_locked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who finds it in that moment removes it; then its owner makes another."""
    flock, opened = fcntl.flock, []

    def removing(fd: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        opened.append(files(folder)[0])
        Journal(folder).recover()
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", removing)
    journal = Journal(folder)
    journal.record_many(events(1))
    assert len(files(folder)) == 1
    assert files(folder) != opened
    crash(journal)
    assert len(Journal(folder).recover()) == 1


def test_a_new_file_may_be_locked_by_who_looks_at_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who looks at it holds its lock for that moment; then its owner makes another."""
    flock, held = fcntl.flock, []

    def looking(fd: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        held.append(os.open(files(folder)[0], os.O_RDWR))
        flock(held[0], how)
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", looking)
    journal = Journal(folder)
    journal.record_many(events(1))
    assert [path.stat().st_size > 0 for path in files(folder)].count(True) == 1
    os.close(held[0])
    assert Journal(folder).recover() == []
    crash(journal)
    assert len(Journal(folder).recover()) == 1


def test_a_file_replaced_while_it_is_opened_is_not_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What was opened is not what stands at the path any more: its owner has written it anew."""
    monkeypatch.setattr(journal_module, "COMPACT_FROM", 1)
    monkeypatch.setattr(journal_file, "COMPACT_FROM", 1)
    living, other = Journal(folder), Journal(folder)
    living.record_many(events(3))
    (batch,) = seal(events(1))
    living.note_sealed(batch)
    flock = fcntl.flock

    def replacing(fd: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        living.note_settled(batch.id)
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", replacing)
    assert other.recover() == []
    assert len(files(folder)) == 1
    assert warnings(caplog) == []


def test_while_a_file_is_compacted_there_is_one_at_any_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash at whatever call finds all that is outstanding at the path, once."""
    monkeypatch.setattr(journal_module, "COMPACT_FROM", 1)
    monkeypatch.setattr(journal_file, "COMPACT_FROM", 1)
    journal = Journal(folder)
    journal.record_many(events(3))
    (batch,) = seal(events(1))
    journal.note_sealed(batch)
    (path,) = files(folder)
    seen: list[bool] = []

    def watch(name: str) -> None:
        real = getattr(os, name)

        def watched(*args: Any, **named: Any) -> Any:
            result = real(*args, **named)
            seen.append(path.exists())
            return result

        monkeypatch.setattr(os, name, watched)

    for name in ("open", "write", "replace", "rename", "unlink", "close"):
        watch(name)
    journal.note_settled(batch.id)
    assert len(seen) > 3
    assert all(seen)


def test_many_threads_record_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They make one file, no record is torn by another, and each is counted."""
    create = journal_file.create

    def slowly(path: str) -> journal_file.JournalFile:
        time.sleep(0.05)
        return create(path)

    monkeypatch.setattr(journal_module, "create", slowly)
    journal = Journal(folder)

    def record(first: int) -> None:
        for event in events(200, first):
            journal.record_many([event])

    threads = [threading.Thread(target=record, args=(200 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(files(folder)) == 1
    for batch in seal(events(1_599)):
        journal.note_sealed(batch)
        journal.note_settled(batch.id)
    crash(journal)
    assert [one["event_id"] for one in sent(Journal(folder).recover())] == ["evt-1599"]
