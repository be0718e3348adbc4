"""Three platforms, one ledger: each example under its platform's own runtime, and what arrived.

    make demo             # PAGE=1 keeps the page of the local ingest open
    python examples/demo.py [--page] [--vercel-python PATH] [--azure-python PATH]

Nothing leaves this machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from contextlib import suppress
from pathlib import Path

from doow_serverless.cli.arrived import arrived
from doow_serverless.cli.console import console as new_console
from doow_serverless.cli.invoke import show
from doow_serverless.cli.invoking import NotInvokable, Target
from doow_serverless.local import Ingest
from doow_serverless.local.lambda_runtime import LambdaRuntimeError

HERE = Path(__file__).parent
EXPECTED = 6
"""Events: each example counts the call, and its tokens."""


def targets(vercel_python: str, azure_python: str) -> dict[str, Target]:
    """The example of each platform, with the event beside it."""

    def event(path: str) -> object:
        return json.loads((HERE / path).read_text())

    return {
        "lambda": Target(
            str(HERE / "lambda" / "api" / "app:handler"), event("lambda/api/events/summary.json")
        ),
        "vercel": Target(
            str(HERE / "vercel" / "api" / "index.py"),
            event("vercel/events/translation.json"),
            python=vercel_python,
        ),
        "azure": Target(
            str(HERE / "azure"),
            event("azure/events/summary.json"),
            function="summarise",
            python=azure_python,
        ),
    }


def main() -> int:
    """Exit status 1 says that something did not run, or did not arrive."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", action="store_true", help="keep the page open until Ctrl-C")
    parser.add_argument("--vercel-python", default=sys.executable)
    parser.add_argument("--azure-python", default=sys.executable)
    options = parser.parse_args()
    console = new_console()
    missing = 0
    with Ingest() as ingest:
        if console.is_terminal:
            console.print(f"what arrives, live: {ingest.url}\n")
        for name, target in targets(options.vercel_python, options.azure_python).items():
            env = {
                "DOOW_TRACK_ATTRIBUTION": json.dumps({"platform": name}),
                "POWERTOOLS_SERVICE_NAME": "summaries",
            }
            try:
                done = target.invoke(ingest.url, env)
            except (NotInvokable, LambdaRuntimeError) as problem:
                console.print(f"{name}: {problem}\n", style="yellow")
                missing += 1
                continue
            show(console, done)
            console.print()
            missing += not done.ok
        events = ingest.events()
        console.print("What arrived", style="bold")
        console.print(arrived(events, by="platform"))
        if options.page:
            console.print(f"\nThe page stays open at {ingest.url} until Ctrl-C.")
            with suppress(KeyboardInterrupt):
                threading.Event().wait()
    if missing or len(events) != EXPECTED:
        console.print(f"\n{len(events)} of {EXPECTED} events arrived.", style="bold red")
        return 1
    console.print(f"\nAll {EXPECTED} events arrived, each once.", style="bold green")
    return 0


if __name__ == "__main__":
    sys.exit(main())
