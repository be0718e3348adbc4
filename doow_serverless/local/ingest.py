"""The local ingest: Doow's ingest protocol on loopback, with a ledger, and faults on demand.

It stands apart from the rest of the package, and shares no code with it: a test double that shared
the engine's idea of the protocol would share its errors.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from doow_serverless.local._account import Account
from doow_serverless.local._app import App
from doow_serverless.local._connection import OpenProtocol
from doow_serverless.local._protocol import MAX_JSON_BYTES, Keys
from doow_serverless.local._server import ServerThread
from doow_serverless.local._store import Store

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable

    from typing_extensions import Self

    from doow_serverless.local._faults import Fault
    from doow_serverless.local._posts import Post

REBIND_LIMIT_S = 10.0
"""Seconds after which a port that was our own a moment ago counts as taken."""


class Ingest:
    """An HTTP server on a port of this machine, served from a thread, or as a context manager.

    Args:
        database: A file that keeps the ledger, or ``":memory:"``.
        keys: The keys that may send; ``None`` for any that is ``dk_`` and 64 hex digits.
        port: The TCP port; 0 lets the system choose one. It is bound here: a port that is taken is
            an ``OSError`` at the caller's line.
        events_per_minute: How many the organization may send, over all its keys and senders, beyond
            which it is answered 429, with ``X-RateLimit-*``; Doow's own limit is 1,000. Default:
            as many as come.
        licenses: Those that the organization has: events of others are rejected as
            ``license_not_found``. Default: any.
        metrics: Those that its licenses have: others are rejected as ``unknown_metric``. Default:
            any.
        max_json_bytes: The size of a batch, before compression, above which it is answered 413.
        clock: Unix seconds, by which the minutes of ``events_per_minute`` begin and end.
        on_post: Called with each POST when it is over, in the server's thread.

    Every method may be called from any thread. Posts are kept in memory until :meth:`reset`.
    """

    def __init__(
        self,
        database: str | os.PathLike[str] = ":memory:",
        *,
        keys: Iterable[str] | None = None,
        port: int = 0,
        events_per_minute: int | None = None,
        licenses: Iterable[str] | None = None,
        metrics: Iterable[str] | None = None,
        max_json_bytes: int = MAX_JSON_BYTES,
        clock: Callable[[], float] = time.time,
        on_post: Callable[[Post], None] | None = None,
    ) -> None:
        checked = Keys(keys)
        account = Account(events_per_minute, licenses, metrics, clock)
        store = Store(database)
        self._app = App(
            store, checked, max_json_bytes=max_json_bytes, on_post=on_post, account=account
        )
        try:
            self._server = self._bound(port)
        except OSError:
            store.close()
            raise
        self.port = self._server.port
        self.url = self._server.url
        self._life = threading.Lock()
        self._started = False

    def start(self) -> Self:
        """Serve, also again after :meth:`stop`: on the same port, with the same ledger."""
        with self._life:
            if not self._started:
                self._server.start()
                self._started = True
        return self

    def stop(self) -> None:
        """Cut every connection and refuse new ones: an outage, until :meth:`start`."""
        with self._life:
            if self._started:
                self._server.stop()
                self._server = self._bound_again()
                self._started = False

    def close(self) -> None:
        """Stop for good; what arrived can still be read."""
        with self._life:
            self._server.stop()
            self._started = False
        with self._app.changed:
            self._app.store.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def events(self) -> list[dict[str, Any]]:
        """The accepted events in order of arrival; quantities are ``int`` or exact ``Decimal``."""
        with self._app.changed:
            return self._app.store.events()

    def posts(self) -> list[Post]:
        """Every request to ``/telemetry/events`` in order of arrival, answered or not."""
        with self._app.changed:
            return self._app.posts.all()

    def wait_for(self, n_events: int, timeout: float = 5.0) -> list[dict[str, Any]]:
        """The events, as soon as ``n_events`` were accepted; ``TimeoutError`` tells what came."""
        with self._app.changed:
            if self._app.changed.wait_for(lambda: self._app.store.count() >= n_events, timeout):
                return self._app.store.events()
            posts = [(post.status, len(post.event_ids)) for post in self._app.posts.all()]
            raise TimeoutError(
                f"{self._app.store.count()} of {n_events} events within {timeout:g} s; "
                f"POSTs as (status, events): {posts}"
            )

    @property
    def conflicts(self) -> list[str]:
        """The ids of batches that came again with another body than the recorded one."""
        with self._app.changed:
            return list(self._app.conflicts)

    @property
    def heartbeats(self) -> int:
        """How many heartbeats came with an accepted key."""
        with self._app.changed:
            return self._app.heartbeats

    def fault(self, *faults: Fault) -> None:
        """Let the POSTs to come meet these faults, in this order, behind those that wait."""
        with self._app.changed:
            self._app.faults.append(*faults)

    def clear_faults(self) -> None:
        """Let all that comes be handled as ever."""
        with self._app.changed:
            self._app.faults.clear()

    def reset(self) -> None:
        """Forget events, posts, faults, conflicts and heartbeats; the keys stay."""
        self._app.reset()

    @property
    def keys(self) -> frozenset[str] | None:
        """The keys accepted now; ``None`` stands for any well-formed key but the revoked ones."""
        with self._app.changed:
            return self._app.keys.accepted

    def add_key(self, key: str) -> None:
        """Accept ``key`` from now on, also if it was revoked."""
        with self._app.changed:
            self._app.keys.add(key)

    def revoke(self, key: str) -> None:
        """Answer ``key`` with 401 from now on."""
        with self._app.changed:
            self._app.keys.revoke(key)

    def _bound_again(self) -> ServerThread:
        """Bind the port at once, so that nobody else takes it; it refuses while nobody listens.

        A process that this one is just starting shares the closed socket until it runs its program.
        """
        ends_at = time.monotonic() + REBIND_LIMIT_S
        while True:
            try:
                return self._bound(self.port)
            except OSError:
                if time.monotonic() > ends_at:
                    raise
                time.sleep(0.005)

    def _bound(self, port: int) -> ServerThread:
        # Nothing but faults keeps a request open here, so there is nothing to wait for at the end.
        # A connection outlives pauses between invocations longer than uvicorn's 5 s.
        return ServerThread(
            self._app.asgi,
            port=port,
            http=OpenProtocol,
            loop="asyncio",
            ws="none",
            timeout_graceful_shutdown=0,
            timeout_keep_alive=60,
        )
