"""A Vercel function that freezes: Vercel's own Python bootstrap, driven in both of its modes.

The bootstrap is the package ``vercel-runtime``, which every build pins and which needs Python 3.12,
hence a process and an interpreter of its own. This module stands in for what is around it: the
trampoline and the environment of the build, the proxy that sends requests, the socket over which
the process says that an invocation is over, and the freeze that follows at once.
"""

from __future__ import annotations

import time
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from doow_serverless.local._runtime import Runtime
from doow_serverless.local.vercel.entry_point import entry_point
from doow_serverless.local.vercel.http1 import Connection
from doow_serverless.local.vercel.invocation import (
    REGION,
    Response,
    Turn,
    VercelRuntimeError,
    proxied,
)
from doow_serverless.local.vercel.ipc_mode import IpcSandbox
from doow_serverless.local.vercel.lambda_mode import LambdaModeSandbox
from doow_serverless.local.vercel.sandbox import Deployment, VercelSandbox

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterable, Mapping

__all__ = ["Connection", "Response", "VercelRuntime", "VercelRuntimeError"]


class VercelRuntime(Runtime[VercelSandbox]):
    """Runs the function in ``entrypoint_file`` as Vercel does, and stops it when it is idle.

    In mode "ipc" requests go to the process over HTTP, as many at once as are made, and its message
    "end" ends the invocation. In mode "lambda" ``vc_handler`` is called with one request after
    another, and its return is the end. Either stops the process with SIGSTOP in that moment, unless
    other requests are on their way; the next request continues it.

    Only an answer that is not whole by then lets the process go on for a moment, after a pause,
    until the rest has come or the connection is closed: of an invocation that raised, the bootstrap
    reports the end before its server answers with 500, or hangs up.

    Args:
        entrypoint_file: Below ``directory``: ``"api/index.py"``.
        directory: What would be the root of the deployment.
        mode: How the process is driven.
        python: An interpreter that can import ``vercel_runtime``.
        env: The function's own variables. Nothing is inherited from this process.
        freeze: False lets the process run between invocations.
        variable: The name of the entry point, instead of the one that the build would find.
        max_duration_s: What becomes of the deadline of a request; it is not enforced.
    """

    _error_type = VercelRuntimeError

    def __init__(
        self,
        entrypoint_file: str,
        directory: str | Path,
        *,
        mode: Literal["ipc", "lambda"],
        python: str | Path,
        env: Mapping[str, str] | None = None,
        freeze: bool = True,
        variable: str | None = None,
        max_duration_s: float = 60.0,
    ) -> None:
        super().__init__()
        directory = Path(directory).resolve()
        variable = variable or entry_point((directory / entrypoint_file).read_text())
        if variable is None:
            raise VercelRuntimeError(f"the build finds no entry point in {entrypoint_file}")
        self._max_duration_s = max_duration_s
        self._ids = count(1)
        self._kind = IpcSandbox if mode == "ipc" else LambdaModeSandbox
        self._deployment = Deployment(
            python=str(python),
            env={**_environment(entrypoint_file, directory, variable), **(env or {})},
            directory=directory,
            freezes=freeze,
        )

    def _start(self) -> None:
        self._sandbox = self._kind(self._output, self._deployment)
        self._sandbox.start()

    def request(
        self,
        method: str = "GET",
        path: str = "/",
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        *,
        on_connection: Connection | None = None,
        timeout_s: float = 30.0,
    ) -> Response:
        """Send a request and wait until its invocation is over, and the process stopped.

        Args:
            method: Of the request.
            path: With the query.
            headers: Win over those that Vercel's proxy would send.
            body: Is sent as it is.
            on_connection: One of :meth:`connect`, for this and maybe further requests.
            timeout_s: After so long the process is killed.

        Raises:
            VercelRuntimeError: The process is gone, or the invocation is not over in time.
        """
        request_id = next(self._ids)
        pairs = proxied(headers, body, request_id, self._max_duration_s)
        turn = Turn(request_id, method, path, pairs, body, time.monotonic() + timeout_s)
        return self._current().run(turn, on_connection)

    def connect(self) -> Connection:
        """A connection that several requests share, one after another (mode "ipc")."""
        sandbox = self._current()
        if not isinstance(sandbox, IpcSandbox):
            raise VercelRuntimeError("vc_handler opens a connection for each request itself")
        return Connection(sandbox.port)

    @property
    def stopped(self) -> bool:
        """Whether SIGSTOP holds the process; the operating system has confirmed it."""
        return self._current().stopped

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, such as the SIGTERM with which Vercel announces the end."""
        self._current().send_signal(number)


def _environment(entrypoint_file: str, directory: Path, variable: str) -> dict[str, str]:
    """What the trampoline of the build and the platform set."""
    module = entrypoint_file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return {
        "LANG": "en_US.UTF-8",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TZ": ":UTC",
        "VERCEL": "1",
        "VERCEL_DEPLOYMENT_ID": "dpl_local",
        "VERCEL_ENV": "production",
        "VERCEL_REGION": REGION,
        "VERCEL_URL": "local.vercel.app",
        "__VC_HANDLER_ENTRYPOINT": entrypoint_file,
        "__VC_HANDLER_ENTRYPOINT_ABS": str(directory / entrypoint_file),
        "__VC_HANDLER_MODULE_NAME": module,
        "__VC_HANDLER_VARIABLE_NAME": variable,
        "__VC_HANDLER_VENDOR_DIR": "_vendor",
    }
