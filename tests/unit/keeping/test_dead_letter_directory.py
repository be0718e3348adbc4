"""Dead letters in a directory: a file for each batch, whole or not at all."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from doow_serverless._keeping.dead_letters import DeadLetters
from doow_serverless.errors import ErrorKind
from tests.batches import batch, contents, read_back

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


# ── a directory ─────────────────────────────────────────────────────────────────────────────────


def test_a_directory_gets_a_file_for_each_batch(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Made if needed; for the owner alone; nothing else is left there, and the log stays clean."""
    directory = tmp_path / "dead" / "letters"
    letters = DeadLetters(str(directory))
    batches = [batch(60, noise=900), batch(batch_id="../../x y")]
    for one in batches * 2:
        letters.write(one, ErrorKind.TIMEOUT)
    letters.wait()

    files = sorted(directory.iterdir(), key=lambda file: -file.stat().st_size)
    assert [read_back(file.read_text()) for file in files] == [[contents(one)] for one in batches]
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600, 0o600]
    assert files[0].name == f"doow-{batches[0].id}.jsonl"
    assert list(tmp_path.rglob("*.tmp")) == []
    assert capfd.readouterr().out == ""


def test_a_directory_that_cannot_be_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """One warning; the log has the batches, since nothing may be lost silently."""
    (tmp_path / "file").touch()
    letters = DeadLetters(str(tmp_path / "file"))
    batches = [batch(), batch()]
    for one in batches:
        letters.write(one, ErrorKind.TIMEOUT)
    letters.wait()

    assert read_back(capfd.readouterr().out) == list(map(contents, batches))
    (message,) = caplog.messages
    assert message.startswith("dead letters cannot be written to the directory ")


def test_a_half_written_file_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A file is whole, or it is not there."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    letters = DeadLetters(str(tmp_path))
    letters.write(batch(), ErrorKind.TIMEOUT)
    letters.wait()

    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().out
