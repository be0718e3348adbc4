"""Code after the response on Lambda: an internal extension, for which the sandbox stays awake.

Lambda freezes a sandbox once its runtime *and* each of its extensions have asked for their next
event. An internal extension is a thread of the function's own process, which asks for its own only
when it has delivered what the invocation handed over.
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from functools import wraps
from http.client import HTTPConnection, HTTPException, HTTPResponse

from doow_serverless._process import init_phase
from doow_serverless._process.forks import reset_in_child
from doow_serverless._process.log import report_fault, warn
from doow_serverless._redaction import clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    # Takes the deadline of the invocation, on the monotonic clock.
    Job = Callable[[float], None]

NAME = "doow-serverless"
_PATH = "/2020-01-01/extension"
_REGISTER_LIMIT_S = 2.0
_LONGEST_PAUSE_S = 1.0
_CLIENT = "awslambdaric.lambda_runtime_client"
"""AWS's client of the Runtime API, whose own loop calls the handler."""


class Refused(Exception):
    """Lambda does not know this extension, or does not take it."""


class Invocations:
    """What the runtime's client is doing, as the threads of the process can know it.

    Attributes:
        changed: Held to read and to change the rest; notified when an invocation is over.
        running: The request id of the invocation that runs; None between two.
        over: That of the last one whose response has been sent.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.Lock())
        self.running: str | None = None
        self.over: str | None = None

    def __repr__(self) -> str:
        return f"Invocations(running={self.running!r}, over={self.over!r})"

    def end(self) -> None:
        """The response has been sent, and the client is about to ask for the next event."""
        with self.changed:
            self.over, self.running = self.running, None
            self.changed.notify_all()

    def begin(self, request_id: str) -> None:
        """The client has an event, and is about to call the handler."""
        with self.changed:
            self.running = request_id

    def wait_until_over(self, request_id: str, ends_at: float) -> None:
        """Wait for the response to ``request_id``, or the deadline, on the monotonic clock."""
        with self.changed:
            self.changed.wait_for(lambda: self.over == request_id, ends_at - time.monotonic())


class Extension:
    """A thread that delivers what invocations hand over, once their response has been sent.

    Args:
        client: Asks for the next event, for as long as it takes.
        invocations: Those of this process.
    """

    def __init__(self, client: ExtensionClient, invocations: Invocations) -> None:
        self._client = client
        self._invocations = invocations
        self._jobs: list[Job] = []
        self._is_listening = True
        self._left: str | None = None

    def __repr__(self) -> str:
        return f"Extension({self._invocations!r}, {len(self._jobs)} jobs)"

    def take(self, job: Job) -> bool:
        """Whether ``job`` will be called after the response, before the sandbox is frozen."""
        with self._invocations.changed:
            running = self._invocations.running
            if running in (None, self._left) or not self._is_listening:
                return False
            self._jobs.append(job)
            return True

    def run(self) -> None:
        """Serve one invocation after the other, until Lambda refuses to give another."""
        try:
            while True:
                request_id, ends_at = self._client.next_event()
                self._invocations.wait_until_over(request_id, ends_at)
                self._do_all(request_id, ends_at)
        except Refused as problem:
            warn(f"flush_mode='after_response' is over, since Lambda gives no events ({problem})")
        finally:
            self._client.close()
            with self._invocations.changed:
                self._is_listening = False
            self._do_all(None, 0.0)  # What was handed over meanwhile is written down.

    def _do_all(self, request_id: str | None, ends_at: float) -> None:
        with self._invocations.changed:
            self._left = request_id
            jobs, self._jobs = self._jobs, []
        for job in jobs:
            try:
                job(ends_at)
            except Exception as fault:
                report_fault("delivering after the response", fault)


class ExtensionClient:
    """Speaks Lambda's Extensions API.

    By `http.client`, which is a fraction of the work of `requests`: it is done for each invocation,
    beside the handler, on whatever part of a core there is.

    Args:
        address: Host and port, as ``AWS_LAMBDA_RUNTIME_API`` has them.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._identifier = ""
        self._connection: HTTPConnection | None = None

    def __repr__(self) -> str:
        return f"ExtensionClient({self._address!r})"

    def register(self) -> None:
        """Register for invocations.

        Raises:
            Refused: Lambda does not take it, or cannot be reached.
        """
        connection = HTTPConnection(self._address, timeout=_REGISTER_LIMIT_S)
        try:
            headers = {"Lambda-Extension-Name": NAME, "Content-Type": "application/json"}
            connection.request("POST", f"{_PATH}/register", '{"events": ["INVOKE"]}', headers)
            response = connection.getresponse()
            body = response.read()
        except (OSError, HTTPException) as problem:
            raise Refused(f"the Runtime API could not be reached ({problem})") from None
        finally:
            connection.close()
        if response.status != 200:
            raise Refused(_said(response, body))
        self._identifier = response.headers["Lambda-Extension-Identifier"]

    def next_event(self) -> tuple[str, float]:
        """Wait for the next invocation: its request id, and its deadline on the monotonic clock.

        A broken connection is made anew: an extension that asks for nothing would have Lambda wait
        for it until the function times out.

        Raises:
            Refused: Lambda does not know the extension, or is ending.
        """
        pause_s = 0.01
        while True:
            try:
                response, body = self._get_next()
            except (OSError, HTTPException):
                self.close()
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                continue
            if response.status != 200:
                raise Refused(_said(response, body))
            event = json.loads(body)
            left_s = event["deadlineMs"] / 1000 - time.time()
            return str(event["requestId"]), time.monotonic() + left_s

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _get_next(self) -> tuple[HTTPResponse, bytes]:
        if self._connection is None:
            # No limit of time: the sandbox may stand still for hours meanwhile.
            self._connection = HTTPConnection(self._address, timeout=None)
        headers = {"Lambda-Extension-Identifier": self._identifier}
        self._connection.request("GET", f"{_PATH}/event/next", headers=headers)
        response = self._connection.getresponse()
        return response, response.read()


def _said(response: HTTPResponse, body: bytes) -> str:
    return clean(f"HTTP {response.status}: {body[:200].decode(errors='replace')}")


_registering = threading.Lock()
_extension: Extension | None = None
_obstacle = (
    "Lambda takes extensions in the init phase alone, and it was asked for later: set "
    "DOOW_TRACK_FLUSH_MODE=after_response, or call doow.configure(flush_mode='after_response') "
    "while your module loads"
)
"""Why there is none."""


def register() -> None:
    """Have an extension, if that is possible, before the init phase is over. Once a process."""
    global _extension, _obstacle
    with _registering:
        if _extension is None and init_phase.is_on():
            try:
                _extension = _registered()
            except Refused as problem:
                _obstacle = str(problem)


def take(job: Job) -> str | None:
    """Have ``job`` called after the response to the invocation that runs.

    Returns:
        None where it will be; else why not, in words.
    """
    if _extension is None:
        return _obstacle
    return None if _extension.take(job) else "Lambda has no invocation that could be waited for"


def _registered() -> Extension:
    if "AWS_LAMBDA_MAX_CONCURRENCY" in os.environ:
        raise Refused("on Managed Instances, extensions of a function hear of no invocation")
    client_class = getattr(sys.modules.get(_CLIENT), "LambdaRuntimeClient", None)
    if not hasattr(client_class, "wait_next_invocation"):
        raise Refused("the runtime is not AWS's own client, which tells when a response is sent")
    client = ExtensionClient(os.environ["AWS_LAMBDA_RUNTIME_API"])
    client.register()
    invocations = Invocations()
    _observe(client_class, invocations)
    extension = Extension(client, invocations)
    # Lambda waits for it before the first invocation, and so does what comes after this.
    threading.Thread(target=extension.run, name="doow-extension", daemon=True).start()
    return extension


def _observe(client_class: Any, invocations: Invocations) -> None:
    """Have ``invocations`` know what the runtime's client does.

    Nothing else says when the response has been sent: neither Lambda, to an internal extension, nor
    a wrapper, which not every invocation calls (an idempotent one that is replayed, for one).
    """
    wait = client_class.wait_next_invocation

    @wraps(wait)
    def wait_next_invocation(client: Any) -> Any:
        invocations.end()
        request = wait(client)
        invocations.begin(str(request.invoke_id))
        return request

    client_class.wait_next_invocation = wait_next_invocation


@reset_in_child
def _leave_to_parent() -> None:
    """The thread, and the invocations, stayed with the parent."""
    global _registering, _extension, _obstacle
    _registering = threading.Lock()
    if _extension is not None:
        _extension, _obstacle = None, "a forked process has none"
