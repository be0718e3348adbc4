"""How much of a core there is: as Lambda says it, and as control groups do."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from doow_serverless._process import machine
from doow_serverless.local import _cgroups as cgroups

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("megabytes", "share"),
    [("128", 128 / 1_769), ("1769", 1.0), ("10240", 1.0), ("1", 0.01), ("many", 1.0), ("", 1.0)],
)
def test_by_the_size_of_a_function(
    monkeypatch: pytest.MonkeyPatch, megabytes: str, share: float
) -> None:
    """A core for 1,769 MB; more than one counts as one, and nonsense as nothing said."""
    monkeypatch.setattr(machine, "_CGROUPS", "/nowhere")
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", megabytes)
    assert machine.cpu_share() == pytest.approx(share)


@pytest.mark.parametrize(
    ("text", "share"), [("50000 100000", 0.5), ("max 100000", 1.0), ("200000 100000", 1.0)]
)
def test_by_a_control_group_of_version_2(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, share: float
) -> None:
    """Whose file says the quota and the period, or "max"."""
    (tmp_path / "cpu.max").write_text(text)
    monkeypatch.setattr(machine, "_CGROUPS", str(tmp_path))
    monkeypatch.setattr(machine, "_groups", lambda: [["0", "", "/of/the/host"]])
    monkeypatch.delenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", raising=False)
    assert machine.cpu_share() == share


@pytest.mark.skipif(not cgroups.can_be_had("cpu"), reason="root alone can make control groups")
def test_by_a_real_control_group() -> None:
    """A process that is in one of a seventh of a core finds that out."""
    group = cgroups.cpu_share(1 / 7)
    try:
        script = "input(); from doow_serverless._process import machine; print(machine.cpu_share())"
        with subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            group.add(process.pid)
            said, _ = process.communicate("\n", timeout=60)
    finally:
        group.close()
    assert float(said) == pytest.approx(1 / 7, abs=0.001)
