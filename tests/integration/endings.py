"""Scripts that end, in one way or another, and what has arrived by then."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from textwrap import dedent
from typing import TYPE_CHECKING

from doow_serverless._frames.assembly import Assembly
from tests.batches import find_records
from tests.network import KEY

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from doow_serverless.local import Ingest


COMMON = """
import os, signal, sys, threading, time
import doow_serverless as doow
from doow_serverless._process import shutdown

def terminate(limit_s=10.0):
    # On a busy machine an answer may take longer than is granted.
    shutdown.SIGTERM_LIMIT_S = limit_s
    os.kill(os.getpid(), signal.SIGTERM)
    # What is interrupted goes on, until the events have left and the signal comes again.
    while shutdown._ending is not None:
        time.sleep(0.001)

def record(*events):
    for event in events:
        doow.track("tokens", event_id=event)
"""


TOLERANCE_S = 0.5
"""For the threads of a busy machine, and writing down what is left."""


class Ended:
    """What a process that has ended left behind.

    Attributes:
        status: As its parent sees it; negative for a signal.
        stderr: What it complained about.
        took_s: Seconds from its word "now", or else its start, to its end.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        began = time.monotonic()
        lines = []
        for line in process.stdout:
            if line == "now\n":
                began = time.monotonic()
            else:
                lines.append(line)
        self._text = "".join(lines)
        _, self.stderr = process.communicate(timeout=60)
        self.took_s = time.monotonic() - began
        self.status = process.returncode

    @property
    def words(self) -> list[str]:
        """What it printed, without dead letters."""
        return [
            word for line in self._text.splitlines() if "{" not in line for word in line.split()
        ]

    @property
    def logged(self) -> list[str]:
        """The events of its dead letters."""
        assembly = Assembly()
        letters = [assembly.add(found) for found in find_records(self._text)]
        return [event_id for letter in letters if letter for event_id in letter.batch.event_ids]


def run(script: str, endpoint: str, cwd: Path, **env: str) -> Ended:
    surroundings: Mapping[str, str] = {
        **os.environ,
        "DOOW_TRACK_API_KEY": KEY,
        "DOOW_TRACK_ENDPOINT": endpoint,
        "DOOW_TRACK_LICENSE_ID": "lic_1",
        **env,
    }
    with subprocess.Popen(
        [sys.executable, "-u", "-c", COMMON + dedent(script)],
        cwd=cwd,
        env=surroundings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        return Ended(process)


def delivered(ingest: Ingest) -> list[str]:
    return sorted(event["event_id"] for event in ingest.events())
