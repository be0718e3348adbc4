"""Cold starts on a part of a core, beside others: ``python -m benchmarks.shares``.

In AWS's runtime client; the init phase is not limited, as on Lambda, and then as elsewhere limited
like all the rest. sentry-sdk and datadog-lambda are measured where they are installed.
"""

from __future__ import annotations

import statistics
import sys
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.table import Table

from doow_serverless.local import _cgroups as cgroups
from doow_serverless.local.lambda_runtime import LambdaRuntime

from .server import answering
from .warm import KEY

FUNCTIONS = Path(__file__).with_name("functions")
SHARES = (Fraction(1), Fraction(1, 4), Fraction(1, 7), Fraction(1, 14))
MODULES = {
    "plain": None,
    "bare": None,
    "ours": None,
    "with_sentry": "sentry_sdk",
    "with_datadog": "datadog_lambda",
}
"""The functions, and what each needs that may not be here."""
ROUNDS = 6


def measure(module: str, share: Fraction, url: str, *, is_init_limited: bool) -> list[float]:
    """Milliseconds of one cold start: the init phase, the first invocation, the tenth."""
    limit = None if share == 1 else float(share)
    runtime = LambdaRuntime(
        f"{module}.handler",
        FUNCTIONS,
        env={
            "BENCHMARK_URL": url,
            "DOOW_TRACK_API_KEY": KEY,
            "DOOW_TRACK_ENDPOINT": url,
            "DOOW_TRACK_LICENSE_ID": "lic_acme",
        },
        memory_mb=max(128, round(1_769 * share)),
        timeout_s=60.0,
        cpu_share=limit,
        init_cpu_share=limit if is_init_limited else None,
    )
    with runtime:
        times = [runtime.invoke({}).duration_s * 1e3 for _ in range(10)]
        return [runtime.init_s * 1e3, times[0], times[-1]]


def table(*, is_init_limited: bool) -> Table:
    """All functions on all shares, interleaved, so that each meets the same machine."""
    made = Table(
        title=f"init phase {'limited as well' if is_init_limited else 'at full speed'}, ms"
    )
    for column in ("share", "function", "init", "first", "init + first", "tenth"):
        made.add_column(column, justify="right")
    there = [name for name, needs in MODULES.items() if needs is None or find_spec(needs)]
    with answering(0.0) as url:
        for share in SHARES:
            found: dict[str, list[list[float]]] = {name: [] for name in there}
            for _ in range(ROUNDS + 1):
                for name in there:
                    found[name].append(measure(name, share, url, is_init_limited=is_init_limited))
            for name, runs in found.items():
                # The first start writes the bytecode.
                init, first, tenth = (
                    statistics.median(each) for each in zip(*runs[1:], strict=True)
                )
                figures = (init, first, init + first, tenth)
                made.add_row(str(share), name, *(f"{figure:.1f}" for figure in figures))
    return made


def main() -> int:
    """Measure and print; 1 where that cannot be done."""
    console = Console()
    if not cgroups.can_be_had("cpu"):
        console.print("control groups of version 1 cannot be made here: nothing to measure with")
        return 1
    for is_init_limited in (False, True):
        console.print(table(is_init_limited=is_init_limited))
    return 0


if __name__ == "__main__":
    sys.exit(main())
