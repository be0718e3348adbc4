"""Cold start: importing and decorating, beside importing requests, each in a new process."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys

_MEASURE = """
import json, sys, time
{before}
known = set(sys.modules)
began = time.perf_counter()
{code}
took = time.perf_counter() - began
print(json.dumps([took * 1e3, len(set(sys.modules) - known)]))
"""
# What AWS's runtime client has imported before it imports a handler.
_RUNTIME = "import awslambdaric.bootstrap"
_DECORATE = """
import doow_serverless as doow
@doow.tracked
def handler(event, context): pass
"""


def measure(code: str, *, before: str = "", rounds: int = 15) -> tuple[float, int]:
    """Median milliseconds and new modules of ``code`` in a fresh interpreter."""
    program = _MEASURE.format(before=before, code=code)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    runs = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", program],
                check=True, capture_output=True, text=True, env=environment,
            ).stdout
        )
        for _ in range(rounds + 1)
    ][1:]  # fmt: skip  # the first run writes the bytecode
    return statistics.median(ms for ms, _ in runs), runs[0][1]


def rows() -> list[tuple[str, str, str]]:
    """The figures, as rows of a table."""
    cases = [
        ("import requests, bare interpreter", "import requests", ""),
        ("import doow_serverless and decorate, bare interpreter", _DECORATE, ""),
        ("import requests, in Lambda's runtime client", "import requests", _RUNTIME),
        ("import doow_serverless and decorate, in it", _DECORATE, _RUNTIME),
    ]
    found = [(name, *measure(code, before=before)) for name, code, before in cases]
    return [(name, f"{ms:.1f}", str(modules)) for name, ms, modules in found]
