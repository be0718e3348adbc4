"""Damaged and foreign files: what is whole is recovered, and nothing raises."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doow_serverless._keeping import journal as journal_module
from doow_serverless._keeping import journal_format
from doow_serverless._keeping.journal import Journal
from doow_serverless._sealing import seal, split
from tests.unit.keeping.journals import crash, events, files, sent, warnings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


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
