"""The host's end of the stream to the worker, as far as this process holds it.

The stream itself, which is gRPC, ends in a process of its own (``programs/grpc_server.py``).
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import uuid
from concurrent import futures
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from doow_serverless.local.azure.application import PROGRAMS
from doow_serverless.local.azure.invocation import AzureHostError, Invocation, Log
from doow_serverless.local.azure.messages import failure_of, value_of

START_LIMIT_S = 60.0


class Bridge:
    """The process with the gRPC server, and what is awaited from the worker at its other end."""

    def __init__(self, python: str) -> None:
        self.port = 0
        self.ended = threading.Event()
        self._python = python
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._read, name="azure-bridge", daemon=True)
        self._lock = threading.Lock()
        self._worker = ""
        self._awaited: dict[tuple[str, str], Future[Any]] = {}
        self._logs: dict[str, list[Log]] = {}

    def start(self) -> None:
        """Start the server, and learn its port."""
        if not Path(self._python).exists():
            raise AzureHostError(
                f"there is no {self._python}; `make test` makes an environment .venv-azure-3.* of"
                " each Python from 3.10 to 3.13 that it finds"
            )
        self._process = subprocess.Popen(  # noqa: S603  # the interpreter is the caller's own choice
            [self._python, str(PROGRAMS / "grpc_server.py")],
            env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            assert self._process.stderr is not None
            raise AzureHostError(
                f"{self._python} has not what requirements/azure.txt and azure-runtime.txt list:\n"
                f"{self._process.stderr.read()}"
            )
        self.port = json.loads(line)["port"]
        self._thread.start()

    def close(self) -> None:
        """End the server, by the end of its input."""
        if self._process is None:
            return
        with self._process:  # closes its pipes, and waits
            assert self._process.stdin is not None
            self._process.stdin.close()
            if self._thread.ident is not None:
                self._thread.join()

    def expect_worker(self) -> str:
        """Forget the last worker, and return the id under which the next has to come."""
        with self._lock:
            self.ended.clear()
            self._worker = str(uuid.uuid4())
            self._opened: Future[Any] = Future()
            self._awaited = {("startStream", self._worker): self._opened}
            self._logs = {}
            return self._worker

    def wait_for_worker(self) -> None:
        """Until it opens its stream."""
        self._result(self._opened, "the start of the worker")

    def end_unless_open(self, worker: str) -> None:
        """A process is gone; the end of an open stream comes after all that it carried."""
        if not self._opened.done():
            self.end(worker)

    def ask(self, kind: str, content: dict[str, Any], answer: str) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        future = self._await(answer, content.get("functionId", ""))
        self._send({"requestId": str(uuid.uuid4()), kind: content})
        reply: dict[str, Any] = self._result(future, answer)["message"][answer]
        return reply

    def invoke(self, request: dict[str, Any], *, kill: int | None = None) -> Future[Invocation]:
        """Send an invocation, and whom to kill as soon as its answer arrives."""
        invocation_id = request["invocationId"]
        self._logs[invocation_id] = []
        answered = self._await("invocationResponse", invocation_id)
        outcome: Future[Invocation] = Future()

        def settle(future: Future[Any]) -> None:
            if (error := future.exception()) is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(self._outcome(invocation_id, future.result()))

        answered.add_done_callback(settle)
        self._send({"requestId": invocation_id, "invocationRequest": request}, kill=kill)
        return outcome

    def end(self, worker: str | None = None) -> None:
        """The worker, if it is this one, is gone: nothing that is still awaited will come."""
        with self._lock:
            if worker not in {None, self._worker}:
                return
            self.ended.set()
            awaited, self._awaited = self._awaited, {}
        for future in awaited.values():
            future.set_exception(AzureHostError("the worker died"))

    def _outcome(self, id: str, line: dict[str, Any]) -> Invocation:
        answer = line["message"]["invocationResponse"]
        return Invocation(
            id=id,
            return_value=value_of(answer.get("returnValue", {})),
            outputs={each["name"]: value_of(each["data"]) for each in answer.get("outputData", [])},
            error=failure_of(answer),
            logs=self._logs.pop(id),
            duration_s=line["received_at"] - line["sent_at"],
            responded_at=line["received_at"],
        )

    def _result(self, future: Future[Any], what: str) -> Any:
        try:
            return future.result(START_LIMIT_S)
        except futures.TimeoutError:  # before Python 3.11 not the built-in one
            raise AzureHostError(f"waited {START_LIMIT_S:g} s in vain for {what}") from None

    def _await(self, kind: str, id: str) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            if self.ended.is_set():
                raise AzureHostError("the worker died")
            self._awaited[kind, id] = future
        return future

    def _send(self, message: dict[str, Any], *, kill: int | None = None) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        line = json.dumps({"message": message, "kill": kill})
        with self._lock:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for text in self._process.stdout:
            line = json.loads(text)
            if line.get("ended"):
                self.end(line["worker"])
            elif "rpcLog" in line["message"]:
                self._log(line["message"]["rpcLog"])
            else:
                self._settle(line)
        self.end()

    def _settle(self, line: dict[str, Any]) -> None:
        message = line["message"]
        kind = next(key for key in message if key != "requestId")
        ids = (message[kind].get(key) for key in ("invocationId", "functionId", "workerId"))
        with self._lock:
            if line["worker"] != self._worker:  # one that was replaced
                return
            future = self._awaited.pop((kind, next(filter(None, ids), "")), None)
        if future is not None:
            future.set_result(line)

    def _log(self, log: dict[str, Any]) -> None:
        """Keep an application's line; one that comes after the answer belongs to nobody."""
        lines = self._logs.get(log.get("invocationId", ""))
        if lines is not None and log.get("logCategory", "User") == "User":
            lines.append(Log(log.get("level", "Trace"), log["category"], log["message"]))
