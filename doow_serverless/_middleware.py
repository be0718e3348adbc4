"""What all faces share that take the options of ``tracked``: those, and the tracker."""

from __future__ import annotations

from ._handlers.wrap import Settings, visit
from ._tracker import Current
from .errors import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Literal, TypeAlias

    from typing_extensions import TypedDict

    from ._engine import Tracker
    from ._handlers.invocation import Visit
    from ._recording.buffer import Scope

    Where: TypeAlias = Callable[[], tuple[Tracker, Scope | None]]

    class Options(TypedDict, total=False):
        """The options of :class:`Face`."""

        budget: float | None
        license_id: str | None
        attribution: Mapping[str, Any] | None
        on_exception: Literal["flush", "discard"]
        metric: str | None
        idempotent: bool
        flush_mode: Literal["before_response", "after_response"] | None
        tracker: Tracker | None


_current = Current()


class Face:
    """Options and tracker; subclasses say what is tracked with them.

    Args:
        budget: Seconds for which the response may be held. Default: that of ``configure``,
            2 seconds.
        license_id: The license of events that name none.
        attribution: Attribution of all events of these requests, under their own.
        on_exception: ``"flush"`` delivers what was recorded although the application raised;
            ``"discard"`` forgets it. A response is a success, whatever its status.
        metric: A metric of which one is recorded for each request.
        idempotent: True derives the ids of events from what the platform calls the request.
        flush_mode: ``"before_response"`` or ``"after_response"``, as for ``configure``.
        tracker: The tracker to use. Default: the current one.

    Raises:
        ConfigurationError: An option is wrong.
    """

    CALLED = "DoowMiddleware"
    """By which name users call it."""

    def __init__(self, *, tracker: Tracker | None = None, **options: Any) -> None:
        try:
            self.settings = Settings(**options)
        except TypeError as unknown:
            # Python's own words name the option: "got an unexpected keyword argument 'buget'".
            text = str(unknown).replace("Settings.__init__()", f"{self.CALLED}()")
            raise ConfigurationError(text) from None
        self._where = where(tracker)

    def tracker(self) -> Tracker:
        """The tracker; asked at each request, since it may be configured late."""
        return self._where()[0]

    def _visit(self, *told: Any) -> Visit:
        """A request that begins, of which the platform has told these things."""
        return visit(self.tracker(), self.settings, told, {})


def where(tracker: Tracker | None) -> Where:
    """What gives ``tracker``, or else the current one, and the scope in it."""
    return (_current if tracker is None else tracker)._where
