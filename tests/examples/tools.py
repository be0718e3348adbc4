"""The tools of the platforms, as from a developer's shell."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

# Taken at once: in the tests themselves nothing of proxies and certificates is left, and tools
# download.
_SURROUNDINGS = {
    name: value
    for name, value in os.environ.items()
    if name != "PYTHONPATH" and not name.startswith("DOOW_")
} | {"SAM_CLI_TELEMETRY": "0", "AWS_DEFAULT_REGION": "us-east-1"}


def run(command: list[str | Path], directory: Path, **variables: str) -> str:
    """Run a tool that must succeed; what it printed."""
    result = subprocess.run(
        command,
        cwd=directory,
        env={**_SURROUNDINGS, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
    return result.stdout


def npm_tool(package: str, place: Path) -> Path:
    """The command of an npm package such as ``vercel@60.0.0``, installed once below ``place``."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"{package} comes from npm, which is not on this machine")
    stamp = place / ".version"
    if not stamp.exists() or stamp.read_text() != package:
        place.mkdir(parents=True, exist_ok=True)
        run([npm, "install", "--no-audit", "--no-fund", f"--prefix={place}", package], place)
        stamp.write_text(package)
    return place / "node_modules" / ".bin" / package.partition("@")[0]
