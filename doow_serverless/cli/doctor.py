"""The command ``doow-serverless doctor``: every check in a line, with what to do; or as JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.text import Text

from .console import console, safe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from .doctor_check import Check


def run(
    files: list[Path],
    *,
    send: bool,
    metric: str,
    license_id: str | None,
    as_json: bool,
) -> int:
    """Look at everything; 0 where all is well, else 1."""
    from .doctor_files import checks_of
    from .doctor_service import service_checks

    def checks() -> Iterator[Check]:
        yield from service_checks(metric, license_id, is_event_sent=send)
        for file in files:
            yield from checks_of(file)

    found = _printed(checks()) if not as_json else list(checks())
    is_ok = all(check.ok for check in found)
    if as_json:
        document = {"ok": is_ok, "checks": [asdict(check) for check in found]}
        sys.stdout.write(f"{json.dumps(document, indent=2)}\n")
    return 0 if is_ok else 1


def _printed(checks: Iterable[Check]) -> list[Check]:
    """The checks, each printed as soon as it is done, since some wait for the network."""
    screen = console()
    found = []
    for check in checks:
        found.append(check)
        line = Text()
        line.append("✓ " if check.ok else "✗ ", "green" if check.ok else "bold red")
        line.append(f"{safe(check.name)}: ", "bold")
        line.append(safe(check.detail))
        screen.print(line)
        if check.remedy:
            screen.print(Text(f"  → {safe(check.remedy)}", "yellow"))
    return found
