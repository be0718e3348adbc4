"""WSGI: what completes a response is held until its usage events are delivered."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from contextvars import copy_context
from io import IOBase

from ._handlers.response import ResponseProgress, content_length
from ._handlers.wrap import begin_invocation
from ._middleware import Middleware

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextvars import Context
    from typing import Any, TypeAlias

    from typing_extensions import Unpack

    from ._api import ApiOptions
    from ._engine import Engine
    from ._handlers.invocation import Invocation
    from ._handlers.options import TrackedOptions

    StartResponse: TypeAlias = Callable[..., Callable[[bytes], object]]
    App: TypeAlias = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]

__all__ = ["DoowMiddleware"]


class DoowMiddleware(Middleware):
    """WSGI middleware: what a request records is delivered before its response is complete.

    ::

        app = Flask(__name__)
        app.wsgi_app = DoowMiddleware(app.wsgi_app)

    or ``application = DoowMiddleware(application)``, for any application and server of PEP 3333.

    Only the chunk that completes a response is held, for no longer than the budget: streams are
    never delayed. A response that is complete when the application returns (a list, another sized
    body, or none at all) is delivered, and its head passed to the server, before the call returns.
    What the response's ``close()`` records is delivered when it returns. Inside
    ``@doow.tracked``, or another of these, it records into the same buffer, and the outermost
    delivers, in one POST.

    Under ``on_exception="discard"``, what was recorded counts as soon as a response below 500 is
    complete, whatever ``close()`` raises afterwards.

    Not guaranteed: where a server never calls ``close()``, which PEP 3333 obliges it to, what a
    thread records after the response leaves with the next flush.

    Args:
        app: The application.
        **options: As of ``doow_serverless.tracked``: ``budget``, ``license_id``, ``attribution``,
            ``on_exception``, ``metric`` (one for each request), ``fold``, ``idempotent``,
            ``flush_mode``, ``tracker``.

    Raises:
        ConfigurationError: An option is wrong.
    """

    def __init__(self, app: App, **options: Unpack[ApiOptions]) -> None:
        super().__init__(**options)
        self.app = app

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        return serve(self.app, self.options, self.engine(), environ, start_response)


def serve(
    app: App,
    options: TrackedOptions,
    engine: Engine,
    environ: dict[str, Any],
    start_response: StartResponse,
) -> Iterable[bytes]:
    """Have ``app`` serve one request, and deliver what it records."""
    if not engine.config.enabled:
        return app(environ, start_response)
    # Adapters put Lambda's context there: apig-wsgi, serverless-wsgi, awsgi.
    contexts = ("apig_wsgi.context", "serverless.context", "awsgi.context")
    told = (environ, *(environ.get(name) for name in contexts))
    # A context of its own, since a server may iterate over several responses by turns.
    context = copy_context()
    invocation = begin_invocation(engine, options, told, {})
    exchange = _Exchange(invocation, environ, start_response)
    context.run(invocation.__enter__)
    try:
        result = context.run(app, environ, exchange.start_response)
    except BaseException as problem:
        exchange.end(type(problem))
        raise
    try:
        return _handed_over(result, exchange, context, environ)
    except BaseException:  # Of the server, which refuses the head, or of a signal.
        _Body(result, exchange, context).close()  # The server gets none that it could close.
        raise


def _handed_over(
    result: Any, exchange: _Exchange, context: Context, environ: dict[str, Any]
) -> Iterable[bytes]:
    """The body for the server, once the events of a response that is complete are delivered."""
    is_list = isinstance(result, (list, tuple)) and not hasattr(result, "close")
    if is_list or _is_file(result, environ):
        # All is recorded, and nothing but these bytes is to come. Untouched, since servers treat
        # them better: a list of one chunk gets its length, a file goes out by sendfile().
        exchange.end(None)
        return result  # type: ignore[no-any-return]
    body = (_SizedBody if hasattr(result, "__len__") else _Body)(result, exchange, context)
    if isinstance(result, list):
        exchange.complete()
        return _ClosingList(result, body.close)
    exchange.returned(is_sized=isinstance(body, _SizedBody))
    return body


def _is_file(result: object, environ: dict[str, Any]) -> bool:
    wrapper = environ.get("wsgi.file_wrapper")
    if isinstance(wrapper, type):
        return isinstance(result, wrapper)
    # That of uWSGI is a function, which returns the file itself.
    return wrapper is not None and isinstance(result, IOBase)


class _Exchange:
    """One request and its response, between the application and the server."""

    __slots__ = ("_head", "_invocation", "_response", "_start_response", "_write")

    def __init__(
        self, invocation: Invocation, environ: dict[str, Any], start_response: StartResponse
    ) -> None:
        self._invocation = invocation
        self._start_response = start_response
        self._response = ResponseProgress(environ.get("REQUEST_METHOD", "GET"))
        self._head: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self._write: Callable[[bytes], object] | None = None

    def start_response(self, *head: Any, **named: Any) -> Callable[[bytes], object]:
        """The application's ``start_response``.

        Some servers, as Vercel's, send the head at once. A head that completes the response is kept
        until the application returns, writes, or, as a generator, has run to its first chunk.
        """
        if self._head is not None:
            # This one replaces it: the server must know, and may have sent it by then.
            self._flush()
            self._send_head()
        self._begin(*head)
        if self._response.is_bodiless:
            self._head = head, named
        else:
            self._write = self._start_response(*head, **named)
        return self.write

    def write(self, chunk: bytes) -> object:
        """The application's ``write``."""
        self.hold(chunk)
        # None under some servers, as Granian: it fails as it would without us.
        return self._write(chunk)  # type: ignore[misc]

    def returned(self, *, is_sized: bool) -> None:
        """Deliver what was recorded, and send the head, if the response is complete by now.

        Some servers read status and headers as soon as the application returns (Granian, awsgi).
        An iteration over a sized body may still fail, so ``on_exception="discard"`` waits for it.
        """
        is_bodiless = self._response.is_bodiless
        if is_bodiless or is_sized:
            self._flush(is_undecided=not is_bodiless)
            self._send_head()

    def hold(self, chunk: bytes, *, last: bool = False) -> None:
        """Deliver what was recorded, if ``chunk`` completes the response, as the ``last`` does."""
        # What is no bytes is for the server to refuse, or to pass over.
        is_bytes = isinstance(chunk, (bytes, bytearray, memoryview))
        size = len(chunk) if is_bytes else 0
        if self._response.completes(size, last=last):
            self._flush()
        self._send_head()

    def complete(self) -> None:
        """Deliver what was recorded: no more chunks will come, and maybe no ``close()``."""
        self._flush(last=True)
        self._send_head()

    def end(self, problem: type[BaseException] | None) -> None:
        """Deliver what else was recorded; again where an exception is followed by ``close()``."""
        self._invocation.__exit__(problem)
        # The application's own exception is the one to tell.
        with nullcontext() if problem is None else suppress(Exception):
            self._send_head()

    def _flush(self, *, is_undecided: bool = False, last: bool = False) -> None:
        is_undecided = is_undecided or self._response.status >= 500
        self._invocation.flush(is_undecided=is_undecided, last=last)

    def _begin(self, status: Any = "", headers: Any = (), *_: Any) -> None:
        with suppress(Exception):  # What is malformed is for the server to refuse.
            self._response.begin(int(status[:3]), content_length(headers, "content-length"))

    def _send_head(self) -> None:
        if self._head is not None:
            (head, named), self._head = self._head, None
            self._write = self._start_response(*head, **named)


class _Body:
    """The chunks of a response, of which the one that completes it is held."""

    def __init__(
        self, chunks: Iterable[bytes], exchange: _Exchange, context: Context, count: int = 0
    ) -> None:
        self._chunks = chunks
        self._iterator: Iterator[bytes] | None = None
        self._exchange = exchange
        self._context = context
        self._left = count

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._iterator is None:
                self._iterator = self._context.run(iter, self._chunks)
            chunk = self._context.run(next, self._iterator)
        except StopIteration:
            self._exchange.complete()
            raise
        except BaseException as problem:
            self._exchange.end(type(problem))
            raise
        self._left -= 1
        self._exchange.hold(chunk, last=self._left == 0)
        return chunk

    def close(self) -> None:
        """Close the application's response, and deliver what that records."""
        problem: type[BaseException] | None = None
        try:
            close = getattr(self._chunks, "close", None)
            if close is not None:
                self._context.run(close)
        except BaseException as raised:
            problem = type(raised)
            raise
        finally:
            self._exchange.end(problem)


class _SizedBody(_Body):
    """One whose number of chunks is known, of which servers make a Content-Length.

    Some ask for its chunks twice (gevent), so each iteration is a new one, as of the original.
    """

    def __len__(self) -> int:
        return len(self._chunks)  # type: ignore[arg-type]  # it was found to have one

    def __iter__(self) -> Iterator[bytes]:
        return _Body(self._chunks, self._exchange, self._context, len(self))


class _ClosingList(list):  # type: ignore[type-arg]
    """A list with a ``close()``. Granian sends a list whole, and anything else in chunks."""

    def __init__(self, chunks: list[bytes], close: Callable[[], None]) -> None:
        super().__init__(chunks)
        self.close = close
