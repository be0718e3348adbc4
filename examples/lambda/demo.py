"""Runs both functions under AWS's runtime client, through an outage, and shows what arrived.

    python examples/lambda/demo.py

Needs doow-serverless[aws,local] and awslambdaric. Nothing leaves this machine.
"""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from doow_serverless.cli.arrived import arrived
from doow_serverless.local import Fault, Ingest
from doow_serverless.local.lambda_runtime import LambdaRuntime, LambdaRuntimeError

if TYPE_CHECKING:
    from doow_serverless.local.lambda_runtime import Invocation

HERE = Path(__file__).parent
KEY = "dk_" + "0" * 64  # well formed; the local ingest accepts any such key
BUDGET_MS = 500
PATIENCE_S = 8.0  # how long the backlog may take to drain
FLUSH = re.compile(r"flushed Outcome\(.*elapsed_s=([\d.]+)")  # DOOW_TRACK_DEBUG logs it
LINE = "{:>2}  {:<8} {:<9} {:<13} {:>8} {:>9} {:>9} {:>8}"


@dataclass(frozen=True)
class Function:
    """One of the examples."""

    name: str
    service: str
    event_file: str
    events: int  # that one invocation with this event records

    def runtime(self, endpoint: str) -> LambdaRuntime:
        env = {
            "DOOW_TRACK_API_KEY": KEY,
            "DOOW_TRACK_ENDPOINT": endpoint,
            "DOOW_TRACK_ATTRIBUTION": json.dumps({"service": self.service}),
            "DOOW_TRACK_BUDGET": str(BUDGET_MS),
            "DOOW_TRACK_DEBUG": "true",
            "POWERTOOLS_SERVICE_NAME": self.service,
        }
        return LambdaRuntime("app.handler", HERE / self.name, env=env, timeout_s=10.0)

    def event(self) -> Any:
        return json.loads((HERE / self.name / "events" / self.event_file).read_text())


API = Function("api", "summaries", "summary.json", events=2)
# Three documents, of which one is empty and fails: it does not count until it succeeds.
CONSUMER = Function("consumer", "documents", "documents.json", events=4)


class Story:
    """Invokes the functions one by one, and prints a line for each."""

    def __init__(
        self, console: Console, ingest: Ingest, runtimes: dict[str, LambdaRuntime]
    ) -> None:
        self._console = console
        self._ingest = ingest
        self._runtimes = runtimes
        self._invocations = 0
        self.recorded = 0

    def tell(self) -> None:
        """Normal service, an outage, and the recovery."""
        head = ("", "Doow", "function", "caller got", "took ms", "flush ms", "recorded", "arrived")
        self._console.print(LINE.format(*head), style="bold")
        for function in (API, API, CONSUMER, API):
            self._invoke(function, "answers")
        self._ingest.fault(Fault(hang=True, times=None))
        for function in (API, API):
            self._invoke(function, "hangs")
        self._ingest.clear_faults()
        # What was kept leaves with the traffic; during the pauses the process is frozen.
        give_up = time.monotonic() + PATIENCE_S
        while len(self._ingest.events()) < self.recorded and time.monotonic() < give_up:
            self._invoke(API, "is back")
            time.sleep(0.5)

    def _invoke(self, function: Function, doow: str) -> None:
        runtime = self._runtimes[function.name]
        written = len(runtime.stdout)
        invocation = runtime.invoke(function.event())
        self._invocations += 1
        self.recorded += function.events
        flushes = FLUSH.findall(runtime.stdout[written:])
        line = LINE.format(
            self._invocations,
            doow,
            function.name,
            outcome(invocation),
            f"{invocation.duration_s * 1000:.1f}",
            f"{float(flushes[-1]) * 1000:.1f}" if flushes else "-",
            self.recorded,
            len(self._ingest.events()),
        )
        self._console.print(line, style="red" if doow == "hangs" else "", markup=False)


def outcome(invocation: Invocation) -> str:
    """The answer of the function in a word or two."""
    if invocation.error is not None:
        return str(invocation.error["errorType"])
    answer = json.loads(invocation.payload)
    if "batchItemFailures" in answer:
        return f"{len(answer['batchItemFailures'])} of 3 failed"
    return f"HTTP {answer['statusCode']}"


def verdict(recorded: int, events: list[dict[str, Any]]) -> str:
    """What is wrong with what arrived, if anything is."""
    distinct = len({event["event_id"] for event in events})
    if distinct < recorded:
        return f"{recorded - distinct} of {recorded} events did not arrive."
    if len(events) > recorded:
        return f"{len(events) - recorded} more events arrived than were recorded."
    return ""


def main() -> int:
    """Exit status 1 says that something did not arrive."""
    console = Console(highlight=False)
    console.print("examples/lambda under awslambdaric, frozen between invocations", style="bold")
    console.print(f"Doow is a local ingest here; a flush may take {BUDGET_MS} ms at most.\n")
    try:
        with (
            Ingest() as ingest,
            API.runtime(ingest.url) as api,
            CONSUMER.runtime(ingest.url) as consumer,
        ):
            story = Story(console, ingest, {API.name: api, CONSUMER.name: consumer})
            story.tell()
            events = ingest.events()
    except LambdaRuntimeError as error:
        console.print(str(error), style="bold red", markup=False)
        return 1
    console.print("\nWhat arrived", style="bold")
    console.print(arrived(events, by="service"))
    problem = verdict(story.recorded, events)
    if problem:
        console.print(f"\n{problem}", style="bold red")
        return 1
    console.print(f"\nAll {story.recorded} events arrived, each once.", style="bold green")
    return 0


if __name__ == "__main__":
    sys.exit(main())
