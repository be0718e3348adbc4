"""A WSGI server that writes down all that happens, in order."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any
from wsgiref.util import FileWrapper

from tests.metering import unmetered

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.metering import Trace


def environ(method: str = "GET", **more: Any) -> dict[str, Any]:
    """What a server tells of a request."""
    return {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
        **more,
    }


def call(app: Any, start_response: Any = lambda *_: None, **more: Any) -> Any:
    """What the application returns to a server that takes everything."""
    return app(environ(**more), start_response)


class Server:
    """Serves single requests as PEP 3333 says.

    Args:
        app: The application.
        trace: Where to write down what goes to the client.
        is_eager: Whether the head goes out at ``start_response``, as Vercel's server has it, not
            with the first bytes of the body.
        closes: Whether it calls ``close()``, as it should.
    """

    def __init__(
        self, app: Any, trace: Trace | None = None, *, is_eager: bool = False, closes: bool = True
    ) -> None:
        self._app = app
        self._trace = trace
        self._is_eager = is_eager
        self._closes = closes

    def get(self, method: str = "GET", *, chunks: int | None = None, **more: Any) -> bytes:
        """The response as it goes over the wire; ``chunks``: after so many the client is gone."""
        response = _Response(self._trace, self._is_eager)
        result: Any = None
        try:
            try:
                result = self._app(environ(method, **more), response.start_response)
                for number, chunk in enumerate(result, 1):
                    if chunk:
                        response.write(chunk)
                    if number == chunks:
                        return bytes(response.sent)
                response.end()
            except BaseException as problem:
                response.note("raised", type(problem))
                raise
            finally:
                if self._closes and hasattr(result, "close"):
                    result.close()
        finally:
            response.note("over")
        return bytes(response.sent)


def bare(app: Any, method: str = "GET", **more: Any) -> bytes:
    """The response of an application that is not metered."""
    with unmetered():
        return Server(app).get(method, **more)


class _Response:
    def __init__(self, trace: Trace | None, is_eager: bool) -> None:
        self.sent = bytearray()
        self.note: Callable[..., None] = (lambda *_: None) if trace is None else trace.note
        self._is_eager = is_eager
        self._head: tuple[str, list[tuple[str, str]]] | None = None
        self._is_head_sent = False

    def start_response(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        if exc_info and self._is_head_sent:
            raise exc_info[1].with_traceback(exc_info[2])
        assert exc_info or self._head is None, "start_response was called before"
        self._head = (status, list(headers))
        if self._is_eager:
            self._send_head()
        return self.write

    def write(self, chunk: bytes) -> None:
        self._send_head()
        self.note("chunk", chunk)
        self.sent += chunk

    def end(self) -> None:
        self._send_head()
        self.note("end")

    def _send_head(self) -> None:
        if not self._is_head_sent:
            assert self._head is not None, "start_response was not called"
            self._is_head_sent = True
            status, headers = self._head
            self.note("head", status)
            lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers)]
            self.sent += "\r\n".join([*lines, "\r\n"]).encode("latin-1")
