"""Web servers in processes of their own."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.network import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]


@contextmanager
def process(command: str, directory: Path, env: Mapping[str, str]) -> Iterator[int]:
    """Run a server until the end of the block.

    Args:
        command: Arguments of Python, with ``{port}`` in them.
        directory: Where it runs; its output goes to a file there.
        env: Variables beside those of this process.

    Yields:
        The port, once the server accepts connections.

    Raises:
        RuntimeError: It has ended, or accepts none for 30 seconds. The message is its output.
    """
    # Bound, and never listening: nobody else gets the port, but for a server that asks for it.
    with socket.socket() as reserved, open(directory / "output", "wb") as output:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        running = subprocess.Popen(
            [sys.executable, *shlex.split(command.format(port=port))],
            cwd=directory,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **env},
            start_new_session=True,  # Some have workers, which must not outlive the test.
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_for(port, running, directory / "output")
            yield port
        finally:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            running.wait(20)


def _wait_for(port: int, running: subprocess.Popen[bytes], output: Path) -> None:
    for _ in range(1500):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        if running.poll() is not None:
            break
        time.sleep(0.02)
    raise RuntimeError(f"the server does not accept connections: {output.read_text()}")


@contextmanager
def serving(
    command: str, source: str, endpoint: str, directory: Path, *, is_metered: bool
) -> Iterator[int]:
    """The port of a server in a process of its own, in a new folder.

    Args:
        command: How to run it with Python, with ``{port}``.
        source: The module ``served``, whose application it serves.
        endpoint: Where that sends events.
        directory: The folder.
        is_metered: False to disable metering.
    """
    directory.mkdir()
    (directory / "served.py").write_text(f"import sys\nsys.path.append({str(ROOT)!r})\n{source}")
    environment = {
        "DOOW_TRACK_API_KEY": KEY,
        "DOOW_TRACK_ENDPOINT": endpoint,
        "DOOW_TRACK_LICENSE_ID": "lic_1",
        "DOOW_TRACK_BUDGET": "20000",
        **({} if is_metered else {"DOOW_TRACK_DISABLED": "1"}),
    }
    with process(command, directory, environment) as port:
        yield port
