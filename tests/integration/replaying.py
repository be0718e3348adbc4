"""``doow-serverless replay`` as a process, over dead letters of batches."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

from doow_serverless._frames.format import frames_of
from doow_serverless._sealing import LINE_LIMIT
from doow_serverless.errors import ErrorKind
from tests.network import KEY

if TYPE_CHECKING:
    from doow_serverless._sealing import Batch


WHY = ErrorKind.NETWORK_ERROR


AT = 1_795_347_180.123
"""2026-11-22T11:33:00.123Z"""


def lines_of(*batches: Batch, at: float = AT, limit: int = LINE_LIMIT) -> list[str]:
    return [line for one in batches for line in frames_of(one, WHY, at, limit=limit)]


def text_of(*batches: Batch) -> str:
    return "".join(f"{line}\n" for line in lines_of(*batches))


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "doow_serverless", "replay", *map(str, arguments)]


def environ(endpoint: str, **variables: str) -> dict[str, str]:
    variables = {"DOOW_TRACK_API_KEY": KEY, "DOOW_TRACK_ENDPOINT": endpoint, **variables}
    return {**os.environ, **variables}


def replay(
    endpoint: str, *arguments: object, stdin: str | bytes = b"", **variables: str
) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of the command."""
    done = subprocess.run(
        command(*arguments),
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        env=environ(endpoint, **variables),
        capture_output=True,
        timeout=30,
        check=False,
    )
    stderr = done.stderr.decode()
    assert "Traceback" not in stderr
    assert KEY not in stderr + done.stdout.decode()
    return done.returncode, done.stdout.decode(), stderr


def summary(stdout: str) -> dict[str, tuple[str, str]]:
    """The rows of the table: what, how many batches, how many events."""
    rows = re.findall(r"^([a-z ]+?) {2,}([\d,?]+) +([\d,?]+) *$", stdout, re.MULTILINE)
    return {name: (batches, events) for name, batches, events in rows}
