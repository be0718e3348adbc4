"""What has left a buffer, until a flush of that buffer accounts for it."""

from __future__ import annotations

import threading
from functools import partial
from weakref import WeakKeyDictionary, ref

from .flight import Flight

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless._recording.buffer import Buffer

    from .outbox import Outbox


class OwnedFlight(Flight):
    """The flight of a buffer.

    Args:
        release: As of `Flight`.
        outbox: Has its batches, from the first to the last, also when another has taken over
            meanwhile: what one has sealed and sent, no other knows.
    """

    __slots__ = ("outbox",)

    def __init__(self, release: Callable[[int], None], outbox: Outbox) -> None:
        super().__init__(release)
        self.outbox = outbox


class Departure:
    """What has left one buffer.

    Attributes:
        lock: Held to add to the flight, or to take it away, so that none is added to too late.
        flight: The batches on their way, if any have left.
    """

    __slots__ = ("_release", "flight", "lock")

    def __init__(self, buffer: Buffer) -> None:
        # The buffer may be garbage-collected: nothing that travels keeps it alive.
        self._release = partial(_release, ref(buffer))
        self.lock = threading.RLock()
        self.flight: OwnedFlight | None = None

    def begun(self, outbox: Outbox) -> OwnedFlight:
        """The flight, which begins with ``outbox`` where there is none; with the lock held."""
        if self.flight is None:
            self.flight = OwnedFlight(self._release, outbox)
        return self.flight

    def take(self) -> list[OwnedFlight]:
        """The flight, if any, which is the caller's now."""
        with self.lock:
            flight, self.flight = self.flight, None
        return [] if flight is None else [flight]


def _release(buffer: ref[Buffer], events: int) -> None:
    alive = buffer()
    if alive is not None:
        alive.count(-events)


class Departures:
    """The departures of all buffers that live. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._making = threading.Lock()
        self._of: WeakKeyDictionary[Buffer, Departure] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"Departures({len(self._of)} buffers)"

    def get(self, buffer: Buffer) -> Departure | None:
        """That of ``buffer``, if anything has ever left it."""
        return self._of.get(buffer) if self._of else None

    def of(self, buffer: Buffer) -> Departure:
        """That of ``buffer``."""
        departure = self._of.get(buffer)
        if departure is None:
            with self._making:
                departure = self._of.setdefault(buffer, Departure(buffer))
        return departure

    def flight_of(self, buffer: Buffer) -> OwnedFlight | None:
        """What is on its way from ``buffer``."""
        departure = self.get(buffer)
        return None if departure is None else departure.flight

    def take(self, *buffers: Buffer) -> list[OwnedFlight]:
        """The flights of ``buffers``, which are the caller's now."""
        departures = map(self.get, buffers)
        return [flight for one in departures if one is not None for flight in one.take()]

    def take_all(self) -> list[OwnedFlight]:
        """The flights of all buffers, which are the caller's now."""
        return [flight for one in list(self._of.values()) for flight in one.take()]
