"""One kept connection, an adapter of requests, with its faults in our own terms."""

from __future__ import annotations

import http.client
import socket
import zlib
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from requests import PreparedRequest, exceptions
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3 import exceptions as urllib3_exceptions

from doow_serverless.errors import ErrorKind

from .answers import Answer, TransportFault

if TYPE_CHECKING:
    import ssl

MAX_ANSWER_BYTES = 1024 * 1024
"""Bytes of an answer that are read: room for 500 rejections with a reason of 2,000 letters each."""


class Connection(HTTPAdapter):
    """An adapter of requests that holds one connection, made with our own TLS context."""

    def __init__(self, tls: ssl.SSLContext | None, proxies: dict[str, str]) -> None:
        super().__init__(pool_connections=1, pool_maxsize=1)
        self._tls = tls
        self._proxies = proxies
        self._live: Any = None
        self.was_used = False
        self.is_kept = False
        """Whether the server keeps the connection open for the next POST."""

    def post(self, url: str, body: bytes, headers: dict[str, str], timeout_s: float) -> Answer:
        """POST, and read the whole answer.

        Raises:
            TransportFault: No whole answer came back.
        """
        request = _prepared(url, body, headers)
        try:
            response = self.send(request, stream=True, timeout=timeout_s, proxies=self._proxies)
            content = response.raw.read(MAX_ANSWER_BYTES, decode_content=False)
            is_cut = bool(response.raw.read(1))
            if is_cut:
                response.raw.close()
        except Exception as problem:
            is_made = getattr(self._live, "is_made", False)
            raise TransportFault(*_told(problem), is_unsent=not is_made) from None
        self.was_used = True
        self.is_kept = not is_cut and getattr(self._live, "sock", None) is not None
        names = {name.lower(): value for name, value in response.headers.items()}
        if names.get("content-encoding", "").lower() == "gzip":
            content, is_cut = _unzipped(content)
        return Answer(response.status_code, names, content, is_cut=is_cut)

    def abort(self) -> None:
        """Wake the thread that waits for the answer, with an error."""
        sock = getattr(self._live, "sock", None)
        if sock is not None:
            with suppress(OSError):  # Gone already is all that was wanted.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def build_connection_pool_key_attributes(
        self, request: PreparedRequest, verify: bool | str, cert: Any = None
    ) -> Any:
        """As requests does, but with our context, which holds the certificates already."""
        host, tls = super().build_connection_pool_key_attributes(request, verify, cert)
        if self._tls is not None:
            return host, {"ssl_context": self._tls, "cert_reqs": "CERT_REQUIRED"}
        return host, tls

    def cert_verify(self, *_: Any, **__: Any) -> None:
        """Do nothing: requests would have the certificates read from disk for each connection."""

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """As requests does, and remember the connection underneath for :meth:`abort`."""
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        if not isinstance(pool.ConnectionCls, _Remembering):
            pool.ConnectionCls = _Remembering(pool.ConnectionCls, self)
        return pool

    def remember(self, live: Any) -> None:
        """Note the connection that urllib3 is about to make."""
        self._live = live


class _Remembering:
    """Makes connections as urllib3 would, and tells the adapter of each."""

    def __init__(self, made: Any, adapter: Connection) -> None:
        self._made = _telling(made)
        self._adapter = adapter

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        live = self._made(*args, **kwargs)
        self._adapter.remember(live)
        return live


class _FinalResponse(http.client.HTTPResponse):
    """Passes over all interim answers; the one of the standard library knows 100 alone."""

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]  # not in typeshed
            if status in (http.client.CONTINUE, http.client.SWITCHING_PROTOCOLS) or status >= 200:
                return version, status, reason
            http.client.parse_headers(self.fp)


class _Telling:
    """A part of a connection of urllib3's that tells whether it came about, TLS included."""

    response_class = _FinalResponse
    is_made = False

    def connect(self) -> None:
        self.is_made = False
        super().connect()  # type: ignore[misc]  # of the connection that this is a part of
        self.is_made = True


@cache
def _telling(made: type) -> type:
    """The same kind of connection, be it plain, with TLS or through SOCKS, that tells."""
    return type(made.__name__, (_Telling, made), {})


def _unzipped(content: bytes) -> tuple[bytes, bool]:
    """What gzip holds, though it was not asked for, and whether that is cut off."""
    unzip = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        return unzip.decompress(content, MAX_ANSWER_BYTES), not unzip.eof
    except zlib.error:
        return b"", True


def _told(problem: Exception) -> tuple[ErrorKind, str]:
    """An exception of requests, urllib3, ssl or the system in our own terms: kind and words."""
    timeouts = (exceptions.Timeout, urllib3_exceptions.TimeoutError, TimeoutError)
    network = (
        exceptions.ConnectionError,
        exceptions.ChunkedEncodingError,
        urllib3_exceptions.HTTPError,
        OSError,
    )
    # urllib3 counts a name that does not resolve among the timeouts of connecting.
    if isinstance(problem, timeouts) and not isinstance(_root(problem), socket.gaierror):
        return ErrorKind.TIMEOUT, "the server did not answer in time"
    # requests raises its own errors for a bad URL or proxy, which are OSErrors by descent.
    if isinstance(problem, network) and not isinstance(problem, ValueError):
        return ErrorKind.NETWORK_ERROR, _words(problem)
    return ErrorKind.TRANSPORT_ERROR, _words(problem)


def _root(problem: BaseException) -> BaseException:
    """The innermost cause, which says most in the fewest words."""
    seen = {id(problem)}
    while True:
        causes = (getattr(problem, "reason", None), *problem.args, problem.__cause__)
        causes = (*causes, problem.__context__)
        inner = next((cause for cause in causes if isinstance(cause, BaseException)), None)
        if inner is None or id(inner) in seen:
            return problem
        seen.add(id(inner))
        problem = inner


def _words(problem: Exception) -> str:
    """What happened, without the URL and the headers that exceptions of requests carry along."""
    root = _root(problem)
    if isinstance(root, OSError) and root.strerror:
        return f"{type(root).__name__}: {root.strerror}"
    return type(root).__name__


def _prepared(url: str, body: bytes, headers: dict[str, str]) -> PreparedRequest:
    # Filled by hand: Request.prepare() takes longer than sending does, and a Session would consult
    # .netrc, keep cookies and follow redirects.
    request = PreparedRequest()
    request.method = "POST"
    request.url = url
    request.headers = CaseInsensitiveDict(headers)
    request.headers["Content-Length"] = str(len(body))
    request.body = body
    return request
