"""Mode "lambda": a driver in the process calls ``vc_handler``, and stops the process itself."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

from doow_serverless.local.vercel import sandbox
from doow_serverless.local.vercel.invocation import Response, Turn, VercelRuntimeError, public

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doow_serverless.local._output import Output
    from doow_serverless.local.vercel.http1 import Connection

# What AWS's runtime does around vc_handler. A thread that asks for the interpreter gets it when the
# line is written; the short interval takes it back, so that the stop follows the result at once.
_INVOKE = """
import json, os, signal, sys
from vercel_runtime.vc_init import vc_handler

def answer(line):
    sys.setswitchinterval(1e-6)
    results.write(json.dumps(line).encode() + b"\\n")
    results.flush()
    if freeze:
        os.killpg(0, signal.SIGSTOP)
    sys.setswitchinterval(0.005)

turns, results, freeze = (int(each) for each in sys.argv[1:])
results = open(results, "wb")
with open(turns) as lines:
    answer({"ready": True})
    for line in lines:
        try:
            answer({"result": vc_handler(json.loads(line), None)})
        except Exception as error:
            answer({"error": f"{type(error).__name__}: {error}"})
"""


class LambdaModeSandbox(sandbox.VercelSandbox):
    """A process in which ``vc_handler`` is called with one request after another."""

    def __init__(self, output: Output, deployment: sandbox.Deployment) -> None:
        super().__init__(output, deployment)
        self._one_at_a_time = threading.Lock()
        theirs, self._turns = os.pipe()
        self._results, them = os.pipe()
        self._theirs: tuple[int, ...] = (theirs, them)
        self._received = b""

    def start(self) -> None:
        """Start the process, and wait until it can serve."""
        arguments = (*map(str, self._theirs), str(int(self._deployment.freezes)))
        self.boot(_INVOKE, *arguments, env={}, pass_fds=self._theirs)
        self._drop_theirs()
        with self._killed_after(sandbox.INIT_LIMIT_S):
            ready = self._result()
        if ready is None:
            self.join()
            raise self.failure("vc_handler never became ready")
        self._await_stop()

    def close(self) -> None:
        """Kill the process, and give back what was held for it."""
        super().close()
        self._drop_theirs()
        for fd in (self._turns, self._results):
            os.close(fd)

    def run(self, turn: Turn, on_connection: Connection | None) -> Response:
        """Serve one request, and say what came of it."""
        if on_connection is not None:
            raise VercelRuntimeError("vc_handler opens a connection for each request itself")
        with self._one_at_a_time:
            self.check_alive()
            offset = self._output.size()
            with self._killed_after(turn.due_s - time.monotonic()):
                self.thaw()
                turn.sent_s = time.monotonic()
                self._send(turn)
                line = self._result()
                turn.ended_s = time.monotonic()
            if line is None:
                self.join()
                raise self.failure(f"vc_handler did not return from {turn.path}")
            self._await_stop()
            log = self._output.text(offset).splitlines()
        return _response(line, turn, turn.ended_s - turn.sent_s, log)

    @contextlib.contextmanager
    def _killed_after(self, seconds: float) -> Iterator[None]:
        give_up = threading.Timer(seconds, self.send_signal, [signal.SIGKILL])
        give_up.start()
        try:
            yield
        finally:
            give_up.cancel()
            give_up.join()

    def _await_stop(self) -> None:
        """After its result the process stops itself."""
        if self._deployment.freezes:
            self.confirm_stop()

    def _send(self, turn: Turn) -> None:
        event = json.dumps({"body": json.dumps(_payload(turn))}).encode() + b"\n"
        with contextlib.suppress(BrokenPipeError), os.fdopen(os.dup(self._turns), "wb") as turns:
            turns.write(event)

    def _result(self) -> dict[str, Any] | None:
        """The next line of the driver; None once the process is gone."""
        while b"\n" not in self._received:
            received = os.read(self._results, 65_536)
            if not received:
                return None
            self._received += received
        line, _, self._received = self._received.partition(b"\n")
        result: dict[str, Any] = json.loads(line)
        return result

    def _drop_theirs(self) -> None:
        for fd in self._theirs:
            os.close(fd)
        self._theirs = ()


def _payload(turn: Turn) -> dict[str, Any]:
    """The request, as Vercel's proxy hands it to a Lambda function."""
    headers: dict[str, list[str]] = {}
    for name, value in turn.headers:
        headers.setdefault(name, []).append(value)
    return {
        "method": turn.method,
        "path": turn.path,
        "headers": headers,
        "body": base64.b64encode(turn.body).decode(),
        "encoding": "base64",
    }


def _response(line: dict[str, Any], turn: Turn, duration_s: float, log: list[str]) -> Response:
    result = line.get("result", {"statusCode": None, "headers": {}, "body": ""})
    body = result["body"]
    return Response(
        status=result["statusCode"],
        headers=public(
            (name, value) for name, values in result["headers"].items() for value in values
        ),
        body=base64.b64decode(body) if result.get("encoding") == "base64" else body.encode(),
        raw=b"",
        first_byte_s=None,
        duration_s=duration_s,
        log=log,
        messages=[],
        error=line.get("error"),
        sent_at=turn.sent_s,
        ended_s=duration_s,
    )
