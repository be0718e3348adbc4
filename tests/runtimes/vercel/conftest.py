"""A runtime of each of the functions with which the Vercel runtime is tried."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless.local.vercel.runtime import VercelRuntime
from tests.runtimes.vercel.sample_functions import ACTIONS, FUNCTIONS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def start(tmp_path: Path, vercel_python: Path) -> Callable[..., VercelRuntime]:
    """A runtime of one of the functions above, or of other source code."""

    def start(function: str, mode: str = "ipc", **options: Any) -> VercelRuntime:
        (tmp_path / "api").mkdir(exist_ok=True)
        source = ACTIONS + dedent(FUNCTIONS[function]) if function in FUNCTIONS else function
        (tmp_path / "api" / "index.py").write_text(source)
        return VercelRuntime(
            "api/index.py",
            tmp_path,
            mode=mode,  # type: ignore[arg-type]
            python=options.pop("python", vercel_python),
            **options,
        )

    return start
