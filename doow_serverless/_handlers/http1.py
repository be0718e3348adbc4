"""Reads an HTTP/1 response as it is written to a socket, to tell which write completes it."""

from __future__ import annotations

from .response import ResponseProgress

_LONGEST_HEAD = 1 << 20


class Http1Progress:
    """How far one response has come, head and all, in whatever pieces it is written.

    Args:
        method: That of the request, in capitals.
    """

    def __init__(self, method: str) -> None:
        self._response = ResponseProgress(method)
        self._head: bytes | None = b""
        self._chunks: _Chunks | None = None

    @property
    def status(self) -> int:
        """That of the head; 0 before."""
        return self._response.status

    def completes(self, data: bytes | memoryview) -> bool:
        """Whether the client has everything once it has ``data``, too.

        Raises:
            TypeError, ValueError: It is no bytes, or no HTTP.
        """
        with memoryview(data) as view, view.cast("B") as octets:
            if self._head is None:
                return self._goes_on(octets)
            return self._begins(self._head + bytes(octets))

    def _begins(self, data: bytes) -> bool:
        head, found, rest = data.partition(b"\r\n\r\n")
        if not found:
            self._head = data if len(data) < _LONGEST_HEAD else None
            return False
        status, headers = _parsed(head)
        if 100 <= status < 200:  # An interim answer: the head of the response is yet to come.
            return self._begins(rest)
        self._head = None
        self._response.begin(status, headers.get(b"content-length"))
        if headers.get(b"transfer-encoding", b"").lower().endswith(b"chunked"):
            self._chunks = _Chunks()
        if self._response.is_bodiless:
            return self._response.completes(0)
        with memoryview(rest) as octets:
            return self._goes_on(octets)

    def _goes_on(self, octets: memoryview) -> bool:
        last = self._chunks is not None and self._chunks.end_with(bytes(octets))
        return self._response.completes(len(octets), last=last)


class _Chunks:
    """A body in chunks (https://www.rfc-editor.org/rfc/rfc9112#section-7.1)."""

    def __init__(self) -> None:
        self._left = 0
        self._line = b""
        self._is_last = False

    def end_with(self, data: bytes) -> bool:
        """Whether ``data`` holds the end: the empty line after the last chunk, of size zero."""
        at = 0
        while at < len(data):
            skipped = min(self._left, len(data) - at)
            self._left -= skipped
            at += skipped
            if self._left:
                break
            line, found, _ = data[at:].partition(b"\n")
            at += len(line) + len(found)
            self._line += line
            if found and self._ends(self._line.rstrip(b"\r")):
                return True
            self._line = b"" if found else self._line
        return False

    def _ends(self, line: bytes) -> bool:
        if self._is_last:
            return not line  # Else it is a trailer.
        size = int(line.partition(b";")[0] or b"0", 16)
        self._is_last = size == 0
        self._left = size + 2 if size else 0
        return False


def _parsed(head: bytes) -> tuple[int, dict[bytes, bytes]]:
    first, *lines = head.split(b"\r\n")
    words = first.split(None, 2)
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    pairs = (line.partition(b":") for line in lines)
    return status, {name.strip().lower(): value.strip() for name, _, value in pairs}
