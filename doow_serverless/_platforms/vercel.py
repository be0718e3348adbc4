"""Vercel: handler classes, the deadline and the identity of a request, code after the response."""

from __future__ import annotations

import os
import sys
from time import monotonic, time

from doow_serverless._callables import dressed
from doow_serverless._handlers.http1 import Http1Progress
from doow_serverless._handlers.wrap import begin_invocation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from typing_extensions import Self

    from doow_serverless._engine import Engine
    from doow_serverless._handlers.invocation import Invocation
    from doow_serverless._handlers.options import TrackedOptions
    from doow_serverless._handlers.platform import Deferred
    from doow_serverless._recording.ids import Identity


def adapt(handler_class: Any, options: TrackedOptions, engine: Callable[[], Engine]) -> Any:
    """Track the ``do_*`` methods of a ``BaseHTTPRequestHandler`` class; returns the same class.

    In place, since Vercel's build finds a class named ``handler`` in the source, and its runtime
    derives from it. Methods that are missing stay missing, and are answered with 501.
    """
    if not isinstance(handler_class, type):
        from doow_serverless.errors import ConfigurationError

        raise ConfigurationError(
            "tracked() takes a BaseHTTPRequestHandler class, not an instance of one: decorate "
            f"the class {type(handler_class).__name__}"
        )
    for name in dir(handler_class):
        method = getattr(handler_class, name)
        if name.startswith("do_") and callable(method):
            setattr(handler_class, name, _tracked_method(method, options, engine))
    return handler_class


def _tracked_method(method: Any, options: TrackedOptions, engine: Callable[[], Engine]) -> Any:
    def tracked_method(self: Any, *args: Any, **kwargs: Any) -> Any:
        with begin_invocation(engine(), options, (self,), {}) as invocation:
            held = self.wfile = _Held(self.wfile, getattr(self, "command", ""), invocation)
            try:
                return method(self, *args, **kwargs)
            finally:
                if self.wfile is held:
                    self.wfile = held.file

    return dressed(tracked_method, method)


class _Held:
    """The ``wfile`` of a handler: a write that completes the response waits for the flush."""

    def __init__(self, file: Any, method: str, invocation: Invocation) -> None:
        self.file = file
        self._invocation = invocation
        self._response = Http1Progress(method)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> Self:
        self.file.__enter__()
        return self

    def __exit__(self, *raised: object) -> Any:
        return self.file.__exit__(*raised)

    def write(self, data: Any) -> Any:
        """Write to the file underneath; first deliver, if this completes the response."""
        try:
            completes = self._response.completes(data)
        except (TypeError, ValueError):
            completes = False  # No bytes, or no HTTP: for the file and the client to refuse.
        if completes:
            self._invocation.flush(is_undecided=self._response.status >= 500)
        return self.file.write(data)

    def writelines(self, lines: Iterable[Any]) -> None:
        """Write each line, as :meth:`write` does."""
        for line in lines:
            self.write(line)


def prepare(handler: Any, _options: TrackedOptions) -> Any:
    """``handler`` as it is: classes and applications have ways of their own."""
    return handler


def find_deadline(_args: tuple[Any, ...], _kwargs: dict[str, Any]) -> float | None:
    """When Vercel kills the function, on the monotonic clock, where its runtime tells.

    Since version 0.22.1 it does (``vercel_runtime.get_deadline``), by the wall clock, which may be
    set meanwhile.
    """
    get_deadline = getattr(sys.modules.get("vercel_runtime"), "get_deadline", None)
    deadline = None if get_deadline is None else get_deadline()
    return None if deadline is None else monotonic() + deadline.timestamp() - time()


def find_identity(args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Identity | None:
    """The path, and what Vercel calls the request (the header ``x-vercel-id``).

    Only on Vercel: anywhere else a client could set the header, and have requests that
    it makes under one name counted as one.
    """
    if "vercel_runtime" not in sys.modules and not os.environ.get("VERCEL"):
        return None
    for argument in args:
        path, request_id = _request(argument)
        if request_id:
            return path, f"request:{request_id}"
    return None


def _request(argument: Any) -> tuple[str, str | None]:
    """Path and request id: of a handler, a WSGI environ or an ASGI scope."""
    if not isinstance(argument, dict):
        get = getattr(getattr(argument, "headers", None), "get", None)
        return str(getattr(argument, "path", "")), None if get is None else get("x-vercel-id")
    if "wsgi.version" in argument:
        return argument.get("PATH_INFO", ""), argument.get("HTTP_X_VERCEL_ID")
    headers = argument.get("headers", ())
    found = next((value for name, value in headers if name == b"x-vercel-id"), b"")
    return argument.get("path", ""), found.decode("latin-1")


def after_response(invocation: Deferred) -> str | None:
    """Have Vercel run the flush of ``invocation`` when the response has gone back.

    Through ``vercel.functions.wait_until`` (package ``vercel``, 0.8 and later), which outside of a
    request closes what it is given, without a word. Not in the mode in which the runtime is called
    as a Lambda function: there the invocation ends with the response, whatever waits.

    Returns:
        Why not, in words; None where it will be.
    """
    if hasattr(sys.modules.get("vercel_runtime.vc_init"), "vc_handler"):
        return "the runtime is called as a Lambda function, and ends with the response"
    from inspect import CORO_CLOSED, getcoroutinestate

    try:
        from vercel.functions import wait_until
    except ImportError:
        return "it needs the package vercel, 0.8 or later"
    flush = invocation.aflush_after_response()
    try:
        wait_until(flush)
    except RuntimeError:  # The invocation has ended already.
        flush.close()
    return "there is no request" if getcoroutinestate(flush) == CORO_CLOSED else None
