"""ASGI: what completes a response is held until its usage events are delivered."""

from __future__ import annotations

from contextlib import suppress

from ._delivery.async_wait import new_lock
from ._handlers.invocation import Invocation
from ._handlers.options import TrackedOptions
from ._handlers.response import ResponseProgress, content_length
from ._handlers.wrap import begin_invocation
from ._middleware import Middleware
from ._recording.scope import current, leave

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping
    from typing import Any, TypeAlias

    from typing_extensions import Unpack

    from ._api import ApiOptions
    from ._engine import Engine

    Message: TypeAlias = MutableMapping[str, Any]
    Receive: TypeAlias = Callable[[], Awaitable[Message]]
    Send: TypeAlias = Callable[[Message], Awaitable[None]]
    App: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

__all__ = ["DoowMiddleware"]


class DoowMiddleware(Middleware):
    """ASGI middleware: what a request records is delivered before its response is complete.

    ::

        app = FastAPI()
        app.add_middleware(DoowMiddleware)

    or ``app = DoowMiddleware(app)``, for any application and server of ASGI 3
    (https://asgi.readthedocs.io/en/latest/specs/www.html), on asyncio or trio.

    Only the message that completes a response is held, for no longer than the budget: streams are
    never delayed. Of a response without a body, as that to HEAD, that message is the start. What
    is recorded after it is delivered with the next message, or when the application returns.
    Websocket sessions deliver at their end, and every ``flush_interval`` seconds until then. Inside
    ``@doow.tracked``, or another of these, it records into the same buffer, and the outermost
    delivers, in one POST.

    Under ``on_exception="discard"``, what was recorded counts as soon as a response below 500 is
    complete, whatever background tasks raise afterwards.

    Not covered: what runs outside of it, such as middleware that was added later, or Starlette's
    handler of status 500; what that records leaves with the next flush.

    Args:
        app: The application.
        **options: As of ``doow_serverless.tracked``: ``budget``, ``license_id``, ``attribution``,
            ``on_exception``, ``metric`` (one for each request or session), ``fold``,
            ``idempotent``, ``flush_mode``, ``tracker``.

    Raises:
        ConfigurationError: An option is wrong.
    """

    def __init__(self, app: App, **options: Unpack[ApiOptions]) -> None:
        super().__init__(**options)
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one connection."""
        await serve(self.app, self.options, self.engine(), scope, receive, send)


async def serve(
    app: App,
    options: TrackedOptions,
    engine: Engine,
    scope: MutableMapping[str, Any],
    receive: Receive,
    send: Send,
) -> None:
    """Have ``app`` serve one connection, and deliver what it records."""
    kind = scope["type"]
    if not engine.config.enabled or kind not in ("http", "websocket", "lifespan"):
        await app(scope, receive, send)
    elif kind == "lifespan":
        await app(scope, receive, _Lifespan(engine, send))
    else:
        # Mangum puts there what Lambda told it.
        told = (scope, scope.get("aws.context"), scope.get("aws.event"))
        async with begin_invocation(engine, options, told, {}, scope) as invocation:
            send, receive = _around(send, invocation), _around(receive, invocation)
            if kind == "websocket":
                invocation.flush_every(engine.config.flush_interval_s)
                await app(scope, receive, _Session(invocation, send))
            else:
                exchange = _Exchange(invocation, scope.get("method", "GET"), send)
                await app(scope, receive, exchange)


def _around(
    call: Callable[..., Awaitable[Any]], invocation: Invocation
) -> Callable[..., Awaitable[Any]]:
    """``call``, which is of the code around ``invocation``, and runs in the scope of that.

    What a server sets up in it, such as a callback for the next request of a connection, keeps the
    context for good.
    """

    async def called(*args: Any) -> Any:
        token = current.set(invocation.outer)
        try:
            return await call(*args)
        finally:
            leave(token)

    return called


class _Exchange:
    """The ``send`` of one HTTP exchange."""

    __slots__ = ("_has_trailers", "_invocation", "_response", "_send", "_turn")

    def __init__(self, invocation: Invocation, method: str, send: Send) -> None:
        self._invocation = invocation
        self._send = send
        self._response = ResponseProgress(method)
        self._has_trailers = False
        # Messages of several tasks keep their order, although one of them waits for a flush.
        self._turn = new_lock()

    async def __call__(self, message: Message) -> None:
        async with self._turn:
            if self._completes(message):
                await self._invocation.aflush(is_undecided=self._response.status >= 500)
            await self._send(message)

    def _completes(self, message: Message) -> bool:
        """Whether the client has everything once it has ``message``."""
        # What is malformed is for the server to refuse.
        with suppress(Exception):
            kind = message["type"]
            if kind == "http.response.body":
                last = not message.get("more_body") and not self._has_trailers
                return self._response.completes(len(message.get("body") or b""), last=last)
            if kind == "http.response.start":
                length = content_length(message.get("headers", ()), b"content-length")
                self._response.begin(message.get("status"), length)
                self._has_trailers = bool(message.get("trailers"))
                # Not kept until the body, which may be long in coming, as that of an event stream
                # for HEAD. Servers that keep it find the next message held, too.
                return self._response.is_bodiless
            if kind == "http.response.trailers":
                return self._response.completes(0, last=not message.get("more_trailers"))
            if kind == "http.response.pathsend":
                return self._response.completes(0, last=True)
            if kind == "http.response.zerocopysend":
                sent = message.get("count") or 0
                return self._response.completes(sent, last=not message.get("more_body"))
        return False


class _Session:
    """The ``send`` of one websocket session."""

    __slots__ = ("_invocation", "_send")

    def __init__(self, invocation: Invocation, send: Send) -> None:
        self._invocation = invocation
        self._send = send

    async def __call__(self, message: Message) -> None:
        kind = message.get("type")
        denied = kind == "websocket.http.response.body" and not message.get("more_body")
        if kind == "websocket.close" or denied:
            await self._invocation.aflush()
        await self._send(message)


class _Lifespan:
    """The ``send`` of the application's own life, whose events belong to no request."""

    __slots__ = ("_engine", "_send")

    def __init__(self, engine: Engine, send: Send) -> None:
        self._engine = engine
        self._send = send

    async def __call__(self, message: Message) -> None:
        if str(message.get("type")).startswith("lifespan.shutdown."):
            # An invocation delivers unattended events, too. Mangum begins and ends a life for each
            # request, without a word of Lambda's deadline: that of the request is the one.
            async with Invocation(self._engine, TrackedOptions(), lambda: self._engine.ends_at):
                pass
        await self._send(message)
