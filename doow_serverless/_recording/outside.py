"""The scope of code that no invocation can be seen for."""

from __future__ import annotations

from doow_serverless._process.log import warn

from .event import Defaults
from .scope import Life, Scope, here

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from doow_serverless._process.clock import Clock

    from .buffer import Buffer
    from .event import Fold
    from .interfaces import Sink
    from .rules import LeftOut

UNNOTICED_S = 30.0
"""Seconds for which events may wait for a flush before somebody is told."""
_UNNOTICED = (
    "usage events have waited for %.0f s, and no flush has come: they are recorded where no tracked"
    " handler runs. Put @doow.tracked below the decorator that registers the handler, so that the"
    " tracked function is the one that is served, or call doow.flush()"
)
_REMEDY = (
    "pass license_id=… to track() or configure(), or set DOOW_TRACK_LICENSE_ID; that of tracked() "
    "does not count here, since no invocation that runs can be seen: give a thread its context "
    "(contextvars.copy_context().run, asyncio.to_thread), and a generator to DoowMiddleware"
)


class Strays:
    """What is known of the events that no invocation can be seen for; one for each engine.

    Args:
        license_id, attribution, removed, fold: As of `Defaults`.
        clock: Monotonic seconds.
    """

    __slots__ = ("_clock", "_is_told", "_since", "defaults", "life")

    def __init__(
        self,
        license_id: str | None,
        attribution: Mapping[str, Any],
        removed: list[LeftOut],
        fold: Fold,
        clock: Clock,
    ) -> None:
        self.defaults = Defaults(license_id, attribution, removed, fold, remedy=_REMEDY)
        self.life = Life()
        self._clock = clock
        self._since: float | None = None
        self._is_told = False

    def note(self, *, is_first: bool) -> None:
        """One was recorded, the first since a flush perhaps; told once when they wait for long."""
        now = self._clock()
        if is_first or self._since is None:  # Others may wait that a replaced tracker has left.
            self._since = now
        elif not self._is_told and now - self._since >= UNNOTICED_S:
            self._is_told = True
            warn(_UNNOTICED % (now - self._since))


class Outside(Scope):
    """Records into the unattended buffer of its engine, which the next flush takes along.

    Args:
        sink: The engine; it makes one whenever it is asked, since it must hold none.
        buffer: The unattended one.
        strays: What it knows of the events here.
    """

    __slots__ = ("_strays",)

    def __init__(self, sink: Sink, buffer: Buffer, strays: Strays) -> None:
        super().__init__(sink, buffer, strays.defaults, None, strays.life)
        self._strays = strays

    def record(self, *event: Any, **named: Any) -> None:
        """As of `Scope.record`; where another engine's handler runs, that one flushes it."""
        is_first = not self.buffer.has_waiting
        super().record(*event, **named)
        around = here()
        if around is not None and not around.life.is_over:
            around.life.join(self.sink, self.buffer)
        else:
            self._strays.note(is_first=is_first)
