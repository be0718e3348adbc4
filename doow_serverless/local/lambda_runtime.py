"""A Lambda runtime that freezes: the sandbox around ``awslambdaric``, AWS's own client.

It stands in for what AWS runs outside the function's process: the Runtime API, the environment,
the deadline, and the freeze between invocations, which is what breaks code that sends in the
background. The process is the real thing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from doow_serverless.local._server import ServerThread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.types import Message, Receive, Scope, Send
    from typing_extensions import Self

__all__ = ["Invocation", "LambdaRuntime", "LambdaRuntimeError"]

INIT_LIMIT_S = 10.0  # what Lambda grants the import of the handler's module
REGION = "us-east-1"
_API = "/2018-06-01/runtime"
_PROBE = (
    "import importlib.util as u, sys\n"
    "print(u.find_spec('awslambdaric') is not None, '%d.%d' % sys.version_info[:2])"
)


class LambdaRuntimeError(RuntimeError):
    """The process could not be brought to the point where it asks for an invocation."""


@dataclass(frozen=True)
class Invocation:
    """What became of one invocation.

    Attributes:
        request_id: The id that the handler saw as ``context.aws_request_id``.
        payload: The very bytes that the process posted, or the error document of the platform.
        error: The decoded error document (``errorType``, ``errorMessage``, …) of a handler that
            raised, exited or ran into its deadline; else None.
        duration_s: From the delivery of the event until its answer was received: what the caller
            waits for. The time that the process needs to ask for the next event is not in it.
    """

    request_id: str
    payload: bytes
    error: dict[str, Any] | None
    duration_s: float


class LambdaRuntime:
    """Runs a handler as Lambda does: one process, one invocation at a time, frozen in between.

    The process is stopped with SIGSTOP as soon as it asks for its next event, and continued with
    SIGCONT when there is one. A process that exits, or that misses its deadline and is killed, is
    replaced at the next :meth:`invoke`.

    Args:
        handler: As in the function's configuration: ``"app.handler"``.
        directory: What would be ``/var/task``.
        env: The function's own variables; they win over those that Lambda sets. Nothing is
            inherited from this process.
        python: An interpreter that can import ``awslambdaric`` (from ``env``'s PYTHONPATH, too).
        function_name: Becomes part of the ARN and the environment.
        timeout_s: The function's timeout, in seconds.
        memory_mb: Is announced to the function; it is not enforced.
        freeze: False keeps the process running between invocations.

    What it does not do: limit memory, CPU or payload size, provide AWS credentials, or speak the
    Extensions API.
    """

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
    ) -> None:
        self._handler = handler
        self._directory = Path(directory).resolve()
        self._python = str(python)
        self._timeout_s = timeout_s
        self._freeze = freeze
        self._arn = f"arn:aws:lambda:{REGION}:123456789012:function:{function_name}"
        self._env = {
            **_sandbox_environment(handler, self._directory, function_name, memory_mb),
            **(env or {}),
        }
        self._one_at_a_time = threading.Lock()
        self._output = _Output()
        self._sandbox: _Sandbox | None = None

    def __enter__(self) -> Self:
        self._output.start()
        try:
            version = self._python_version()
            self._env.setdefault("AWS_EXECUTION_ENV", f"AWS_Lambda_python{version}")
            self._ready_sandbox()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill the process, frozen or not, and stop serving."""
        if self._sandbox is not None:
            self._sandbox.close()
        self._output.close()

    def invoke(self, event: object, *, timeout_s: float | None = None) -> Invocation:
        """Deliver ``event`` and wait for its answer, and until the process is frozen again.

        Args:
            event: Anything that JSON can express.
            timeout_s: The timeout of this one invocation, in seconds.

        Raises:
            LambdaRuntimeError: The process died during its init, or never asked for an event.
        """
        turn = _Turn(
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
    def stdout(self) -> str:
        """Everything written so far to standard output and standard error, by every process."""
        return self._output.text()

    @property
    def init_error(self) -> dict[str, Any] | None:
        """The error document of a module that could not be imported."""
        return self._sandbox.init_error if self._sandbox is not None else None

    @property
    def init_s(self) -> float:
        """From the start of the newest process until it asked for its first event, in seconds."""
        return self._current().init_s

    @property
    def pid(self) -> int:
        """The newest process, which may have ended."""
        return self._current().pid

    def kill(self) -> None:
        """SIGKILL, as when the platform recycles a sandbox, and wait for the end."""
        self._current().kill()

    def freeze(self) -> None:
        """SIGSTOP: no thread of the function runs until :meth:`thaw`, or the next invocation."""
        self._current().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._current().send_signal(signal.SIGCONT)

    def _current(self) -> _Sandbox:
        if self._sandbox is None:
            raise LambdaRuntimeError("not started: use LambdaRuntime as a context manager")
        return self._sandbox

    def _ready_sandbox(self) -> _Sandbox:
        if self._sandbox is not None:
            if self._sandbox.alive:
                return self._sandbox
            self._sandbox.close()
        command = [self._python, "-m", "awslambdaric", self._handler]
        self._sandbox = _Sandbox(
            command, self._env, self._directory, self._output, freeze=self._freeze
        )
        self._sandbox.start()
        return self._sandbox

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


@dataclass
class _Turn:
    """One invocation on its way; the moments are seconds on the monotonic clock."""

    event: bytes
    timeout_s: float
    arn: str
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    due_s: float = 0.0
    delivered_s: float = 0.0
    answered_s: float | None = None
    payload: bytes = b""
    error: dict[str, Any] | None = None

    def start(self) -> None:
        """The time counts from here, as on Lambda, where the process may still have to thaw."""
        self.delivered_s = time.monotonic()
        self.due_s = self.delivered_s + self.timeout_s

    def answer(self, payload: bytes, error: dict[str, Any] | None = None) -> None:
        self.payload, self.error = payload, error
        self.answered_s = time.monotonic()

    def fail(self, error: dict[str, Any]) -> None:
        self.answer(json.dumps(error).encode(), error)

    def outcome(self) -> Invocation:
        # One that never reached the process took no time.
        duration_s = (self.answered_s or 0.0) - self.delivered_s if self.delivered_s else 0.0
        return Invocation(self.request_id, self.payload, self.error, duration_s)


class _Delivery(Response):
    """The answer to ``/next``: stamps the moment in which the event itself leaves."""

    def __init__(self, turn: _Turn) -> None:
        self._turn = turn
        deadline_ms = (time.time() + turn.due_s - time.monotonic()) * 1000
        super().__init__(
            turn.event,
            media_type="application/json",
            headers={
                "Lambda-Runtime-Aws-Request-Id": turn.request_id,
                "Lambda-Runtime-Deadline-Ms": str(int(deadline_ms)),
                "Lambda-Runtime-Invoked-Function-Arn": turn.arn,
            },
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.body":
                self._turn.delivered_s = time.monotonic()
            await send(message)

        await super().__call__(scope, receive, stamped)


class _Sandbox:
    """One process and the Runtime API that only it talks to, from its start to its death.

    A server for each process, so that a request of a dead one can never take an event away.
    """

    def __init__(
        self,
        command: list[str],
        env: Mapping[str, str],
        directory: Path,
        output: _Output,
        *,
        freeze: bool,
    ) -> None:
        self.init_error: dict[str, Any] | None = None
        self.init_s = 0.0
        self._freeze = freeze
        self._turn: _Turn | None = None
        self._poll: Future[_Turn | None] | None = None  # the /next that waits, if one does
        self._exit_code: int | None = None
        self._changed = threading.Condition()
        self._output = output
        self._server = ServerThread(self._application())
        self._server.listen()
        self._started_s = time.monotonic()
        # A session of its own: Ctrl-C in the terminal does not reach it, and a signal to the
        # group also stops what the function itself has started.
        self._process = subprocess.Popen(  # noqa: S603  # the command is the caller's own choice
            command,
            env={**env, "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._server.port}"},
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output.fileno(),
            stderr=output.fileno(),
            start_new_session=True,
        )
        self._watcher = threading.Thread(target=self._watch, name="doow-lambda", daemon=True)
        # Only now, since the process may ask before this thread comes to know it.
        self._server.start()

    def start(self) -> None:
        """Wait until the process asks for its first event, or says why it never will."""
        self._watcher.start()
        if self._wait(lambda: self._poll is not None, self._started_s + INIT_LIMIT_S):
            return
        too_slow = self.alive
        self.kill()
        if self.init_error is None:
            reason = f"after {INIT_LIMIT_S:.0f} s" if too_slow else _reason(self._exit_code)
            raise LambdaRuntimeError(
                f"the process never asked for an event ({reason}); it wrote:\n"
                f"{self._output.text()[-2000:]}"
            )

    def run(self, turn: _Turn) -> None:
        """Deliver ``turn``, enforce its deadline, and leave a process that waits, or none."""
        poll, self._poll = self._poll, None
        if poll is None:  # the state in which start() and run() leave a living process
            raise LambdaRuntimeError("the process does not wait for an event")
        self._turn = turn
        turn.start()
        self.send_signal(signal.SIGCONT)
        poll.set_result(turn)
        self._wait(lambda: turn.answered_s is not None, turn.due_s)
        # Only the next request says that the process is done, and Lambda's deadline covers it.
        if not self._wait(lambda: self._poll is not None, turn.due_s):
            timed_out = self.alive
            self.kill()
            if turn.answered_s is None:
                turn.fail(self._death(turn, timed_out=timed_out))
        self._turn = None

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the process group, unless its leader, and with it our claim, is gone."""
        # It may end in between; macOS then answers that the signal is not permitted.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self.alive:
                os.killpg(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
        self._watcher.join()

    def close(self) -> None:
        self.kill()
        if self._poll is not None:
            self._poll.set_result(None)
        self._server.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._exit_code is None

    def _wait(self, ready: Callable[[], bool], until_s: float) -> bool:
        """Whether ``ready()`` came true before the moment, and before the end of the process."""
        with self._changed:
            self._changed.wait_for(
                lambda: ready() or not self.alive, max(0.0, until_s - time.monotonic())
            )
            return ready() and self.alive

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _watch(self) -> None:
        self._exit_code = self._process.wait()
        self._notify()

    def _death(self, turn: _Turn, *, timed_out: bool) -> dict[str, Any]:
        if timed_out:
            kind = "Sandbox.Timedout"
            reason = f"Task timed out after {turn.timeout_s:.2f} seconds"
        else:
            kind = "Runtime.ExitError"
            reason = f"Runtime exited with error: {_reason(self._exit_code)}"
        return {
            "errorType": kind,
            "errorMessage": f"RequestId: {turn.request_id} Error: {reason}",
        }

    def _application(self) -> Starlette:
        """The Runtime API, as far as a runtime client uses it."""
        return Starlette(
            routes=[
                Route(f"{_API}/invocation/next", self._next),
                Route(f"{_API}/invocation/{{request_id}}/response", self._answer, methods=["POST"]),
                Route(f"{_API}/invocation/{{request_id}}/error", self._answer, methods=["POST"]),
                Route(f"{_API}/init/error", self._init_failed, methods=["POST"]),
            ]
        )

    async def _next(self, _: Request) -> Response:
        poll: Future[_Turn | None] = Future()
        if self._freeze:
            self.send_signal(signal.SIGSTOP)
        self.init_s = self.init_s or time.monotonic() - self._started_s
        self._poll = poll
        self._notify()
        turn = await asyncio.wrap_future(poll)
        return _Delivery(turn) if turn is not None else Response(status_code=410)

    async def _answer(self, request: Request) -> Response:
        try:
            body = await request.body()
        except ClientDisconnect:  # killed in the middle of its answer
            return Response(status_code=400)
        turn = self._turn
        if turn is None or turn.request_id != request.path_params["request_id"]:
            wrong = {"errorType": "InvalidRequestID", "errorMessage": "Invalid request ID"}
            return JSONResponse(wrong, status_code=400)
        turn.answer(body, json.loads(body) if request.url.path.endswith("/error") else None)
        self._notify()
        return JSONResponse({"status": "OK"}, status_code=202)

    async def _init_failed(self, request: Request) -> Response:
        self.init_error = await request.json()
        return JSONResponse({"status": "OK"}, status_code=202)


def _reason(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"signal: {signal.Signals(-exit_code).name}"
    return f"exit status {exit_code}"


class _Output:
    """What the processes write, read by a thread so that a full pipe never blocks them."""

    def __init__(self) -> None:
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        self._chunks: list[bytes] = []
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._pump, name="doow-lambda-output", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def fileno(self) -> int:
        """The end that the processes write to."""
        return self._write_fd

    def text(self) -> str:
        """All of it, including what the thread has not seen yet."""
        self._drain()
        return b"".join(self._chunks).decode(errors="replace")

    def close(self) -> None:
        """Stop reading; the text stays."""
        self._drain()
        with self._lock:
            if self._closed:
                return
            self._closed = True
        os.write(self._write_fd, b"\n")  # wakes the thread, and is never read
        if self._thread.ident is not None:
            self._thread.join()
        os.close(self._read_fd)
        os.close(self._write_fd)

    def _pump(self) -> None:
        while not self._closed:
            select.select([self._read_fd], [], [])
            self._drain()

    def _drain(self) -> None:
        with self._lock, contextlib.suppress(BlockingIOError):
            while not self._closed:
                self._chunks.append(os.read(self._read_fd, 65536))
