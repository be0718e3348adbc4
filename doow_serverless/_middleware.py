"""What all middlewares share: the options of ``tracked``, and the engine that they record with."""

from __future__ import annotations

from ._api import parted
from ._handlers.wrap import begin_invocation
from ._tracker import Current

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import Unpack

    from ._api import Api, ApiOptions
    from ._engine import Engine
    from ._handlers.invocation import Invocation
    from ._handlers.options import TrackedOptions

_current = Current()


class Middleware:
    """Options and engine; subclasses say what is tracked with them.

    Args:
        **options: As of :func:`doow_serverless.tracked`; ``metric`` is one for each request.

    Raises:
        ConfigurationError: An option is wrong.
    """

    CALLED = "DoowMiddleware"
    """By which name users call it."""

    def __init__(self, **options: Unpack[ApiOptions]) -> None:
        tracker, self.options = parted(self.CALLED, options)
        self._api = api_of(tracker)
        self._api._expect_invocations()

    def engine(self) -> Engine:
        """That of the tracker; asked at each request, since it may be configured late."""
        return self._api._engine()

    def _begin(self, *told: Any, options: TrackedOptions | None = None) -> Invocation:
        """A request that begins, of which the platform has told these things."""
        return begin_invocation(self.engine(), options or self.options, told, {})


def api_of(tracker: Api | None) -> Api:
    """``tracker``, or else whichever is current."""
    return _current if tracker is None else tracker


# Starlette makes its middleware at the first request, and an Azure app is tracked at the end of its
# module. So importing one of the modules for users prepares the first flush: on Lambda, during the
# init phase, which runs at full speed.
_current._expect_invocations()
