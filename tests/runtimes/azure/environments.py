"""The interpreters of the environments in which Azure's worker libraries are installed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _pytest.mark.structures import ParameterSet

_ROOT = Path(__file__).parents[3]


def pythons() -> list[Path]:
    """The interpreters of the workers' environments, the oldest first.

    Where there are none, one that is missing: then the tests fail that need it, and say why.
    """
    found = _ROOT.glob(".venv-azure-3.*/bin/python")
    by_version = sorted(found, key=lambda path: int(path.parts[-3].rpartition(".")[2]))
    return by_version or [_ROOT / ".venv-azure-3.x" / "bin" / "python"]


def each(pythons: list[Path]) -> list[ParameterSet]:
    """Parameters of a test for these interpreters; all but the newest for ``make test-all``."""
    *older, newest = pythons
    return [
        *(pytest.param(python, marks=pytest.mark.extensive) for python in older),
        pytest.param(newest),
    ]
