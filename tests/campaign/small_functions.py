"""``python -m tests.campaign.small_functions``: cold starts and kills on a part of a core.

Under AWS's runtime client, whose init phase is not limited, as on Lambda; from the first event on
the process gets so much of one core, by a control group.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from doow_serverless.local import Fault, Ingest
from doow_serverless.local.lambda_runtime import LambdaRuntime
from tests.campaign.ledger import serial_of
from tests.integration.replaying import command, environ
from tests.network import KEY

if TYPE_CHECKING:
    from fractions import Fraction

FUNCTIONS = Path(__file__).with_name("small")
MEGABYTES_PER_CORE = 1_769
EVENTS = 10


@dataclass
class Starts:
    """What came of some cold starts: figures in milliseconds, and what is wrong."""

    init_ms: list[float] = field(default_factory=list)
    first_ms: list[float] = field(default_factory=list)
    tenth_ms: list[float] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)


def runtime_of(module: str, share: Fraction, ingest: Ingest, **options: object) -> LambdaRuntime:
    """A function on so much of a core, with the memory size that goes with it."""
    settings: dict[str, object] = {
        "memory_mb": max(128, round(MEGABYTES_PER_CORE * share)),
        "cpu_share": None if share == 1 else float(share),
        "timeout_s": 30.0,
        **options,
    }
    variables = {
        "DOOW_TRACK_API_KEY": KEY,
        "DOOW_TRACK_ENDPOINT": ingest.url,
        "DOOW_TRACK_LICENSE_ID": "lic_1",
    }
    return LambdaRuntime(f"{module}.handler", FUNCTIONS, env=variables, **settings)  # type: ignore[arg-type]


def cold_starts(share: Fraction, count: int, module: str = "metered") -> Starts:
    """So many processes of ten invocations, each of which must deliver its own events."""
    found = Starts()
    for number in range(count):
        with Ingest() as ingest, runtime_of(module, share, ingest) as runtime:
            for turn in range(1, 11):
                took_ms = runtime.invoke({}).duration_s * 1e3
                if turn == 1:
                    found.first_ms.append(took_ms)
                if module == "metered" and len(ingest.events()) != turn * EVENTS:
                    found.troubles.append(f"{number}: {len(ingest.events())} after {turn}")
            found.init_ms.append(runtime.init_s * 1e3)
            found.tenth_ms.append(took_ms)
            if runtime.stdout:
                found.troubles.append(f"{number}: {runtime.stdout[:300]}")
    return found


def kills(share: Fraction, count: int, *, timeout_s: float = 3.0) -> list[str]:
    """Kill so many functions that compute until their deadline: what is neither there nor logged.

    Every other ingest answers nothing, so that the log alone can have the events.
    """
    missing = []
    for number in range(count):
        with Ingest() as ingest:
            if number % 2:
                ingest.fault(Fault(hang=True, times=None))
            with runtime_of("metered", share, ingest, timeout_s=timeout_s) as runtime:
                error = runtime.invoke({"compute": True}).error
                log = runtime.stdout
            assert error is not None
            assert error["errorType"] == "Sandbox.Timedout"
            ingest.clear_faults()
            _replay(log, ingest)
            there = {int(serial_of(event)) for event in ingest.events()}
            if there != set(range(EVENTS)) or len(ingest.events()) != EVENTS:
                missing.append(f"{number}: {sorted(there)}; the log: {log[:500]}")
    return missing


def _replay(log: str, ingest: Ingest) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "log")
        path.write_text(log)
        subprocess.run(command(path), env=environ(ingest.url), capture_output=True, check=False)


def main() -> int:
    """Run it in full, and say what came of it; 1 if anything is wrong."""
    from fractions import Fraction

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=50)
    parser.add_argument("--kills", type=int, default=20)
    chosen = parser.parse_args()
    screen = Console(highlight=False, soft_wrap=True)
    table = Table("share of a core", "plain: first", "init", "first", "worst", "tenth", box=None)
    troubles = []
    for share in (Fraction(1), Fraction(1, 4), Fraction(1, 7), Fraction(1, 14)):
        plain = cold_starts(share, max(3, chosen.starts // 10), "plain")
        ours = cold_starts(share, chosen.starts)
        figures = [
            statistics.median(plain.first_ms),
            statistics.median(ours.init_ms),
            statistics.median(ours.first_ms),
            max(ours.first_ms),
            statistics.median(ours.tenth_ms),
        ]
        table.add_row(str(share), *(f"{figure:.1f} ms" for figure in figures))
        lost = kills(share, chosen.kills)
        troubles += [f"{share}: {one}" for one in (*ours.troubles, *lost)]
    screen.print(table)
    for trouble in troubles:
        screen.print(trouble, markup=False)
    return bool(troubles)


if __name__ == "__main__":
    sys.exit(main())
