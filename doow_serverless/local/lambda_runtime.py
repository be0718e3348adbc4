"""A Lambda runtime that freezes: the sandbox around ``awslambdaric``, AWS's own client.

It stands in for what AWS runs outside the function's process: the Runtime API, the environment,
the deadline, and the freeze between invocations, which is what breaks code that sends in the
background. The process is the real thing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doow_serverless.local._lambda_invocation import Invocation, Turn
from doow_serverless.local._lambda_sandbox import LambdaSandbox, Limits
from doow_serverless.local._runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Invocation", "LambdaRuntime", "LambdaRuntimeError"]

INIT_LIMIT_S = 10.0  # what Lambda grants the import of the handler's module
REGION = "us-east-1"
_PROBE = (
    "import importlib.util as u, sys\n"
    "print(u.find_spec('awslambdaric') is not None, '%d.%d' % sys.version_info[:2])"
)


class LambdaRuntimeError(RuntimeError):
    """The process could not be brought to the point where it asks for an invocation."""


class LambdaRuntime(Runtime[LambdaSandbox]):
    """Runs a handler as Lambda does: one process, one invocation at a time, frozen in between.

    The process is stopped as soon as it and its internal extensions ask for their next event, and
    continued when there is one: all its threads at once where control groups can be had, by SIGSTOP
    and SIGCONT elsewhere. A
    process that exits, or that misses its deadline and is killed, is replaced at the next
    :meth:`invoke`.

    Args:
        handler: As in the function's configuration: ``"app.handler"``.
        directory: What would be ``/var/task``.
        env: The function's own variables; they win over those that Lambda sets. Nothing is
            inherited from this process.
        python: An interpreter that can import ``awslambdaric`` (from ``env``'s PYTHONPATH, too).
        function_name: Becomes part of the ARN and the environment.
        timeout_s: The function's timeout, in seconds.
        memory_mb: Is announced to the function.
        freeze: False keeps the process running between invocations.
        cpu_share: How much of one core it gets from its first event on: Lambda gives a core for
            1,769 MB, so 1/14 at 128 MB, and does not limit the init phase.
        init_cpu_share: How much of one core it gets until then. Default: all there is.
        limit_memory: Whether it is killed when it takes more than ``memory_mb``.
        snap_start: Whether it is initialised as for SnapStart: hooks run before a snapshot and
            after a restore, between which the process stands still. A function is called in
            between, as hours pass there.

    The limits need control groups of version 1, which root can make on Linux.

    What it does not do: limit payload size, provide AWS credentials, restore several processes from
    one snapshot, start external extensions, or tell internal ones of more than invocations.
    """

    _error_type = LambdaRuntimeError

    def __init__(
        self,
        handler: str,
        directory: str | Path,
        *,
        env: Mapping[str, str] | None = None,
        python: str | Path = sys.executable,
        function_name: str = "doow-local",
        timeout_s: float = 3.0,
        memory_mb: int = 128,
        freeze: bool = True,
        cpu_share: float | None = None,
        init_cpu_share: float | None = None,
        limit_memory: bool = False,
        snap_start: Callable[[], None] | bool = False,
    ) -> None:
        super().__init__()
        self._handler = handler
        self._directory = Path(directory).resolve()
        self._python = str(python)
        self._timeout_s = timeout_s
        self._freezes = freeze
        self._limits = Limits(memory_mb if limit_memory else None, cpu_share, init_cpu_share)
        self._arn = f"arn:aws:lambda:{REGION}:123456789012:function:{function_name}"
        self._env = {
            **_sandbox_environment(handler, self._directory, function_name, memory_mb),
            **(env or {}),
        }
        self._restored = snap_start if callable(snap_start) else None
        if snap_start:
            self._env["AWS_LAMBDA_INITIALIZATION_TYPE"] = "snap-start"
        self._one_at_a_time = threading.Lock()

    def _start(self) -> None:
        version = self._python_version()
        self._env.setdefault("AWS_EXECUTION_ENV", f"AWS_Lambda_python{version}")
        self._ready_sandbox()

    def invoke(self, event: object, *, timeout_s: float | None = None) -> Invocation:
        """Deliver ``event`` and wait for its answer, and until the process is frozen again.

        Args:
            event: Anything that JSON can express.
            timeout_s: The timeout of this one invocation, in seconds.

        Raises:
            LambdaRuntimeError: The process died during its init, or never asked for an event.
        """
        turn = Turn(
            event=json.dumps(event).encode(),
            timeout_s=self._timeout_s if timeout_s is None else timeout_s,
            arn=self._arn,
        )
        with self._one_at_a_time:
            sandbox = self._ready_sandbox()
            if sandbox.init_error is None:
                sandbox.run(turn)
            else:
                turn.fail(sandbox.init_error)
        return turn.outcome()

    @property
    def init_error(self) -> dict[str, Any] | None:
        """The error document of a module that could not be imported."""
        return self._sandbox.init_error if self._sandbox is not None else None

    @property
    def init_s(self) -> float:
        """From the start of the newest process until it asked for its first event, in seconds."""
        return self._current().init_s

    def _ready_sandbox(self) -> LambdaSandbox:
        if self._sandbox is not None:
            if self._sandbox.alive:
                return self._sandbox
            self._sandbox.close()
        sandbox = self._sandbox = LambdaSandbox(
            self._output, freezes=self._freezes, limits=self._limits, restored=self._restored
        )
        command = [self._python, "-m", "awslambdaric", self._handler]
        sandbox.start(command, self._env, self._directory)
        if (reason := sandbox.await_init(INIT_LIMIT_S)) is not None:
            raise LambdaRuntimeError(
                f"the process never asked for an event ({reason}); {self._output.last_words()}"
            )
        return sandbox

    def _python_version(self) -> str:
        """The interpreter's "3.12", once it is known to have the runtime client."""
        probe = subprocess.run(  # noqa: S603  # the interpreter is the caller's own choice
            [self._python, "-c", _PROBE],
            env=self._env,
            cwd=self._directory,
            capture_output=True,
            text=True,
            check=False,
        )
        found, _, version = probe.stdout.strip().partition(" ")
        if found != "True":
            raise LambdaRuntimeError(
                f"{self._python} cannot import awslambdaric, AWS's runtime client; install it"
                f" there with: {self._python} -m pip install awslambdaric\n{probe.stderr}".rstrip()
            )
        return version


def _sandbox_environment(
    handler: str, directory: Path, function_name: str, memory_mb: int
) -> dict[str, str]:
    """What Lambda sets for every function, but for credentials and the address of its API."""
    return {
        "AWS_DEFAULT_REGION": REGION,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory_mb),
        "AWS_LAMBDA_FUNCTION_NAME": function_name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{function_name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": "local",
        "AWS_REGION": REGION,
        "LAMBDA_TASK_ROOT": str(directory),
        "LANG": "en_US.UTF-8",
        "PATH": "/usr/local/bin:/usr/bin:/bin:/opt/bin",
        "PYTHONPATH": str(directory),
        "TZ": ":UTC",
        "_HANDLER": handler,
    }
