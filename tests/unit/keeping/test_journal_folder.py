"""The folder of journals: whose it must be, and what is done without one."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from doow_serverless._keeping import journal as journal_module
from doow_serverless._keeping.journal import Journal
from tests.unit.keeping.journals import events, files, use, warnings

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


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
