"""One POST over a kept connection: the only file that imports requests, and so imported late.

A call here may block for as long as the network pleases: no timeout of a socket bounds a name that
does not resolve, nor an answer that drips. Whoever must be on time waits on another thread.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

import certifi
from requests import PreparedRequest, exceptions
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import get_environ_proxies
from urllib3 import exceptions as urllib3_exceptions

from doow_serverless._version import __version__
from doow_serverless.errors import ErrorKind

from .answers import Answer, TransportFault

if TYPE_CHECKING:
    from doow_serverless._sealing import Batch

MAX_ANSWER_BYTES = 256 * 1024
"""An answer of Doow is small: what is longer is not read to its end."""
MAX_IDLE_CONNECTIONS = 8


class HttpTransport:
    """POSTs batches to ``endpoint`` over connections that stay open from flush to flush.

    The certificates, and the proxies that the environment names, are read once.

    Args:
        endpoint: The URL below which the paths of the protocol lie.
        timeout_s: Seconds for which a socket may stay silent, and after which `reap` cuts it off.
        ca_bundle: A file or directory of certificates instead of certifi's.
    """

    def __init__(self, endpoint: str, *, timeout_s: float, ca_bundle: str | None = None) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()
        secure = endpoint.startswith("https:")
        self._tls = _tls_context(ca_bundle or certifi.where()) if secure else None
        # Plain http goes to loopback alone, where a proxy has no business.
        self._proxies: dict[str, str] = get_environ_proxies(endpoint) if secure else {}

    def connect(self, api_key: str) -> None:
        """Open a connection, TLS included, with the protocol's own greeting."""
        connection = self._connection(fresh=True)
        self._exchange(connection, "/telemetry/heartbeat", b"{}", _headers(api_key))

    def post(self, batch: Batch, api_key: str, *, fresh: bool = False) -> Answer:
        """Send ``batch``, on a new connection if ``fresh``.

        A kept connection that turns out dead is replaced once, at once.

        Raises:
            TransportFault: No whole answer came back.
        """
        headers = _headers(api_key, batch.sdk_version)
        if batch.gzipped:
            headers["Content-Encoding"] = "gzip"
        connection = self._connection(fresh)
        try:
            return self._exchange(connection, "/telemetry/events", batch.body, headers)
        except TransportFault as fault:
            if not connection.was_used or fault.kind is not ErrorKind.NETWORK_ERROR:
                raise
        # The server closed it while it was idle, or just as it was used: those that idled as long
        # are in no better state. The batch id makes the second POST safe.
        with self._lock:
            self._idle.clear()
        connection = self._connection(fresh=True)
        return self._exchange(connection, "/telemetry/events", batch.body, headers)

    def has_idle(self) -> bool:
        """Whether the next POST would go out on a kept connection, which may have died."""
        return bool(self._idle)

    def reap(self) -> None:
        """Close connections whose POST has gone on for longer than the timeout.

        An answer that drips keeps a socket's own timeout from ever coming.
        """
        overdue = monotonic() - self._timeout_s
        with self._lock:
            stuck = [connection for connection in self._busy if connection.began_at < overdue]
        for connection in stuck:
            connection.abort()

    def _connection(self, fresh: bool) -> _Connection:
        with self._lock:
            kept = self._idle.pop() if self._idle and not fresh else None
        return kept or _Connection(self._tls, self._proxies)

    def _exchange(
        self, connection: _Connection, path: str, body: bytes, headers: dict[str, str]
    ) -> Answer:
        connection.began_at = monotonic()
        with self._lock:
            self._busy.add(connection)
        try:
            answer = connection.post(self._endpoint + path, body, headers, self._timeout_s)
        finally:
            with self._lock:
                self._busy.discard(connection)
        with self._lock:
            if len(self._idle) < MAX_IDLE_CONNECTIONS:
                self._idle.append(connection)
        return answer


class _Connection(HTTPAdapter):
    """An adapter of requests that holds one connection, made with our own TLS context."""

    def __init__(self, tls: ssl.SSLContext | None, proxies: dict[str, str]) -> None:
        super().__init__(pool_connections=1, pool_maxsize=1)
        self._tls = tls
        self._proxies = proxies
        self._live: Any = None
        self.was_used = False
        self.began_at = 0.0

    def post(self, url: str, body: bytes, headers: dict[str, str], timeout_s: float) -> Answer:
        """POST, and read the whole answer.

        Raises:
            TransportFault: No whole answer came back.
        """
        request = _prepared(url, body, headers)
        try:
            response = self.send(request, stream=True, timeout=timeout_s, proxies=self._proxies)
            content = response.raw.read(MAX_ANSWER_BYTES, decode_content=True)
            if response.raw.read(1):
                response.raw.close()
        except Exception as problem:
            raise fault_of(problem) from None
        self.was_used = True
        names = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, names, content)

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
        """Note the connection that urllib3 has just made."""
        self._live = live


class _Remembering:
    """Makes connections as urllib3 would, and tells the adapter of each."""

    def __init__(self, make: Any, adapter: _Connection) -> None:
        self._make = make
        self._adapter = adapter

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        live = self._make(*args, **kwargs)
        self._adapter.remember(live)
        return live


def fault_of(problem: Exception) -> TransportFault:
    """An exception of requests, urllib3, ssl or the system, in our own terms."""
    timeouts = (exceptions.Timeout, urllib3_exceptions.TimeoutError, TimeoutError)
    network = (
        exceptions.ConnectionError,
        exceptions.ChunkedEncodingError,
        urllib3_exceptions.HTTPError,
        OSError,
    )
    # urllib3 counts a name that does not resolve among the timeouts of connecting.
    if isinstance(problem, timeouts) and not isinstance(_root(problem), socket.gaierror):
        return TransportFault(ErrorKind.TIMEOUT, "the server did not answer in time")
    # requests raises its own errors for a bad URL or proxy, which are OSErrors by descent.
    if isinstance(problem, network) and not isinstance(problem, ValueError):
        return TransportFault(ErrorKind.NETWORK_ERROR, _words(problem))
    return TransportFault(ErrorKind.TRANSPORT_ERROR, _words(problem))


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


def _headers(api_key: str, sdk_version: str = __version__) -> dict[str, str]:
    return {
        "Authorization": f"Bearer {api_key}",
        "Content-Type": "application/json",
        "User-Agent": f"doow-serverless/{__version__}",
        "X-Doow-SDK-Version": sdk_version,
        "Accept": "application/json",
        "Accept-Encoding": "identity",
    }


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


def _tls_context(ca_bundle: str) -> ssl.SSLContext:
    """One context for all connections, since reading the certificates takes longer than a POST."""
    if os.path.isdir(ca_bundle):
        return ssl.create_default_context(capath=ca_bundle)
    return ssl.create_default_context(cafile=ca_bundle)
