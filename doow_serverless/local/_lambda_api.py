"""Lambda's Runtime and Extensions APIs: a process asks for events there, and answers them."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from doow_serverless.local._server import ServerThread

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Message, Receive, Scope, Send

    from doow_serverless.local._lambda_invocation import Turn

_PATH = "/2018-06-01/runtime"
_EXTENSION_PATH = "/2020-01-01/extension"
_RUNTIME = "runtime"
"""Who asks for the next event, where it is the runtime and not an extension."""
MAX_EXTENSIONS = 10


class RuntimeApi:
    """The APIs as far as a runtime client and internal extensions use them, for one process.

    A server for each process, so that a request of a dead one can never take an event away.

    Args:
        on_idle: Called when the last of them, the runtime and its extensions, asks for its next
            event, before it waits for it.
        on_change: Called whenever the process has said something.
        restore: Called when the process is ready for its snapshot, before it goes on from there.

    Attributes:
        address: What the process finds in ``AWS_LAMBDA_RUNTIME_API``.
        init_error: The error document of a module that could not be imported.
    """

    def __init__(
        self,
        *,
        on_idle: Callable[[], None],
        on_change: Callable[[], None],
        restore: Callable[[], None] = lambda: None,
    ) -> None:
        self.init_error: dict[str, Any] | None = None
        self._on_idle = on_idle
        self._on_change = on_change
        self._restore = restore
        self._turn: Turn | None = None
        self._expected = {_RUNTIME}
        self._polls: dict[str, Future[Turn | None]] = {}  # those whose /next waits
        self._is_initialised = False
        self._server = ServerThread(self._application())
        self.address = f"127.0.0.1:{self._server.port}"

    def listen(self) -> None:
        """Let the process connect; it is served from :meth:`start` on."""
        self._server.listen()

    def start(self) -> None:
        """Serve from a thread."""
        self._server.start()

    def close(self) -> None:
        """Let nobody wait, and stop serving."""
        self._answer_polls(None)
        self._server.stop()

    @property
    def is_polled(self) -> bool:
        """Whether the process, with all its extensions, waits for an event."""
        return self._expected <= self._polls.keys()

    def deliver(self, turn: Turn) -> None:
        """Answer the process that waits, and expect its answer."""
        assert self.is_polled  # the caller has waited for it
        self._turn = turn
        self._answer_polls(turn)

    def _answer_polls(self, turn: Turn | None) -> None:
        polls, self._polls = self._polls, {}
        for poll in polls.values():
            poll.set_result(turn)

    def withdraw(self) -> None:
        """Take no answer any more to what was delivered."""
        self._turn = None

    def _application(self) -> Starlette:
        invocation = f"{_PATH}/invocation"
        return Starlette(
            routes=[
                Route(f"{invocation}/next", self._next),
                Route(f"{invocation}/{{request_id}}/response", self._answer, methods=["POST"]),
                Route(f"{invocation}/{{request_id}}/error", self._answer, methods=["POST"]),
                Route(f"{_PATH}/init/error", self._init_failed, methods=["POST"]),
                Route(f"{_PATH}/restore/next", self._restore_next),
                Route(f"{_PATH}/restore/error", self._init_failed, methods=["POST"]),
                Route(f"{_EXTENSION_PATH}/register", self._register, methods=["POST"]),
                Route(f"{_EXTENSION_PATH}/event/next", self._next_of_extension),
            ]
        )

    async def _poll(self, who: str) -> Turn | None:
        """Wait for the next event; the last who does has the process stand still."""
        poll: Future[Turn | None] = Future()
        if self._expected <= {*self._polls, who}:
            self._on_idle()
        self._polls[who] = poll
        self._on_change()
        return await asyncio.wrap_future(poll)

    async def _next(self, _: Request) -> Response:
        self._is_initialised = True
        turn = await self._poll(_RUNTIME)
        return _Delivery(turn) if turn is not None else Response(status_code=410)

    async def _register(self, request: Request) -> Response:
        events = (await request.json()).get("events", [])
        if not request.headers.get("Lambda-Extension-Name"):
            return _refusal(400, "Extension.MissingHeader", "Empty extension name")
        if "SHUTDOWN" in events:
            kind = "ShutdownEventNotSupportedForInternalExtension"
            return _refusal(400, kind, "internal extensions hear of no shutdown")
        if self._is_initialised:
            return _refusal(403, "Extension.RegistrationClosed", "the runtime is initialised")
        if len(self._expected) > MAX_EXTENSIONS:
            return _refusal(403, "Extension.TooManyExtensions", "Extension limit reached")
        identifier = str(uuid.uuid4())
        self._expected.add(identifier)
        return JSONResponse({}, headers={"Lambda-Extension-Identifier": identifier})

    async def _next_of_extension(self, request: Request) -> Response:
        identifier = request.headers.get("Lambda-Extension-Identifier", "")
        if identifier not in self._expected:
            return _refusal(403, "Extension.UnknownExtensionIdentifier", "Unknown extension")
        turn = await self._poll(identifier)
        if turn is None:
            return Response(status_code=410)
        return JSONResponse(
            {
                "eventType": "INVOKE",
                "deadlineMs": _deadline_ms(turn),
                "requestId": turn.request_id,
                "invokedFunctionArn": turn.arn,
            },
            headers={"Lambda-Extension-Event-Identifier": str(uuid.uuid4())},
        )

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
        self._on_change()
        return JSONResponse({"status": "OK"}, status_code=202)

    async def _restore_next(self, _: Request) -> Response:
        await asyncio.to_thread(self._restore)
        return Response()

    async def _init_failed(self, request: Request) -> Response:
        self.init_error = await request.json()
        return JSONResponse({"status": "OK"}, status_code=202)


def _refusal(status: int, kind: str, message: str) -> Response:
    return JSONResponse({"errorType": kind, "errorMessage": message}, status_code=status)


def _deadline_ms(turn: Turn) -> int:
    """The deadline in milliseconds since the epoch."""
    return int((time.time() + turn.due_s - time.monotonic()) * 1000)


class _Delivery(Response):
    """The answer to ``/next``: stamps the moment in which the event itself leaves."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        super().__init__(
            turn.event,
            media_type="application/json",
            headers={
                "Lambda-Runtime-Aws-Request-Id": turn.request_id,
                "Lambda-Runtime-Deadline-Ms": str(_deadline_ms(turn)),
                "Lambda-Runtime-Invoked-Function-Arn": turn.arn,
            },
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.body":
                self._turn.delivered_s = time.monotonic()
            await send(message)

        await super().__call__(scope, receive, stamped)
