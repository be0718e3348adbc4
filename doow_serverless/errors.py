"""What can go wrong, as exceptions and as the kinds that Doow's SDKs report."""

from __future__ import annotations

from enum import Enum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ConfigurationError", "DoowError", "ErrorKind", "InvalidEvent"]


class ErrorKind(str, Enum):
    """Why events were refused or not delivered. Equal to its own name as a string.

    The first seven are those of Doow's Node SDK, with their meaning there.
    """

    AUTH_FAILURE = "AUTH_FAILURE"
    """The key is missing, malformed, unknown, revoked, or lacks the scope (401, 403)."""
    RATE_LIMITED = "RATE_LIMITED"
    """The server asked to wait (429, or 503 with ``Retry-After``)."""
    PARTIAL_ACCEPT = "PARTIAL_ACCEPT"
    """The server took the batch and refused some of its events (207)."""
    NETWORK_ERROR = "NETWORK_ERROR"
    """No connection, no such host, a TLS failure, or a connection cut off."""
    TIMEOUT = "TIMEOUT"
    """The budget, or the platform's deadline, came before the answer."""
    DROPPED_EVENTS = "DROPPED_EVENTS"
    """A bound on memory was reached."""
    TRANSPORT_ERROR = "TRANSPORT_ERROR"
    """The server answered something else that is no acceptance, ``DOOW_TRACK_ENDPOINT`` is wrong,
    or a fault of this library."""
    NOT_READY = "NOT_READY"
    """The budget came before anything could be sent: imports, the key or a thread took too long."""
    INVALID_EVENT = "INVALID_EVENT"
    """The event broke a rule of :func:`doow_serverless.track` and was never accepted."""

    __str__ = str.__str__


class DoowError(Exception):
    """A problem with events, as ``on_error`` receives it.

    Attributes:
        kind: The :class:`ErrorKind`.
        event_ids: The ids of the events concerned; empty where none had been given yet.
        retry_after_s: Seconds that the server asked to wait, where it did.
    """

    def __init__(
        self,
        message: str,
        kind: ErrorKind = ErrorKind.TRANSPORT_ERROR,
        event_ids: Iterable[str] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.event_ids = tuple(event_ids)
        self.retry_after_s = retry_after_s


class ConfigurationError(DoowError, ValueError):
    """An argument is wrong: the message names it, its value, and what to pass instead."""


class InvalidEvent(DoowError, ValueError):
    """An event was refused: the message names the field, its value, and what is allowed.

    Raised by ``track`` in strict mode, otherwise handed to ``on_error``.
    """

    def __init__(self, message: str, event_ids: Iterable[str] = ()) -> None:
        super().__init__(message, ErrorKind.INVALID_EVENT, event_ids)
