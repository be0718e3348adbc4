"""AWS's own Runtime Interface Emulator around a function: its Runtime and Extensions APIs, in Go.

The binary comes with the SAM CLI, which ``make`` installs in an environment of its own. It freezes
nothing, but says when the runtime was done and when its extensions were.
"""

from __future__ import annotations

import json
import os
import platform
import re
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

ROOT = Path(__file__).parents[3]
START_LIMIT_S = 20.0
_PATH = "2015-03-31/functions/function/invocations"
_DONE = re.compile(r"INVOKE RTDONE\(.*duration: ([\d.]+)ms\)")
_REPORT = re.compile(r"^REPORT .*\tDuration: ([\d.]+) ms", re.MULTILINE)


def binary() -> Path:
    """Where it is; skips the test where it is not."""
    machine = "arm64" if platform.machine() in {"arm64", "aarch64"} else "x86_64"
    found = ROOT.glob(f".venv-sam/lib/python*/site-packages/samcli/local/rapid/*-rie-{machine}")
    path = next(found, None)
    if path is None or sys.platform != "linux":
        pytest.skip("needs AWS's emulator, which comes with the SAM CLI: make .venv-sam/.deps")
    return path


@dataclass(frozen=True)
class Timing:
    """What the emulator says of an invocation, in seconds.

    Attributes:
        response_s: Until the runtime had sent its response and asked for the next event.
        whole_s: Until its extensions had, too.
    """

    response_s: float
    whole_s: float


class Emulator:
    """Runs a handler within its ``with`` block.

    Args:
        handler: As in the function's configuration.
        directory: What would be ``/var/task``.
        env: The function's variables.
        python: An interpreter that can import ``awslambdaric``, from ``env``'s PYTHONPATH, too.
        timeout_s: The function's timeout, in whole seconds.
    """

    def __init__(
        self,
        handler: str,
        directory: Path,
        *,
        env: Mapping[str, str],
        python: str | Path = sys.executable,
        timeout_s: int = 10,
    ) -> None:
        self._directory = directory
        self._port, api_port = _free_ports()
        self._command = [
            str(binary()), "--log-level", "info",
            "--runtime-interface-emulator-address", f"127.0.0.1:{self._port}",
            "--runtime-api-address", f"127.0.0.1:{api_port}",
            str(python), "-m", "awslambdaric", handler,
        ]  # fmt: skip
        self._env = {
            "AWS_LAMBDA_FUNCTION_NAME": "doow-example",
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(timeout_s),
            "AWS_REGION": "us-east-1",
            "LAMBDA_TASK_ROOT": str(directory),
            "PATH": os.environ["PATH"],
            **env,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed at the end of the block

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            cwd=self._directory,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        ends_at = time.monotonic() + START_LIMIT_S
        while time.monotonic() < ends_at:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                    return self
            time.sleep(0.02)
        self.__exit__()
        pytest.fail(f"the emulator does not listen\n{self.log}")

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()  # It ends the function, too.
            self._process.wait(20)
        self._log.close()

    def invoke(self, event: object, *, is_alive: bool = True) -> Any:
        """The answer to ``event``, once all extensions are done; None of a process that is dead."""
        url = f"http://127.0.0.1:{self._port}/{_PATH}"
        response = requests.post(url, data=json.dumps(event), timeout=60)
        if not is_alive:
            assert "Runtime.ExitError" in response.text
            return None
        assert response.status_code == 200, (response.text, self.log)
        try:
            return response.json()
        except ValueError:  # What it says of a function that timed out.
            return response.text

    def function_pid(self) -> int:
        """The process of the function."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        pids = [
            pid
            for task in children.parents[1].iterdir()
            for pid in (task / "children").read_text().split()
        ]
        assert len(pids) == 1, pids
        return int(pids[0])

    @property
    def log(self) -> str:
        """All that the emulator and the function have written."""
        # By a descriptor of our own position, since the processes write through the same file.
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    def timings(self) -> list[Timing]:
        """Of all invocations that have ended, in order."""
        log = self.log
        pairs = zip(_DONE.findall(log), _REPORT.findall(log), strict=True)
        return [Timing(float(done) / 1e3, float(whole) / 1e3) for done, whole in pairs]


def _free_ports() -> tuple[int, int]:
    here = ("127.0.0.1", 0)
    with socket.create_server(here) as one, socket.create_server(here) as other:
        return one.getsockname()[1], other.getsockname()[1]
