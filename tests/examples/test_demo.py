"""``make demo``: the examples of three platforms, and one table of what arrived."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtimes.azure.environments import pythons

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process")
def test_three_platforms_one_table(vercel_python: Path) -> None:
    """All that the examples record, each once, by platform."""
    pytest.importorskip("awslambdaric")
    done = subprocess.run(
        [sys.executable, EXAMPLES / "demo.py", "--vercel-python", vercel_python,
         "--azure-python", pythons()[-1]],
        capture_output=True,
        text=True,
        timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    table = done.stdout[done.stdout.index("What arrived") :]
    rows = [line.split()[:3] for line in table.splitlines() if "lic_" in line]
    assert rows == [
        [platform, metric, "lic_globex" if platform == "azure" else "lic_acme"]
        for platform in ("azure", "lambda", "vercel")
        for metric in ("api_calls", "tokens")
    ]
    assert "All 6 events arrived, each once." in done.stdout
