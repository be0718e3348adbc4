"""What is kept of batches that are not delivered: in memory, a log, a directory or a journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where journals are; it is not there yet."""
    return tmp_path / "journals"
