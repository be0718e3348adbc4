"""``doow-serverless check``: what Vercel's build makes of a file, before it is deployed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from doow_serverless.cli.main import commands

if TYPE_CHECKING:
    from pathlib import Path

SERVED = "import doow_serverless as doow\napp = doow.tracked(application())\n"
UNSEEN = "handler = tracked(Base)\n"


@pytest.mark.parametrize(
    ("source", "status", "said"),
    [
        (SERVED, 0, "Vercel serves app"),
        (UNSEEN, 1, "line 1: `handler = …` is no entry point, so Vercel makes no function"),
        ("class handler(Base:", 1, "line 1: this is no Python"),
    ],
)
def test_a_file(source: str, status: int, said: str, tmp_path: Path) -> None:
    """Its entry point, or each mistake with its line and the remedy, and a status for scripts."""
    file = tmp_path / "index.py"
    file.write_text(source)
    result = CliRunner().invoke(commands, ["check", str(file)])
    assert (result.exit_code, result.output.startswith(f"{file}: {said}")) == (status, True)


def test_one_bad_file_of_several(tmp_path: Path) -> None:
    """Every file has its line, and the status is that of the worst."""
    for name, source in (("a.py", SERVED), ("b.py", UNSEEN), ("c.py", SERVED)):
        (tmp_path / name).write_text(source)
    files = sorted(str(each) for each in tmp_path.iterdir())
    result = CliRunner().invoke(commands, ["check", *files])
    assert [line.partition(":")[0] for line in result.output.splitlines()] == files
    assert result.exit_code == 1


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read(content: bytes | None, tmp_path: Path) -> None:
    """One line that names it, and status 2."""
    file = tmp_path / "index.py"
    if content is not None:
        file.write_bytes(content)
    result = CliRunner().invoke(commands, ["check", str(file)])
    assert (result.exit_code, f"cannot read {file}" in result.output) == (2, True)
