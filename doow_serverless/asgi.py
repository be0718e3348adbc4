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
    never delayed. The head of a response without a body, as that to HEAD, goes with the next
    message. What background tasks record after it is delivered when the application returns.
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
                await _serve_http(app, invocation, scope, receive, send)


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


async def _serve_http(
    app: App, invocation: Invocation, scope: MutableMapping[str, Any], receive: Receive, send: Send
) -> None:
    exchange = _Exchange(invocation, scope.get("method", "GET"), send)
    try:
        await app(scope, receive, exchange)
    except GeneratorExit:  # Nothing may be awaited any more.
        raise
    except BaseException:
        with suppress(BaseException):  # The application's own exception is the one to tell.
            await exchange.release()
        raise
    await exchange.release()


class _Exchange:
    """The ``send`` of one HTTP exchange."""

    __slots__ = ("_has_trailers", "_head", "_invocation", "_response", "_send", "_turn")

    def __init__(self, invocation: Invocation, method: str, send: Send) -> None:
        self._invocation = invocation
        self._send = send
        self._response = ResponseProgress(method)
        self._has_trailers = False
        self._head: Message | None = None
        # Messages of several tasks keep their order, although one of them waits for a flush.
        self._turn = new_lock()

    async def __call__(self, message: Message) -> None:
        async with self._turn:
            is_complete = self._completes(message)
            if self._head is not None or is_complete:
                await self._invocation.aflush(is_undecided=self._response.status >= 500)
                await self._send_head()
            if message.get("type") == "http.response.start" and self._response.is_bodiless:
                # The client waits for nothing else. Servers, too, may keep it until the body:
                # https://asgi.readthedocs.io/en/latest/specs/www.html#response-start-send-event
                self._head = message
            else:
                await self._send(message)

    async def release(self) -> None:
        """Send what is still held, since the application has said all that it will say."""
        if self._head is not None:
            await self._invocation.aflush(is_undecided=self._response.status >= 500)
            await self._send_head()

    async def _send_head(self) -> None:
        if self._head is not None:
            head, self._head = self._head, None
            await self._send(head)

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
            elif kind == "http.response.trailers":
                return self._response.completes(0, last=not message.get("more_trailers"))
            elif kind == "http.response.pathsend":
                return self._response.completes(0, last=True)
            elif kind == "http.response.zerocopysend":
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
