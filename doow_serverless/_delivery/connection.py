"""One kept connection, an adapter of requests, with its faults in our own terms."""

from __future__ import annotations

import http.client
import socket
import ssl
import zlib
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from requests import PreparedRequest, __version__, exceptions
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3 import __version__ as urllib3_version  # type: ignore[attr-defined]  # it is there
from urllib3 import exceptions as urllib3_exceptions
from urllib3.util.ssl_match_hostname import match_hostname

from doow_serverless.errors import DoowError, ErrorKind

from .answers import Answer, TransportFault

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

MAX_ANSWER_BYTES = 1024 * 1024
"""Bytes of an answer that are read: room for 500 rejections with a reason of 2,000 letters each."""
OLDEST_REQUESTS = "2.32.3"
"""The oldest requests that respects an adapter's own TLS context, as pyproject.toml demands it."""
CONNECT_LIMIT_S = 1.2
"""Seconds for which one address may leave an attempt to connect unanswered.

If a name has several addresses, a dead one (IPv6 without a route, say) must leave time for the next
within the default budget of 2 seconds. A lost SYN is sent again after 1 second, and its answer must
have time to arrive (https://www.rfc-editor.org/rfc/rfc6298#section-2).
"""
TIMED_OUT = (ErrorKind.TIMEOUT, "the server did not answer in time")


class Connection(HTTPAdapter):
    """An adapter of requests that holds one connection, made with our own TLS context."""

    def __init__(self, tls: ssl.SSLContext | None, proxies: dict[str, str]) -> None:
        super().__init__(pool_connections=1, pool_maxsize=1)
        self.tls = tls
        self._proxies = proxies
        self._live: Any = None
        self._is_aborted = False
        self.was_used = False
        self.is_kept = False
        """Whether the server keeps the connection open for the next POST."""

    def post(self, url: str, body: bytes, headers: dict[str, str], timeout_s: float) -> Answer:
        """POST, and read the whole answer.

        Raises:
            TransportFault: No whole answer came back.
        """
        self._is_aborted = self.is_kept = False
        request = _prepared(url, body, headers)
        try:
            response = self.send(request, stream=True, timeout=timeout_s, proxies=self._proxies)
            content = response.raw.read(MAX_ANSWER_BYTES, decode_content=False)
            is_cut = bool(response.raw.read(1))
            if is_cut:
                response.raw.close()
            elif self._is_broken_off(response.raw):
                raise http.client.RemoteDisconnected("the body of the answer has no end")
        except Exception as problem:
            is_made = getattr(self._live, "is_made", False)
            why = TIMED_OUT if self._is_aborted else _told(problem)
            raise TransportFault(*why, is_unsent=not is_made) from None
        self.was_used = True
        is_open = getattr(self._live, "sock", None) is not None
        self.is_kept = is_open and not (is_cut or self._is_aborted)
        names = {name.lower(): value for name, value in response.headers.items()}
        if names.get("content-encoding", "").lower() == "gzip":
            content, is_cut = _unzipped(content)
        return Answer(response.status_code, names, content, is_cut=is_cut)

    def abort(self) -> None:
        """Cut off the POST: the thread that waits for the answer is woken with an error."""
        self._is_aborted = True  # First: to the other thread, the shutdown looks like the server's.
        sock: Any = getattr(self._live, "wire", None) or getattr(self._live, "sock", None)
        sock = getattr(sock, "socket", sock)  # Within a proxy's TLS, urllib3 wraps the socket.
        # It may be closed already, or the socket of a recorded answer, which nobody waits for.
        with suppress(OSError, TypeError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def cert_verify(self, conn: Any, *_: Any, **__: Any) -> None:
        """Give the pool our TLS context, and our class of connections.

        Every version of requests calls this for each request, right before it sends. A version
        that did not would verify the server by itself, since ``verify`` stays True.
        """
        conn.ConnectionCls = _watched(_real(type(conn).ConnectionCls))
        conn.conn_kw["adapter"] = self
        if self.tls is not None:
            conn.conn_kw["ssl_context"] = self.tls
            conn.cert_reqs = "CERT_REQUIRED"
            # Our context has read the certificates. Named here, they are read for each connection.
            conn.ca_certs = conn.ca_cert_dir = None

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Verify a proxy that itself speaks TLS as the server is verified."""
        if self.tls is not None and proxy.lower().startswith("https:"):
            kwargs["proxy_ssl_context"] = self.tls
        return super().proxy_manager_for(proxy, **kwargs)

    def watch(self, live: Any) -> None:
        """Remember the connection that urllib3 is about to make, for :meth:`abort`."""
        self._live = live

    def _is_broken_off(self, raw: Any) -> bool:
        """Return True if the connection ended within a body, or if we ended a body ourselves.

        http.client raises for a chunked body alone, and urllib3 for a short one only since 2.0. A
        body without a length ends with the connection, so that our own shutdown looks like its end.
        """
        answer = getattr(raw, "_original_response", None)
        if not isinstance(answer, _FinalResponse) or answer.chunked:
            return False  # A recorded answer came over no connection.
        return self._is_aborted if answer.length is None else answer.length > 0


class _WholeLines:
    """Reads lines of an answer, and raises if the connection ends before a line does.

    http.client takes the end of the stream for the end of a line, and of all headers.

    Args:
        stream: The file of the connection.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.close = stream.close

    def readline(self, limit: int) -> bytes:
        line: bytes = self._stream.readline(limit)
        # A line that reaches the limit is too long, which http.client itself reports.
        if not line.endswith(b"\n") and len(line) < limit:
            raise http.client.RemoteDisconnected("the answer ends within its head")
        return line


class _FinalResponse(http.client.HTTPResponse):
    """Passes over all interim answers, and takes no broken line for a whole one.

    The class of the standard library knows the interim status 100 alone. It accepts a body whose
    last chunk came without the trailers or the empty line behind it, and so does this one: the body
    is complete (https://www.rfc-editor.org/rfc/rfc9112#section-8).
    """

    fp: Any

    def begin(self) -> None:
        self._by_whole_lines(super().begin)

    def _read_next_chunk_size(self) -> int:
        # Of "0A", a broken connection may leave the "0", which would be the last chunk.
        return self._by_whole_lines(super()._read_next_chunk_size)  # type: ignore[misc,no-any-return]

    def _by_whole_lines(self, read: Callable[[], T]) -> T:
        """Return what ``read`` returns, from whole lines alone."""
        stream = self.fp
        self.fp = _WholeLines(stream)
        try:
            return read()
        finally:
            if self.fp is not None:  # Not closed meanwhile, which http.client notes by None.
                self.fp = stream

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]  # not in typeshed
            if status in (http.client.CONTINUE, http.client.SWITCHING_PROTOCOLS) or status >= 200:
                return version, status, reason
            http.client.parse_headers(self.fp)


class _Watched:
    """A mixin for the connections of urllib3: each reports to its adapter, and prints nothing.

    Args:
        adapter: The adapter, which urllib3 passes on to the connections of its pool.
    """

    response_class = _FinalResponse
    is_made = False
    """Whether the connection has come about, TLS included."""
    wire: Any = None
    """The socket, for :meth:`Connection.abort`: http.client sets ``sock`` to None before it reads a
    body that ends with the connection."""
    sock: Any
    timeout: Any

    def __init__(self, *args: Any, adapter: Connection, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # http.client prints the headers, and so the key, where the application has switched that
        # on for all connections by HTTPConnection.debuglevel.
        self.debuglevel = 0
        self._tls = adapter.tls
        adapter.watch(self)

    def _new_conn(self) -> Any:
        """Return a connected socket; each address of the name has :data:`CONNECT_LIMIT_S`.

        The limit ends here: the timeout of requests for connecting would also bound the TLS
        handshake, for which a busy server may need longer, and sending the body. A SOCKS proxy
        answers only after it has itself connected, and so keeps the whole timeout.
        """
        whole_s = self.timeout
        if not hasattr(self, "_socks_options"):
            self.timeout = min(CONNECT_LIMIT_S, whole_s)
        try:
            sock: Any = super()._new_conn()  # type: ignore[misc]  # as in connect()
        finally:
            self.timeout = whole_s
        sock.settimeout(whole_s)
        return sock

    def connect(self) -> None:
        self.is_made, self.wire = False, None
        super().connect()  # type: ignore[misc]  # of the connection that this is mixed into
        if self._tls is not None:
            try:
                # Through a proxy, `host` is the proxy's.
                host: Any = getattr(self, "_tunnel_host", None) or getattr(self, "host", "")
                _check_session(self.sock, self._tls, host)
            except DoowError:
                self.close()  # type: ignore[attr-defined]  # likewise
                raise
        self.is_made, self.wire = True, self.sock


def _real(kind: type) -> type:
    """The class of connections that a cassette of vcrpy has replaced, if it has.

    A cassette would hold our key. And its connections undo and redo its patches for the whole
    process, so that one made on a thread of ours while the cassette ends leaves the patches behind.
    """
    real: type = getattr(kind, "_baseclass", kind) if hasattr(kind, "cassette") else kind
    return real


@cache
def _watched(kind: type) -> type:
    """The same kind of connection, be it plain, with TLS or through SOCKS, that is watched."""
    return type(kind.__name__, (_Watched, kind), {})


def _check_session(sock: Any, tls: ssl.SSLContext, host: str) -> None:
    """Refuse a TLS session that is not of our context, or that verified nobody.

    Nothing has been sent yet. Even if requests, urllib3 or a patch of theirs ignores our settings,
    the key goes to no server whose certificate was not verified.

    Args:
        sock: The socket that urllib3 has connected.
        tls: Our context.
        host: The server's name.

    Raises:
        DoowError: The server has not been verified.
    """
    # TLS within a proxy's TLS has no socket, but an object of its own.
    session = getattr(sock, "sslobj", sock)
    context: Any = getattr(session, "context", None)
    # `truststore.inject_into_ssl()` makes contexts that have another one inside.
    is_ours = context is not None and (context is tls or context is getattr(tls, "_ctx", None))
    is_verified = is_ours and context.verify_mode == ssl.CERT_REQUIRED
    # Under `urllib3.contrib.pyopenssl`, urllib3 compares the names itself, and so do we.
    if is_verified and (context.check_hostname or _is_named(session.getpeercert(), host)):
        return
    raise DoowError(
        "nothing was sent, since the server's certificate was not verified as asked: something in "
        f"this process changes TLS (requests {__version__} and urllib3 {urllib3_version} are "
        f"loaded; requests {OLDEST_REQUESTS} and urllib3 1.26 or newer are needed)"
    )


def _is_named(certificate: Any, host: str) -> bool:
    """Whether a certificate, which has been verified, is that of ``host``."""
    try:
        match_hostname(certificate, host)
    except ValueError:  # A CertificateError is a ValueError.
        return False
    return True


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
    if isinstance(problem, DoowError):
        return problem.kind, str(problem)
    network = (
        exceptions.ConnectionError,
        exceptions.ChunkedEncodingError,
        urllib3_exceptions.HTTPError,
        OSError,
    )
    # urllib3 counts a name that does not resolve among the timeouts of connecting.
    if isinstance(problem, timeouts) and not isinstance(_root(problem), socket.gaierror):
        return TIMED_OUT
    # requests raises its own errors for a bad URL or proxy, which are OSErrors by descent.
    if isinstance(problem, network) and not isinstance(problem, ValueError):
        return ErrorKind.NETWORK_ERROR, _words(problem)
    return ErrorKind.TRANSPORT_ERROR, _words(problem)


def _root(problem: BaseException) -> BaseException:
    """The innermost cause, which says most in the fewest words."""
    seen = {id(problem)}
    while True:
        causes = [getattr(problem, "reason", None), *problem.args, problem.__cause__]
        # Only of wrappers: urllib3 1.26 reads each answer while it handles a TypeError of its own.
        if isinstance(problem, (exceptions.RequestException, urllib3_exceptions.HTTPError)):
            causes.append(problem.__context__)
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
