"""One POST over a kept connection, with the key; it imports requests, and so is imported late.

A call here may block for as long as the network pleases: no timeout of a socket bounds a name that
does not resolve, nor an answer that drips. Whoever must be on time waits on another thread.
"""

from __future__ import annotations

import os
import ssl
import threading
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

import certifi
from requests.utils import get_environ_proxies

from doow_serverless._process.timers import timers
from doow_serverless._version import __version__
from doow_serverless.errors import ErrorKind

from .answers import TransportFault
from .connection import Connection

if TYPE_CHECKING:
    from doow_serverless._sealing import Batch

    from .answers import Answer

MAX_IDLE_CONNECTIONS = 8
"""Connections that are kept for the next POSTs; all others are closed after their answer."""
_NO_BATCH = ""
_CUT_OFF_AFTER_S = 0.05
"""Seconds after the timeout at which a heartbeat is cut off: by then it is overdue for certain."""


class HttpTransport:
    """POSTs batches to ``endpoint`` over connections that stay open from flush to flush.

    The certificates, and the proxies that the environment names, are read once.

    Args:
        endpoint: The URL below which the paths of the protocol lie.
        timeout_s: Seconds for which a socket may stay silent, and after which `abort` cuts off a
            POST. It holds for every POST, whether a flush waits for it or not.
        ca_bundle: A file or directory of certificates instead of certifi's.
    """

    def __init__(self, endpoint: str, *, timeout_s: float, ca_bundle: str | None = None) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._busy: dict[Connection, tuple[float, str]] = {}
        secure = endpoint.startswith("https:")
        self._tls = _tls_context(ca_bundle or certifi.where()) if secure else None
        # Plain http goes to loopback alone, where a proxy has no business.
        self._proxies: dict[str, str] = get_environ_proxies(endpoint) if secure else {}

    def connect(self, api_key: str) -> None:
        """Open a connection, TLS included, with the protocol's own greeting."""
        self.heartbeat(api_key)

    def heartbeat(self, api_key: str) -> Answer:
        """What the server answers to the protocol's greeting, on a new connection.

        Raises:
            TransportFault: No whole answer came back.
        """
        connection = self._connection(fresh=True)
        # An outbox has its POSTs cut off in time; this one nobody waits for.
        overdue_at = monotonic() + self._timeout_s + _CUT_OFF_AFTER_S
        number = timers.call_at(overdue_at, partial(self.abort, _NO_BATCH))
        try:
            return self._exchange(connection, "/telemetry/heartbeat", b"{}", _headers(api_key))
        finally:
            timers.cancel(number)

    def post(self, batch: Batch, api_key: str, *, fresh: bool = False) -> Answer:
        """Send ``batch``, on a new connection if ``fresh``.

        Raises:
            TransportFault: No whole answer came back; it is stale where a kept connection turned
                out to be dead.
        """
        headers = _headers(api_key, batch.sdk_version)
        if batch.gzipped:
            headers["Content-Encoding"] = "gzip"
        connection = self._connection(fresh)
        try:
            return self._exchange(connection, "/telemetry/events", batch.body, headers, batch.id)
        except TransportFault as fault:
            if not connection.was_used or fault.kind is not ErrorKind.NETWORK_ERROR:
                raise
            # The server closed it while it was idle, or just as it was used: those that idled as
            # long are in no better state.
            self.close_idle()
            raise TransportFault(
                fault.kind, str(fault), is_stale=True, is_unsent=fault.is_unsent
            ) from None

    def has_idle(self) -> bool:
        """Whether the next POST would go out on a kept connection, which may have died."""
        return bool(self._idle)

    def close_idle(self) -> None:
        """Close the kept connections. A finalizer may call it: no locks are taken."""
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def abort(self, batch_id: str | None = None) -> None:
        """Close connections whose POST, of one batch or of any, has outlasted the timeout.

        An answer that drips keeps a socket's own timeout from ever coming.
        """
        overdue = monotonic() - self._timeout_s
        with self._lock:
            stuck = [
                connection
                for connection, (began_at, whose) in self._busy.items()
                if batch_id in (whose, None) and began_at < overdue
            ]
            # With the lock held: a connection that is free may carry the next POST already.
            for connection in stuck:
                connection.abort()

    def _connection(self, fresh: bool) -> Connection:
        with self._lock:
            kept = self._idle.pop() if self._idle and not fresh else None
        return kept or Connection(self._tls, self._proxies)

    def _exchange(
        self,
        connection: Connection,
        path: str,
        body: bytes,
        headers: dict[str, str],
        batch_id: str = _NO_BATCH,
    ) -> Answer:
        with self._lock:
            self._busy[connection] = (monotonic(), batch_id)
        is_kept = False
        try:
            answer = connection.post(self._endpoint + path, body, headers, self._timeout_s)
        finally:
            with self._lock:
                del self._busy[connection]
                if connection.is_kept and len(self._idle) < MAX_IDLE_CONNECTIONS:
                    self._idle.append(connection)
                    is_kept = True
            if not is_kept:
                # The garbage collector, which may be off, would close it late or never.
                connection.close()
        return answer


def _headers(api_key: str, sdk_version: str = __version__) -> dict[str, str]:
    return {
        "Authorization": f"Bearer {api_key}",
        "Content-Type": "application/json",
        "User-Agent": f"doow-serverless/{__version__}",
        "X-Doow-SDK-Version": sdk_version,
        "Accept": "application/json",
        "Accept-Encoding": "identity",
    }


def _tls_context(ca_bundle: str) -> ssl.SSLContext:
    """One context for all connections, since reading the certificates takes longer than a POST."""
    if os.path.isdir(ca_bundle):
        return ssl.create_default_context(capath=ca_bundle)
    return ssl.create_default_context(cafile=ca_bundle)
