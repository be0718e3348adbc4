"""Mode "ipc": HTTP from outside, and a unix socket on which the process reports."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doow_serverless.local.vercel import sandbox
from doow_serverless.local.vercel.http1 import Answer, Connection
from doow_serverless.local.vercel.invocation import Response, Turn

if TYPE_CHECKING:
    from doow_serverless.local._output import Output
    from doow_serverless.local.vercel.invocation import VercelRuntimeError

# By default five connections wait to be accepted; beyond them TCP tries again after seconds.
_SERVE = (
    "import socketserver; socketserver.TCPServer.request_queue_size = 128\n"
    "import vercel_runtime.vc_init"
)

# What the process wrote before it said that an invocation is over has come, after this silence.
_SILENCE_S = 0.05


class IpcSandbox(sandbox.VercelSandbox):
    """A process with an HTTP server, to which requests go, as many at once as are made.

    Attributes:
        port: That of the server; 0 until the process has said it.
    """

    def __init__(self, output: Output, deployment: sandbox.Deployment) -> None:
        super().__init__(output, deployment)
        self.port = 0
        self._turns: dict[int, Turn] = {}  # those of which the process has not reported the end
        self._busy: set[int] = set()  # those for which the process must run
        self._place = tempfile.TemporaryDirectory(prefix="vc-")  # such a path must be short
        self._path = str(Path(self._place.name) / "ipc.sock")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._reader = threading.Thread(target=self._read, name="vercel-ipc", daemon=True)

    def start(self) -> None:
        """Start the process, and wait until it can serve."""
        self._listener.bind(self._path)
        self._listener.listen(2)
        self.boot(_SERVE, env={"VERCEL_IPC_PATH": self._path})
        self._reader.start()
        if not self.wait(lambda: self.port != 0, time.monotonic() + sandbox.INIT_LIMIT_S):
            if not self.alive:
                self._reader.join()  # its last words
            raise self.failure("the process never said that its server has started")
        if self._deployment.freezes:
            self.freeze()

    def close(self) -> None:
        """Kill the process, and give back what was held for it."""
        super().close()
        if self._reader.ident is not None:
            self._reader.join()
        self._listener.close()
        self._place.cleanup()

    def run(self, turn: Turn, on_connection: Connection | None) -> Response:
        """Serve one request, and say what came of it."""
        with self._switch:
            self.check_alive()
            self._turns[turn.request_id] = turn
            self._busy.add(turn.request_id)
            self.thaw()
        try:
            connection = on_connection or Connection(self.port)
            try:
                answer = self._exchange(turn, connection.socket)
            finally:
                if on_connection is None:
                    connection.close()
        finally:
            self._turns.pop(turn.request_id, None)
            self._idle(turn.request_id)
        return _response(turn, answer)

    def _exchange(self, turn: Turn, peer: socket.socket) -> Answer:
        """Send the request, and take its answer until the invocation is over."""
        answer = Answer(turn.method)
        turn.sent_s = time.monotonic()
        peer.settimeout(max(0.001, turn.due_s - turn.sent_s))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # an answer may be there
            peer.sendall(turn.as_http())
        peer.settimeout(_SILENCE_S)
        with contextlib.suppress(ConnectionResetError):
            self._receive(turn, peer, answer)
        self.wait(lambda: turn.ended_s is not None, turn.due_s)
        if turn.ended_s is None:
            raise self._given_up(f"the process never ended the invocation of {turn.path}")
        answer.append_rest(peer)
        self._idle(turn.request_id)
        return answer

    def _receive(self, turn: Turn, peer: socket.socket, answer: Answer) -> None:
        """Take the answer until it is whole, or until no more of it will come."""
        while not answer.complete:
            try:
                received = peer.recv(65_536)
            except TimeoutError:
                if turn.ended_s is None:
                    self._check_time(turn)
                elif answer.open_ended:
                    return  # only the end of the connection would follow, of a process that stands
                else:
                    self._let_it_finish(turn)
            else:
                if not received:
                    return
                answer.feed(received)

    def _check_time(self, turn: Turn) -> None:
        if time.monotonic() > turn.due_s:
            raise self._given_up(f"there is no whole answer to {turn.path} in time")

    def _given_up(self, what: str) -> VercelRuntimeError:
        self.kill()
        return self.failure(what)

    def _let_it_finish(self, turn: Turn) -> None:
        """What is missing has yet to be sent by the process, which has been stopped."""
        self._check_time(turn)
        with self._switch:
            self._busy.add(turn.request_id)
            self.thaw()

    def _idle(self, request_id: int) -> None:
        """The process has nothing more to do for this request."""
        with self._switch:
            self._busy.discard(request_id)
            if self._deployment.freezes and not self._busy:
                self.freeze()

    def _ended(self) -> None:
        # Wakes the reader, should it still wait for the process to connect.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as nobody:
            nobody.connect(self._path)

    def _read(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            received = b""
            while chunk := connection.recv(65_536):
                *lines, received = (received + chunk).split(b"\0")
                for line in lines:
                    self._hear(json.loads(line))

    def _hear(self, message: dict[str, Any]) -> None:
        heard_s = time.monotonic()
        kind, payload = message["type"], message.get("payload", {})
        turn = self._turns.get(payload.get("context", {}).get("requestId"))
        if turn is not None and kind == "end":
            self._idle(turn.request_id)
        if turn is not None:
            turn.messages.append(message)
            if kind == "end":
                turn.ended_s = heard_s
        if kind == "server-started":
            self.port = payload["httpPort"]
        self._output.add(_log_text(message))
        self.notify()


def _log_text(message: dict[str, Any]) -> str:
    if message["type"] != "log":
        return ""
    text = base64.b64decode(message["payload"]["message"]).decode(errors="replace")
    # What comes from a logger has a level and no end of line.
    return text + "\n" if "level" in message["payload"] else text


def _response(turn: Turn, answer: Answer) -> Response:
    assert turn.ended_s is not None
    first_byte_s, last_byte_s = answer.first_byte_s, answer.last_byte_s
    return Response(
        status=answer.status,
        headers=answer.headers,
        body=answer.body,
        raw=bytes(answer.raw),
        first_byte_s=None if first_byte_s is None else first_byte_s - turn.sent_s,
        duration_s=max(turn.ended_s, last_byte_s or 0.0) - turn.sent_s,
        log="".join(_log_text(each) for each in turn.messages).splitlines(),
        messages=turn.messages,
        sent_at=turn.sent_s,
        last_byte_s=None if last_byte_s is None else last_byte_s - turn.sent_s,
        ended_s=turn.ended_s - turn.sent_s,
    )
