"""The interpreter in which Vercel's runtime is installed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def vercel_python() -> Path:
    """An interpreter with ``vercel-runtime`` and our wheel; `make test` installs both."""
    python = ROOT / ".venv-vercel" / "bin" / "python"
    if python.exists():
        return python
    if _newer_python():
        pytest.fail(f"{python.parents[1]} is missing: run `make test`", pytrace=False)
    pytest.skip("Vercel's runtime needs CPython 3.12 or newer, and there is none on this machine")


def _newer_python() -> bool:
    """Whether an environment for Vercel could be made, from what the Makefile looks for."""
    return (
        sys.version_info >= (3, 12)
        or any(shutil.which(f"python3.{minor}") for minor in range(12, 20))
        or any((Path.home() / ".pyenv" / "versions").glob("3.1[2-9]*/bin/python3"))
    )
