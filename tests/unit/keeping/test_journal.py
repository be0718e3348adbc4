"""The journal's files: what stands in them, what is taken out of them, and what is refused."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import stat
import threading
import time
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doow_serverless._keeping import journal as journal_module
from doow_serverless._keeping import journal_file, journal_format
from doow_serverless._keeping.journal import Journal
from doow_serverless._recording.event import Defaults
from doow_serverless._recording.rules import check_metadata
from doow_serverless._sealing import seal, split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from doow_serverless._recording.event import Event
    from doow_serverless._sealing import Batch

DEFAULTS = Defaults("lic_1", {"team": "search"}, [])
TOKENS = DEFAULTS.template("tokens", (None, None, None, "USAGE", None, None))
QUOTES = DEFAULTS.template('a "ß"\n', (None, "ü", {"x\n": 1.5}, "ADJUSTMENT", None, None))


def events(count: int, first: int = 0) -> list[Event]:
    return [
        (f"evt-{n}", 1_800_000_000.123 + n, TOKENS, n + 1, None)
        for n in range(first, first + count)
    ]


def crash(journal: Journal) -> None:
    """Let go of all files as a process does that is killed."""
    for file in journal._files():
        os.close(file.fd)
    journal._reset()


def sent(batches: Iterable[Batch]) -> list[Any]:
    """The events of batches, as the server reads them."""
    return list(chain.from_iterable(json.loads(batch.json())["events"] for batch in batches))


def told(batches: Iterable[Batch]) -> list[tuple[object, ...]]:
    """Batches as values that compare."""
    return [(b.id, b.event_ids, b.body, b.gzipped, b.sdk_version) for b in batches]


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.exists() else []


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


# ── what is recovered ──────────────────────────────────────────────────────────────────────────


def test_events_are_recovered_to_the_letter(folder: Path) -> None:
    """A recovered event is the JSON that the wire would have sent, whatever stands in it."""
    metadata = check_metadata({"deep": [{"ü\n": None}]}, [])
    recorded: list[Event] = [
        ("plain", 1_800_000_000.1239, TOKENS, 1, None),
        ("float", 1_800_000_000.0, TOKENS, 0.1, metadata),
        ('own "id", \n\\ß', "2026-11-22T11:33:00.123456789+05:30", QUOTES, "-1.50", None),
        (
            "many",
            1.5,
            DEFAULTS.template_of_many((None, None, None, "USAGE", None, None)),
            '{"a":1}',
            "null",
        ),
    ]
    dead = Journal(folder)
    for event in recorded:
        dead.record_many([event])
    crash(dead)
    recovered = Journal(folder).recover()
    texts = [batch.json().partition('"events":')[2] for batch in recovered]
    assert texts == [batch.json().partition('"events":')[2] for batch in seal(recorded)]


def test_a_sealed_batch_is_recovered_byte_for_byte(folder: Path) -> None:
    """Id, bytes, compression and version are those that may have been sent."""
    dead = Journal(folder)
    recorded = events(700)
    dead.record_many(recorded)
    batches = [*seal(recorded[:600]), *seal(recorded[600:], compress=False)]
    for batch in batches:
        batch.sdk_version = "0.0.7"
        dead.note_sealed(batch)
    crash(dead)
    assert told(Journal(folder).recover()) == told(batches)


def test_only_what_is_outstanding_is_recovered(folder: Path) -> None:
    """Settled batches and forgotten events stay away; events of sealed batches come once."""
    dead = Journal(folder)
    dead.record_many(events(9))
    first, second = (*seal(events(3)), *seal(events(3, 3)))
    dead.note_sealed(first)
    dead.note_sealed(second)
    dead.note_settled(first.id)
    dead.forget(["evt-6", "evt-8"])
    crash(dead)
    recovered = Journal(folder).recover()
    assert told(recovered[:1]) == told([second])
    assert [batch.event_ids for batch in recovered[1:]] == [("evt-7",)]


def test_a_batch_is_noted_whose_events_are_not(folder: Path) -> None:
    """Events that no one recorded here are safe once they are sealed."""
    dead = Journal(folder)
    (batch,) = seal(events(2))
    dead.note_sealed(batch)
    crash(dead)
    assert told(Journal(folder).recover()) == told([batch])


def test_halves_come_in_the_stead_of_their_batch(folder: Path) -> None:
    """After a split the halves are outstanding, each for itself, and the whole is not."""
    dead = Journal(folder)
    dead.record_many(events(4))
    (batch,) = seal(events(4))
    halves = split(batch)
    dead.note_sealed(batch)
    dead.note_split(batch, halves)
    dead.note_settled(halves[0].id)
    crash(dead)
    assert told(Journal(folder).recover()) == told(halves[1:])


def test_events_with_one_id_are_counted(folder: Path) -> None:
    """Two events that the user gave one id are two: sealing one leaves the other."""
    dead = Journal(folder)
    twins: list[Event] = [("same", 1.0, TOKENS, 1, None), ("same", 2.0, TOKENS, 2, None)]
    dead.record_many(twins)
    (first,) = seal(twins[:1])
    dead.note_sealed(first)
    dead.note_settled(first.id)
    crash(dead)
    recovered = sent(Journal(folder).recover())
    assert [one["measurements"][0]["quantity"] for one in recovered] == [2]


def test_recovered_events_keep_to_the_bounds(folder: Path) -> None:
    """Events are sealed as the tracker is configured to."""
    dead = Journal(folder)
    dead.record_many(events(60))
    crash(dead)
    recovered = Journal(folder).recover(max_bytes=4_096, compress=False)
    assert len(recovered) > 2
    assert all(len(batch.body) <= 4_096 and not batch.gzipped for batch in recovered)
    assert [one["event_id"] for one in sent(recovered)] == [one[0] for one in events(60)]


def test_recovered_ids_derive_from_what_is_recovered(folder: Path, tmp_path: Path) -> None:
    """Whoever recovers the same file gives the same ids; the same events elsewhere, others."""
    dead = Journal(folder)
    dead.record_many(events(3))
    crash(dead)
    (path,) = files(folder)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / path.name).write_bytes(path.read_bytes())
    (copy / path.name.replace(".", "0.")).write_bytes(path.read_bytes())
    here = Journal(folder).recover()
    there = Journal(copy).recover()
    assert len(there) == 2
    assert [batch.id for batch in here] == [b.id for b in there if b.id == here[0].id]


# ── once ───────────────────────────────────────────────────────────────────────────────────────


def test_a_living_process_keeps_its_events(folder: Path) -> None:
    """What is locked is not taken, by another process or by another journal of this one."""
    living = Journal(folder)
    living.record_many(events(3))
    assert Journal(folder).recover() == []
    assert living.recover() == []


def test_what_was_recovered_is_not_recovered_again(folder: Path) -> None:
    """While the process lives that took it over, no other does, and it does not twice."""
    dead = Journal(folder)
    dead.record_many(events(3))
    crash(dead)
    living = Journal(folder)
    assert len(living.recover()) == 1
    assert living.recover() == []
    assert Journal(folder).recover() == []


def test_a_crash_of_who_recovered_loses_nothing(folder: Path) -> None:
    """What the second process settled stays settled, the rest comes with the same bytes."""
    dead = Journal(folder)
    dead.record_many(events(1_200))
    crash(dead)
    second = Journal(folder)
    batches = second.recover()
    assert [len(batch) for batch in batches] == [500, 500, 200]
    second.note_settled(batches[1].id)
    crash(second)
    assert told(Journal(folder).recover()) == told([batches[0], batches[2]])


def test_recovered_files_go_once_they_are_settled(folder: Path) -> None:
    """The last answer removes the file of the dead process."""
    dead = Journal(folder)
    dead.record_many(events(600))
    crash(dead)
    living = Journal(folder)
    batches = living.recover()
    assert len(files(folder)) == 1
    for batch in batches:
        living.note_settled(batch.id)
    assert files(folder) == []
    assert living._taken == []


def test_audiences_are_apart(folder: Path) -> None:
    """What was recorded for one key is never sent with another."""
    dead = Journal(folder, audience="one")
    dead.record_many(events(3))
    crash(dead)
    assert Journal(folder, audience="two").recover() == []
    assert len(Journal(folder, audience="one").recover()) == 1


def test_two_journals_recover_at_once(folder: Path) -> None:
    """However many threads and journals recover, each event comes to one."""
    for number in range(20):
        dead = Journal(folder)
        dead.record_many(events(5, 5 * number))
        crash(dead)
    found: list[Batch] = []
    journals = [Journal(folder) for _ in range(8)]
    threads = [threading.Thread(target=lambda j=j: found.extend(j.recover())) for j in journals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one["event_id"] for one in sent(found)) == sorted(e[0] for e in events(100))


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


# ── damage ─────────────────────────────────────────────────────────────────────────────────────


def written(folder: Path) -> tuple[bytes, list[tuple[int, set[str]]]]:
    """A file with every kind of record, and which events are outstanding from which byte on."""
    journal = Journal(folder)
    first, second = (*seal(events(2)), *seal(events(2, 2)))
    steps: list[Callable[[], None]] = [
        lambda: journal.record_many(events(1)),
        lambda: journal.record_many(events(5, 1)),
        lambda: journal.note_sealed(first),
        lambda: journal.note_sealed(second),
        lambda: journal.note_split(second, split(second)),
        lambda: journal.note_settled(first.id),
        lambda: journal.forget(["evt-4"]),
        lambda: journal.note_settled(split(second)[0].id),
        lambda: journal.record_many(events(1, 9)),
    ]
    due = [
        {0}, {0, 1, 2, 3, 4, 5}, {0, 1, 2, 3, 4, 5}, {0, 1, 2, 3, 4, 5}, {0, 1, 2, 3, 4, 5},
        {2, 3, 4, 5}, {2, 3, 5}, {3, 5}, {3, 5, 9},
    ]  # fmt: skip
    outstanding = []
    for step, numbers in zip(steps, due, strict=True):
        step()
        (path,) = files(folder)
        outstanding.append((path.stat().st_size, {f"evt-{number}" for number in numbers}))
    crash(journal)
    return path.read_bytes(), outstanding


def placed(folder: Path, data: bytes) -> Path:
    """A file that a dead process seems to have left."""
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{Journal(folder)._prefix}0-0.journal"
    path.write_bytes(data)
    return path


def test_a_file_torn_anywhere_gives_all_whole_records(folder: Path, tmp_path: Path) -> None:
    """Cut at any byte, the file gives every event of the lines before, each in one batch."""
    data, outstanding = written(folder)
    for cut in range(len(data) + 1):
        torn = tmp_path / str(cut)
        placed(torn, data[:cut])
        journal = Journal(torn)
        recovered = journal.recover()
        ids = {one["event_id"] for one in sent(recovered)}
        before = [due for size, due in outstanding if size <= cut]
        after = [due for size, due in outstanding if size >= cut]
        # Between two steps a part of the next may have been written.
        least = (before[-1] if before else set()) & (after[0] if after else set(ids))
        most = (before[-1] if before else set()) | (after[0] if after else set())
        assert least <= ids <= most
        if cut in dict(outstanding):
            assert ids == dict(outstanding)[cut]
        # A batch may come beside its halves, if the cut fell among them; each has one id.
        assert len({batch.id for batch in recovered}) == len(recovered)
        journal.close()


def test_a_torn_record_swallows_no_other(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What stands before and after a torn piece is recovered, and one warning tells of the loss."""
    dead = Journal(folder)
    dead.record_many(events(3))
    assert dead._own is not None
    os.write(
        dead._own.fd, journal_format.line_of(b"E", journal_format.event_text(events(1, 3)[0]))[:-5]
    )
    dead.record_many(events(3, 4))
    crash(dead)
    recovered = Journal(folder).recover()
    assert [one["event_id"] for one in sent(recovered)] == [f"evt-{n}" for n in (0, 1, 2, 4, 5, 6)]
    assert warnings(caplog) == ["1 torn records of a crash are lost"]


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damage_never_raises(data: st.DataObject, tmp_path_factory: Any) -> None:
    """Whatever a file holds, recovery survives it, and invents no event."""
    base = tmp_path_factory.mktemp("damage")
    intact, _ = written(base / "intact")
    damaged = bytearray(intact)
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        piece = data.draw(st.binary(max_size=20))
        damaged[at : at + data.draw(st.integers(0, 40))] = piece
    placed(base / "damaged", bytes(damaged))
    journal = Journal(base / "damaged")
    ids = {one["event_id"] for one in sent(journal.recover())}
    assert ids <= {f"evt-{number}" for number in range(10)}
    journal.close()


@pytest.mark.parametrize(
    "body",
    [b"E", b"E1", b'E"id"', b'E"id",', b"B", b"B[]", b"B[1]", b"B[[],[]]", b'B["b",["a"],"1"]',
     b'B["b",3,"1",true]YQ', b"F", b"F3", b"F[[]]", b"S\xff", b"Z", b""],
)  # fmt: skip
def test_records_without_sense_are_survived(
    folder: Path, caplog: pytest.LogCaptureFixture, body: bytes
) -> None:
    """A record whose checksum is right, and nothing else, costs one warning and no exception."""
    whole = journal_format.line_of(b"E", journal_format.event_text(events(1)[0]))
    placed(folder, journal_format.FIRST_LINE + whole + journal_format.line_of(body[:1], body[1:]))
    Journal(folder).recover()
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize(
    "data",
    [b"something else entirely", b"doow-journal 2\n", b"doow-journal 11\n", b"\n", b"\0" * 99],
)
def test_foreign_contents_are_left_alone(
    folder: Path, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    """A file with another first line is neither read nor removed; one warning names it."""
    path = placed(folder, data)
    living = Journal(folder)
    assert living.recover() == []
    assert living.recover() == []
    assert path.read_bytes() == data
    assert warnings(caplog) == [f"left {path} alone: it is no journal of this version"]


def test_foreign_names_are_none_of_ours(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Other files in the folder are not even opened."""
    folder.mkdir()
    for name in ("README", "doow-x.journal", f"{Journal(folder)._prefix}zz.journal", ".journal"):
        (folder / name).write_bytes(b"doow-journal 1")
    assert Journal(folder).recover() == []
    assert len(files(folder)) == 4
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (os.symlink, os.strerror(errno.ELOOP)),
        (os.link, "it was not made by this user"),
        (lambda _, path: os.mkfifo(path), "it was not made by this user"),
        (lambda _, path: os.mkdir(path), os.strerror(errno.EISDIR)),
    ],
)
def test_links_and_pipes_are_not_followed(
    folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    make: Callable[[Path, Path], None],
    why: str,
) -> None:
    """What is no plain file of one name is left alone, without waiting for it."""
    dead = Journal(tmp_path / "other")
    dead.record_many(events(3))
    crash(dead)
    (target,) = files(tmp_path / "other")
    folder.mkdir()
    path = folder / f"{Journal(folder)._prefix}1.journal"
    make(target, path)
    assert Journal(folder).recover() == []
    assert files(folder) == [path]
    assert target.exists()
    assert warnings(caplog) == [f"left {path} alone: {why}"]


def test_files_of_other_users_are_left_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is sent that another user wrote."""
    dead = Journal(folder)
    dead.record_many(events(1))
    crash(dead)
    monkeypatch.setattr(journal_module, "check_folder", lambda _: None)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert Journal(folder).recover() == []
    assert [line.partition(": ")[2] for line in warnings(caplog)] == [
        "it was not made by this user"
    ]


# ── trouble ────────────────────────────────────────────────────────────────────────────────────


def use(journal: Journal) -> None:
    """Everything that a tracker does with a journal, twice."""
    for number in (0, 10):
        journal.recover()
        journal.record_many([events(1, number)[0]])
        journal.record_many(events(3, number + 1))
        batch, other = (*seal(events(2, number)), *seal(events(2, number + 2)))
        journal.note_sealed(batch)
        journal.note_sealed(other)
        journal.note_split(other, split(other))
        journal.note_settled(batch.id)
        for half in split(other):
            journal.note_settled(half.id)
        journal.forget(["evt-0"])


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


# ── the folder ─────────────────────────────────────────────────────────────────────────────────


def test_a_path_below_a_file_is_survived(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where no folder can be, nothing is recorded."""
    (tmp_path / "file").write_bytes(b"")
    use(Journal(tmp_path / "file" / "journal"))
    assert len(warnings(caplog)) == 1


def test_a_folder_that_others_may_write_to_is_refused(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Others could take the events away, or put some in."""
    folder.mkdir()
    folder.chmod(0o777)
    use(Journal(folder))
    assert files(folder) == []
    assert len(warnings(caplog)) == 1


def test_a_folder_of_another_user_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In a shared temporary folder anyone may have made it."""
    folder.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    use(Journal(folder))
    assert files(folder) == []
    assert len(warnings(caplog)) == 1


def test_a_link_in_place_of_the_folder_is_refused(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In a shared temporary folder it may lead anywhere."""
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    use(Journal(folder))
    assert files(tmp_path / "elsewhere") == []
    assert len(warnings(caplog)) == 1


def test_the_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the platform's temporary one, apart for each user."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    journal = Journal()
    journal.record_many(events(1))
    assert [path.name for path in files(tmp_path)] == [f"doow-serverless-{os.getuid()}"]


def test_no_temporary_folder_is_survived(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Some sandboxes have none that can be written to."""

    def fail() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", fail)
    use(Journal())
    assert len(warnings(caplog)) == 1


def test_without_file_locks_there_is_no_journal(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Windows has none that the system releases as dependably."""
    monkeypatch.setattr(journal_module, "CAN_LOCK", False)
    use(Journal(folder))
    assert not folder.exists()
    assert len(warnings(caplog)) == 1


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
