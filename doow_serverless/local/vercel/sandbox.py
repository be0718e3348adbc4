"""The process of a Vercel function, whichever way it is driven."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from doow_serverless.local._sandbox import Sandbox
from doow_serverless.local.vercel.invocation import VercelRuntimeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from doow_serverless.local._output import Output
    from doow_serverless.local.vercel.http1 import Connection
    from doow_serverless.local.vercel.invocation import Response, Turn

INIT_LIMIT_S = 20.0  # for the import of the user's module, on a busy machine


@dataclass(frozen=True)
class Deployment:
    """What runs, and how.

    Attributes:
        python: An interpreter that can import ``vercel_runtime``.
        env: The environment of the function.
        directory: The root of the deployment.
        freezes: Whether the process is stopped between invocations.
    """

    python: str
    env: Mapping[str, str]
    directory: Path
    freezes: bool


class VercelSandbox(Sandbox):
    """One process that stands still when it has nothing to do."""

    def __init__(self, output: Output, deployment: Deployment) -> None:
        super().__init__(output)
        self._deployment = deployment

    def start(self) -> None:
        """Start the process, and wait until it can serve."""
        raise NotImplementedError

    def run(self, turn: Turn, on_connection: Connection | None) -> Response:
        """Send a request, and wait until its invocation is over and the process stopped."""
        raise NotImplementedError

    def boot(
        self, script: str, *arguments: str, env: Mapping[str, str], pass_fds: Sequence[int] = ()
    ) -> None:
        """Launch the interpreter with a script in place of the build's trampoline."""
        # With -u, as with AWS's runtime, nothing is held back. With -c the directory of the process
        # is first on the path, as that of the trampoline is.
        deployment = self._deployment
        started_ms = str(int(time.monotonic() * 1000))
        self.launch(
            [deployment.python, "-u", "-c", script, *arguments],
            {**deployment.env, **env, "__VC_PY_BOOT_START_MS": started_ms},
            deployment.directory,
            pass_fds=pass_fds,
        )

    def check_alive(self) -> None:
        """Refuse to ask a process that is gone."""
        if not self.alive:
            raise self.failure("there is nobody to answer")

    def failure(self, what: str) -> VercelRuntimeError:
        """The error, with the state of the process and its last words."""
        return VercelRuntimeError(f"{what} ({self.state}); {self._output.last_words()}")
