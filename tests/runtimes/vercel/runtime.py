"""A Vercel function that freezes: Vercel's own Python bootstrap, driven in both of its modes.

The bootstrap is the package ``vercel-runtime``, which every build pins and which needs Python 3.12,
hence a process and an interpreter of its own. This module stands in for what is around it: the
trampoline and the environment of the build, the proxy that sends requests, the socket over which
the process says that an invocation is over, and the freeze that follows at once.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from doow_serverless.cli.vercel_check import entry_point

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from typing_extensions import Self

INIT_LIMIT_S = 20.0  # for the import of the user's module, on a busy machine
REGION = "iad1"

# What the process wrote before it said that an invocation is over has come, after this silence.
_SILENCE_S = 0.05

# With -c the directory of the process is first on the path, as that of the trampoline is.
_SERVE = "import vercel_runtime.vc_init"

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


class VercelRuntimeError(RuntimeError):
    """The process does not come up, is gone, or never ended an invocation."""


@dataclass(frozen=True)
class Response:
    """What became of one invocation.

    Attributes:
        status: None if the process closed the connection, or ended the invocation, without an
            answer; Vercel makes that a 500 of its own.
        headers: As sent, in order, without the one that Vercel's proxy keeps to itself.
        body: Without the framing of the transfer.
        raw: Every byte that came over the connection, also those behind the end of the answer;
            empty in lambda mode, where http.client has taken them apart inside the process.
        first_byte_s: Until the first byte of the body, in seconds since the request was sent; None
            without a body and in lambda mode.
        duration_s: Until the invocation was over and its answer had arrived.
        log: The lines that Vercel attributes to this request; in lambda mode all that the process
            wrote meanwhile.
        messages: What the process said about this request over its socket; none in lambda mode.
        error: The exception that ``vc_handler`` raised in lambda mode.
        sent_at: When the request was sent, in seconds on the monotonic clock.
        last_byte_s: Until the last byte that came before the end or soon after it, in seconds since
            the request was sent; None where there was none, and in lambda mode.
        ended_s: Until the end of the invocation, likewise.
    """

    status: int | None
    headers: list[tuple[str, str]]
    body: bytes
    raw: bytes
    first_byte_s: float | None
    duration_s: float
    log: list[str]
    messages: list[dict[str, Any]]
    error: str | None = None
    sent_at: float = 0.0
    last_byte_s: float | None = None
    ended_s: float = 0.0

    def header(self, name: str) -> str | None:
        """The first value of a header."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


class VercelRuntime:
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
        directory = Path(directory).resolve()
        variable = variable or entry_point((directory / entrypoint_file).read_text())
        if variable is None:
            raise VercelRuntimeError(f"the build finds no entry point in {entrypoint_file}")
        self._max_duration_s = max_duration_s
        self._ids = iter(range(1, 1_000_000_000))
        environment = {
            **_environment(entrypoint_file, directory, variable),
            **(env or {}),
        }
        kind = _Served if mode == "ipc" else _Invoked
        self._make = partial(kind, str(python), environment, directory, freeze=freeze)
        self._made: _Function | None = None

    def __enter__(self) -> Self:
        self._made = self._make()
        try:
            self._made.start()
        except BaseException:
            self._made.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._function.close()

    @property
    def _function(self) -> _Function:
        if self._made is None:
            raise VercelRuntimeError("not started: use VercelRuntime as a context manager")
        return self._made

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
        pairs = list(headers.items() if hasattr(headers, "items") else headers)
        given = {name.lower() for name, _ in pairs}
        if body and not given & {"content-length", "transfer-encoding"}:
            pairs.append(("content-length", str(len(body))))
        proxied = _proxy_headers(request_id, self._max_duration_s)
        pairs.extend((name, value) for name, value in proxied.items() if name not in given)
        turn = _Turn(request_id, method, path, pairs, body, time.monotonic() + timeout_s)
        return self._function.run(turn, on_connection)

    def connect(self) -> Connection:
        """A connection that several requests share, one after another (mode "ipc")."""
        if not isinstance(self._function, _Served):
            raise VercelRuntimeError("vc_handler opens a connection for each request itself")
        return Connection(self._function.port)

    @property
    def stdout(self) -> str:
        """All that the process wrote so far, be it to its output or over its socket."""
        return self._function.text()

    @property
    def pid(self) -> int:
        return self._function.pid

    @property
    def stopped(self) -> bool:
        """Whether SIGSTOP holds the process; the operating system has confirmed it."""
        return self._function.stopped

    def freeze(self) -> None:
        """Stop the process in the middle of whatever it does, and wait until it stands still."""
        self._function.stop()

    def thaw(self) -> None:
        """Continue the process until the next invocation is over."""
        self._function.go()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, such as the SIGTERM with which Vercel announces the end."""
        self._function.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, as when the platform recycles an instance, and wait for the end."""
        self._function.kill()


class Connection:
    """A connection to the process, kept alive from request to request."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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


def _proxy_headers(request_id: int, max_duration_s: float) -> dict[str, str]:
    deadline = datetime.fromtimestamp(time.time() + max_duration_s, timezone.utc)
    invocation_id = uuid.uuid4().hex
    return {
        "host": "local.vercel.app",
        "x-forwarded-for": "203.0.113.7",
        "x-forwarded-host": "local.vercel.app",
        "x-forwarded-proto": "https",
        "x-vercel-id": f"{REGION}::{REGION}::{invocation_id[:5]}-{invocation_id[:12]}",
        "x-vercel-internal-deadline": deadline.isoformat(timespec="milliseconds"),
        "x-vercel-internal-invocation-id": invocation_id,
        "x-vercel-internal-request-id": str(request_id),
    }


@dataclass
class _Turn:
    """One request on its way; the moments are seconds on the monotonic clock."""

    request_id: int
    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    due_s: float
    sent_s: float = 0.0
    ended_s: float | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)

    def as_http(self) -> bytes:
        lines = [f"{self.method} {self.path} HTTP/1.1"]
        lines.extend(f"{name}: {value}" for name, value in self.headers)
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


class _Function:
    """One process, from its start to its death, that stands still when it has nothing to do."""

    def __init__(
        self, python: str, env: Mapping[str, str], directory: Path, *, freeze: bool
    ) -> None:
        self._python = python
        self._env = env
        self._directory = directory
        self._freeze = freeze
        self._process: subprocess.Popen[bytes] | None = None
        self._exit_code: int | None = None
        self._stops = 0
        self._stops_when_continued = 0
        self._text = b""  # what was in the file when it was closed
        self._changed = threading.Condition()
        self._switch = threading.RLock()  # one at a time stops or continues the process
        self._watcher = threading.Thread(target=self._watch, name="vercel-watcher", daemon=True)
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
        self.stopped = False

    def start(self) -> None:
        raise NotImplementedError

    def run(self, turn: _Turn, on_connection: Connection | None) -> Response:
        raise NotImplementedError

    def close(self) -> None:
        self.kill()
        self._text = self._written()
        self._output.close()

    def text(self) -> str:
        return self._written().decode(errors="replace")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._exit_code is None

    def send_signal(self, number: signal.Signals) -> None:
        """To the whole group: what the function has started belongs to it."""
        # It may end in between; macOS then answers that the signal is not permitted.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self.alive:
                os.killpg(self.pid, number)

    def stop(self) -> None:
        with self._switch:
            if not self.stopped:
                self.send_signal(signal.SIGSTOP)
                self._confirm_stop()

    def go(self) -> None:
        with self._switch:
            self.stopped = False
            self._stops_when_continued = self._stops
            self.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
        if self._process is not None:
            self._watcher.join()

    def _launch(self, arguments: list[str], env: Mapping[str, str], *fds: int) -> None:
        # A session of its own, so that a signal to the group reaches nothing else.
        self._process = subprocess.Popen(
            [self._python, "-u", "-c", *arguments],  # as with AWS's runtime, nothing is held back
            env={**self._env, **env, "__VC_PY_BOOT_START_MS": str(int(time.monotonic() * 1000))},
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            pass_fds=fds,
            start_new_session=True,
        )
        self._watcher.start()

    def _watch(self) -> None:
        """Hear of every stop and of the end: only a parent is told, and only by waiting."""
        assert self._process is not None
        while True:
            _, status = os.waitpid(self._process.pid, os.WUNTRACED)
            with self._changed:
                if os.WIFSTOPPED(status):
                    self._stops += 1
                else:
                    self._exit_code = os.waitstatus_to_exitcode(status)
                    self._process.returncode = self._exit_code
                self._changed.notify_all()
            if self._exit_code is not None:
                self._died()
                return

    def _died(self) -> None:
        """The process is gone: wake whoever waits for it."""

    def _confirm_stop(self) -> None:
        """Wait until the process has been stopped since it was last continued."""
        self.stopped = self._wait(
            lambda: self._stops > self._stops_when_continued, time.monotonic() + 10
        )

    def _wait(self, ready: Callable[[], bool], until_s: float) -> bool:
        """Whether ``ready()`` came true before the moment, and before the end of the process."""
        with self._changed:
            self._changed.wait_for(
                lambda: ready() or not self.alive, max(0.0, until_s - time.monotonic())
            )
            return ready()

    def _written(self, offset: int = 0) -> bytes:
        if self._output.closed:
            return self._text[offset:]
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size - offset, offset)

    def _failure(self, what: str) -> VercelRuntimeError:
        state = "still runs" if self.alive else f"ended with exit code {self._exit_code}"
        return VercelRuntimeError(f"{what}; the process {state}; it wrote:\n{self.text()[-4000:]}")


class _Served(_Function):
    """Mode "ipc": HTTP from outside, and a unix socket on which the process reports."""

    def __init__(
        self, python: str, env: Mapping[str, str], directory: Path, *, freeze: bool
    ) -> None:
        super().__init__(python, env, directory, freeze=freeze)
        self._turns: dict[int, _Turn] = {}  # those of which the process has not reported the end
        self._busy: set[int] = set()  # those for which the process must run
        self._log: list[str] = []
        self.port = 0  # until the process has said it
        self._place = tempfile.TemporaryDirectory(prefix="vc-")  # such a path must be short
        self._path = str(Path(self._place.name) / "ipc.sock")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._reader = threading.Thread(target=self._read, name="vercel-ipc", daemon=True)

    def start(self) -> None:
        self._listener.bind(self._path)
        self._listener.listen(2)
        self._launch([_SERVE], {"VERCEL_IPC_PATH": self._path})
        self._reader.start()
        if not self._wait(lambda: self.port != 0, time.monotonic() + INIT_LIMIT_S):
            if not self.alive:
                self._reader.join()  # its last words
            raise self._failure("the process never said that its server has started")
        if self._freeze:
            self.stop()

    def close(self) -> None:
        super().close()
        if self._reader.ident is not None:
            self._reader.join()
        self._listener.close()
        self._place.cleanup()

    def text(self) -> str:
        return super().text() + "".join(self._log)

    def run(self, turn: _Turn, on_connection: Connection | None) -> Response:
        with self._switch:
            if not self.alive:
                raise self._failure("there is nobody to answer")
            self._turns[turn.request_id] = turn
            self._busy.add(turn.request_id)
            self.go()
        try:
            connection = on_connection or Connection(self.port)
            try:
                return self._exchange(turn, connection.socket)
            finally:
                if on_connection is None:
                    connection.close()
        finally:
            self._turns.pop(turn.request_id, None)
            self._idle(turn.request_id)

    def _exchange(self, turn: _Turn, peer: socket.socket) -> Response:
        answer = _Answer(turn.method)
        turn.sent_s = time.monotonic()
        peer.settimeout(max(0.001, turn.due_s - turn.sent_s))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # an answer may be there
            peer.sendall(turn.as_http())
        peer.settimeout(_SILENCE_S)
        while not answer.complete:
            try:
                received = peer.recv(65_536)
            except TimeoutError:
                if turn.ended_s is None:
                    self._check_time(turn)
                elif answer.open_ended:
                    break  # only the end of the connection would follow, of a process that stands
                else:
                    self._let_it_finish(turn)
            except ConnectionResetError:
                break
            else:
                if not received:
                    break
                answer.feed(received)
        self._wait(lambda: turn.ended_s is not None, turn.due_s)
        if turn.ended_s is None:
            raise self._given_up(f"the process never ended the invocation of {turn.path}")
        answer.append_rest(peer)
        self._idle(turn.request_id)
        over_s = max(turn.ended_s, answer.last_byte_s or 0.0)
        first_byte_s, last_byte_s = answer.first_byte_s, answer.last_byte_s
        return Response(
            status=answer.status,
            headers=answer.headers,
            body=answer.body,
            raw=bytes(answer.raw),
            first_byte_s=None if first_byte_s is None else first_byte_s - turn.sent_s,
            duration_s=over_s - turn.sent_s,
            log="".join(_log_text(each) for each in turn.messages).splitlines(),
            messages=turn.messages,
            sent_at=turn.sent_s,
            last_byte_s=None if last_byte_s is None else last_byte_s - turn.sent_s,
            ended_s=turn.ended_s - turn.sent_s,
        )

    def _check_time(self, turn: _Turn) -> None:
        if time.monotonic() > turn.due_s:
            raise self._given_up(f"there is no whole answer to {turn.path} in time")

    def _given_up(self, what: str) -> VercelRuntimeError:
        self.kill()
        return self._failure(what)

    def _let_it_finish(self, turn: _Turn) -> None:
        """What is missing has yet to be sent by the process, which has been stopped."""
        self._check_time(turn)
        with self._switch:
            self._busy.add(turn.request_id)
            self.go()

    def _idle(self, request_id: int) -> None:
        """The process has nothing more to do for this request."""
        with self._switch:
            self._busy.discard(request_id)
            if self._freeze and not self._busy:
                self.stop()

    def _died(self) -> None:
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
        if kind == "end" and turn is not None:
            self._idle(turn.request_id)
        with self._changed:
            if turn is not None:
                turn.messages.append(message)
                if kind == "end":
                    turn.ended_s = heard_s
            if kind == "server-started":
                self.port = payload["httpPort"]
            self._log.append(_log_text(message))
            self._changed.notify_all()


def _log_text(message: dict[str, Any]) -> str:
    if message["type"] != "log":
        return ""
    text = base64.b64decode(message["payload"]["message"]).decode(errors="replace")
    # What comes from a logger has a level and no end of line.
    return text + "\n" if "level" in message["payload"] else text


class _Invoked(_Function):
    """Mode "lambda": a driver in the process calls ``vc_handler``, and stops the process itself."""

    def __init__(
        self, python: str, env: Mapping[str, str], directory: Path, *, freeze: bool
    ) -> None:
        super().__init__(python, env, directory, freeze=freeze)
        self._one_at_a_time = threading.Lock()
        theirs, self._turns = os.pipe()
        self._results, them = os.pipe()
        self._theirs: tuple[int, ...] = (theirs, them)
        self._received = b""

    def start(self) -> None:
        arguments = [_INVOKE, *map(str, self._theirs), str(int(self._freeze))]
        self._launch(arguments, {}, *self._theirs)
        self._drop_theirs()
        give_up = threading.Timer(INIT_LIMIT_S, self.send_signal, [signal.SIGKILL])
        give_up.start()
        try:
            ready = self._result()
        finally:
            give_up.cancel()
            give_up.join()
        if ready is None:
            self._watcher.join()
            raise self._failure("vc_handler never became ready")
        self._await_stop()

    def close(self) -> None:
        super().close()
        self._drop_theirs()
        for fd in (self._turns, self._results):
            os.close(fd)

    def run(self, turn: _Turn, on_connection: Connection | None) -> Response:
        if on_connection is not None:
            raise VercelRuntimeError("vc_handler opens a connection for each request itself")
        with self._one_at_a_time:
            if not self.alive:
                raise self._failure("there is nobody to answer")
            offset = len(self._written())
            event = json.dumps({"body": json.dumps(_payload(turn))}).encode() + b"\n"
            give_up = threading.Timer(
                turn.due_s - time.monotonic(), self.send_signal, [signal.SIGKILL]
            )
            give_up.start()
            try:
                self.go()
                turn.sent_s = time.monotonic()
                with (
                    contextlib.suppress(BrokenPipeError),
                    os.fdopen(os.dup(self._turns), "wb") as turns,
                ):
                    turns.write(event)
                line = self._result()
                turn.ended_s = time.monotonic()
            finally:
                give_up.cancel()
                give_up.join()
            if line is None:
                self._watcher.join()
                raise self._failure(f"vc_handler did not return from {turn.path}")
            self._await_stop()
            log = self._written(offset).decode(errors="replace").splitlines()
        return _lambda_response(line, turn, turn.ended_s - turn.sent_s, log)

    def _await_stop(self) -> None:
        """After its result the process stops itself."""
        if self._freeze:
            with self._switch:
                self._confirm_stop()

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


def _payload(turn: _Turn) -> dict[str, Any]:
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


def _lambda_response(
    line: dict[str, Any], turn: _Turn, duration_s: float, log: list[str]
) -> Response:
    result = line.get("result", {"statusCode": None, "headers": {}, "body": ""})
    body = result["body"]
    return Response(
        status=result["statusCode"],
        headers=_public(
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


def _public(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Without the timings of the cold start, which the first answer of a process carries."""
    return [each for each in headers if each[0].lower() != "x-vercel-internal-timing"]


class _Answer:
    """An HTTP response, taken apart as it comes.

    Attributes:
        raw: All that came.
        complete: Whether the head and a body of the length that it announces are there.
        open_ended: Whether only the end of the connection would say that the body is complete.
    """

    def __init__(self, method: str) -> None:
        self._method = method
        self._start = 0
        self.raw = bytearray()
        self.status: int | None = None
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self.complete = False
        self.open_ended = False
        self.first_byte_s: float | None = None
        self.last_byte_s: float | None = None

    def feed(self, received: bytes) -> None:
        self.last_byte_s = time.monotonic()
        self.raw += received
        self._parse()
        if self.body and self.first_byte_s is None:
            self.first_byte_s = self.last_byte_s

    def append_rest(self, peer: socket.socket) -> None:
        """What has come in since, and belongs to this answer, whether it should be there or not."""
        peer.setblocking(False)
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while received := peer.recv(65_536):
                self.feed(received)

    def _parse(self) -> None:
        head, found, rest = bytes(self.raw[self._start :]).partition(b"\r\n\r\n")
        if not found:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        status = int(first.split()[1])
        if 100 <= status < 200:
            self._start += len(head) + 4
            self._parse()
            return
        pairs = [line.partition(":") for line in lines]
        self.status = status
        self.headers = _public((name, value.strip()) for name, _, value in pairs)
        fields = {name.lower(): value for name, value in self.headers}
        self.open_ended = False
        if self._method == "HEAD" or status in (204, 304):
            self.complete = True
        elif "chunked" in fields.get("transfer-encoding", ""):
            self.body, self.complete = _dechunk(rest)
        elif "content-length" in fields:
            length = int(fields["content-length"])
            self.body, self.complete = rest[:length], len(rest) >= length
        else:
            self.body, self.open_ended = rest, True


def _dechunk(rest: bytes) -> tuple[bytes, bool]:
    """The body so far, and whether the last chunk is there."""
    body = b""
    while True:
        line, found, rest = rest.partition(b"\r\n")
        if not found:
            return body, False
        length = int(line.partition(b";")[0], 16)
        if length == 0:
            return body, True
        body += rest[:length]
        if len(rest) < length + 2:
            return body, False
        rest = rest[length + 2 :]
