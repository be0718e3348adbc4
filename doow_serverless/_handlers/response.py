"""Follows an HTTP response, to tell which of its bytes complete it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import AnyStr

_BODILESS = (204, 304)


class ResponseProgress:
    """How far one response has come, of which something is the last that the client waits for.

    That must wait until usage is delivered, since a platform may freeze the process right after.

    Args:
        method: That of the request, in capitals.

    Attributes:
        status: That of the head; 0 before.
        is_bodiless: Whether the head is all that the client waits for.
        is_complete: Whether what completes it has been seen.
    """

    __slots__ = ("_is_head", "_left", "is_bodiless", "is_complete", "status")

    def __init__(self, method: str) -> None:
        self._is_head = method == "HEAD"
        self._left: int | None = None
        self.status = 0
        self.is_bodiless = False
        self.is_complete = False

    def begin(self, status: object, length: str | bytes | None) -> None:
        """Take in the head; again where an application replaces it before it was sent.

        Args:
            status: The status code; what is no number, a server may refuse or take.
            length: The value of Content-Length, where there is one.
        """
        self.status = status if isinstance(status, int) else 0
        self._left = _number(length)
        # https://www.rfc-editor.org/rfc/rfc9112#section-6.3
        self.is_bodiless = self._is_head or status in _BODILESS or self._left == 0

    def completes(self, size: int, *, last: bool = False) -> bool:
        """Whether ``size`` more bytes of the body, the ``last`` ones perhaps, complete it."""
        if self.is_complete:
            return False
        if self._left is not None:
            self._left -= size
            last = last or self._left <= 0
        self.is_complete = last or self.is_bodiless
        return self.is_complete


def content_length(headers: Iterable[tuple[AnyStr, AnyStr]], name: AnyStr) -> AnyStr | None:
    """The value of the header ``name``, Content-Length in lower case, or None.

    None as well where the headers can be read but once: that is for the server to do.
    """
    if hasattr(headers, "__next__"):
        return None
    return next((value for each, value in headers if each.lower() == name), None)


def _number(length: str | bytes | None) -> int | None:
    try:
        # What is no number is for the server to refuse; int() alone would take "-1" and "1_0".
        return int(length) if length is not None and length.strip().isdigit() else None
    except ValueError:  # A digit of another script.
        return None
