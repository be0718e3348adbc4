"""Ids of events and batches: random ones, and ones that a retry of the same work finds again."""

from __future__ import annotations

import os

from doow_serverless._process import forks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    # The function, since several may do their own work on the same message; and the work.
    Identity: TypeAlias = tuple[str, str]


_NAMESPACE_OID = bytes.fromhex("6ba7b8129dad11d180b400c04fd430c8")


def new_id() -> str:
    """A UUID of version 4 (RFC 9562), without the import of the module uuid.

    From the system's own source of randomness, which neither a snapshot nor a fork repeats.
    """
    entropy = os.urandom(16)
    digits = entropy.hex()
    variant = "89ab"[entropy[8] & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def is_random(one: str) -> bool:
    """Whether an id is one of :func:`new_id`, so that nothing that is done again has it."""
    return len(one) == 36 and one[14] == "4"


def derived_id(*parts: str) -> str:
    """A UUID of version 5 (RFC 9562) that equal ``parts`` give again, in whatever process."""
    from hashlib import sha1  # Hardly ever needed, and dear at import.

    # JSON may hold half a surrogate pair, and so may what identifies a message; UTF-8 refuses it.
    name = "\0".join(parts).encode(errors="surrogatepass").decode("latin-1")
    digits = sha1(_NAMESPACE_OID + name.encode(), usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


class DerivedIds:
    """Ids of the events of one piece of work, such as a message, that may be done again.

    An id derives from what identifies the work, from what the event says but its time, and from how
    many equal events came before. So work that is done again names equal events alike, in whatever
    order its threads record them, and others differently. A forked child does work of its own: it
    is known again by how many were forked before it.
    """

    __slots__ = ("_forks", "_identity", "_process", "_seen", "function")

    def __init__(self, function: str, work: str) -> None:
        self.function = function
        # Short, however many records it names: it goes into every id.
        self._identity = derived_id(function, work)
        self._seen: dict[str, int] = {}
        self._process = os.getpid()
        self._forks = forks.count()

    def leave_to_parent(self) -> None:
        """In a forked child: name what it records apart from what its parent does."""
        if self._process != os.getpid():  # Buffers share it.
            self._process = os.getpid()
            self._identity = derived_id(self._identity, f"child:{forks.count() - self._forks}")
            self._forks = forks.count()
            self._seen = {}

    def next(self, said: str) -> str:
        """The id of the next event that says ``said``."""
        first = derived_id(self._identity, said)
        earlier = self._seen.get(first, 0)
        self._seen[first] = earlier + 1
        return derived_id(first, str(earlier)) if earlier else first
