"""Judges what a platform brings: frames are accepted, all else that may be usage is reported."""

from __future__ import annotations

from doow_serverless._frames.envelopes import Unread
from doow_serverless._frames.format import MARKER
from doow_serverless._frames.reader import Damage, read_frames
from doow_serverless._process.log import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from doow_serverless._frames.envelopes import Line
    from doow_serverless._frames.reader import Part

MOST_TOLD = 20
"""Kinds of trouble that are reported one by one."""
REFUSED = "usage refused"
NOT_UNDERSTOOD = "usage not understood"
_UNSIGNED = "not signed with the log key"
_WRONG = "signed with a key that this relay does not have, or altered"
_NO_FRAME = "the text holds a frame's marker, but does not consist of whole frames"


class Intake:
    """Reads frames out of unwrapped lines; one for each invocation.

    Args:
        keys: The log keys; if there are any, a frame must be signed with one of them.
        fetch_keys: Fetches the keys again when a signature fits none: they may have been rotated.

    Attributes:
        left: How many lines were not accepted so far, though they may hold usage.
    """

    def __init__(
        self, keys: Sequence[bytes], fetch_keys: Callable[[], Sequence[bytes]] | None = None
    ) -> None:
        self._keys = keys
        self._fetch_keys = fetch_keys
        self._troubles: dict[tuple[str, str, str], int] = {}
        self.left = 0

    def __repr__(self) -> str:
        return f"Intake({self.left} left)"

    def read(self, unwrapped: Iterable[Line | Unread]) -> Iterator[Part | Damage]:
        """Yield the frames that are accepted, in their order, and those that are damaged."""
        for one in unwrapped:
            if isinstance(one, Unread):
                self._note(NOT_UNDERSTOOD, one.why, one.origin)
            elif MARKER in one.text:
                yield from self._frames(one)

    def _frames(self, line: Line) -> Iterator[Part | Damage]:
        found = read_frames(line.text)
        if not found:
            self._note(NOT_UNDERSTOOD, _NO_FRAME, line.origin)
        for one in found:
            if isinstance(one, Damage):
                self.left += one.batch_id is None  # Else its batch may be whole elsewhere.
            elif self._keys and not one.is_signed:
                self._note(REFUSED, _UNSIGNED, line.origin)
                continue
            elif self._keys and not self._is_genuine(one):
                self._note(REFUSED, _WRONG, line.origin)
                continue
            yield one

    def _is_genuine(self, part: Part) -> bool:
        if part.is_signed_by(self._keys):
            return True
        if self._fetch_keys is None:
            return False
        self._keys, self._fetch_keys = self._fetch_keys(), None
        return part.is_signed_by(self._keys)

    def _note(self, kind: str, why: str, origin: str) -> None:
        self.left += 1
        # One report for all events of a log stream.
        _, stream, name = origin.partition("log stream ")
        key = (kind, why, stream + name or origin)
        self._troubles[key] = self._troubles.get(key, 0) + 1

    def report(self) -> None:
        """Report all that was not accepted, once for each log stream and reason."""
        for wanted in (REFUSED, NOT_UNDERSTOOD):
            troubles = [(key, n) for key, n in self._troubles.items() if key[0] == wanted]
            for (kind, why, origin), count in troubles[:MOST_TOLD]:
                times = "" if count == 1 else f" ({count} times)"
                warn(f"{kind}: {why}{times}: {origin}")
            more = len(troubles) - MOST_TOLD
            if more > 0:
                warn(f"{wanted}: and {more} more log streams or reasons")
        self._troubles.clear()
