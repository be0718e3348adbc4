"""Handlers become tracked ones: only here def, async def and other callables are told apart."""

from __future__ import annotations

from types import CoroutineType

from ._callables import dressed, is_coroutine_function, is_generator_function, name_of
from ._config import seconds
from ._event import check_attribution, check_text
from ._faults import report_fault
from ._scopes import Visit
from ._secrets import show
from .errors import ConfigurationError, DoowError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ._ids import Identity
    from ._tracker import Tracker

_ON_EXCEPTION = ("flush", "discard")

deadlines: list[Callable[[tuple[Any, ...], dict[str, Any]], Callable[[], float] | None]] = []
"""Where platforms tell the time that is left: each finds, in the arguments of a handler, what gives
the seconds that remain, or None. Filled by the faces."""

identities: list[Callable[[tuple[Any, ...], dict[str, Any]], Identity | None]] = []
"""Where platforms name the work of an invocation: each finds, in the arguments of a handler, an
identity that stays when the platform does the work again, or None. Filled by the faces."""


class Settings:
    """The options of one ``tracked``; see there."""

    def __init__(
        self,
        *,
        budget: float | None = None,
        license_id: str | None = None,
        attribution: Mapping[str, Any] | None = None,
        on_exception: str = "flush",
        metric: str | None = None,
        idempotent: bool = False,
    ) -> None:
        self.removed: list[str] = []
        self.budget_s = None if budget is None else seconds("budget", budget)
        try:
            self.license_id = None if license_id is None else check_text("license_id", license_id)
            self.attribution = check_attribution(attribution, self.removed)
            self.metric = None if metric is None else check_text("metric", metric)
        except DoowError as problem:
            raise ConfigurationError(f"tracked(): {problem}") from None
        if on_exception not in _ON_EXCEPTION:
            raise ConfigurationError(
                f"on_exception must be 'flush' or 'discard', not {show(on_exception)}"
            )
        self.discards = on_exception == "discard"
        if not isinstance(idempotent, bool):
            raise ConfigurationError(f"idempotent must be True or False, not {show(idempotent)}")
        self.idempotent = idempotent


def wrap(handler: Any, settings: Settings, tracker: Callable[[], Tracker]) -> Any:
    """``handler``, tracked. ``tracker`` is asked at each call, since it may be configured late."""
    if isinstance(handler, (staticmethod, classmethod)):
        return type(handler)(wrap(handler.__func__, settings, tracker))
    if isinstance(handler, type) or not callable(handler):
        raise ConfigurationError(
            f"tracked() takes a function or another callable, not {show(handler)}"
        )
    if is_generator_function(handler):
        raise ConfigurationError(
            f"tracked() cannot wrap the generator function {name_of(handler)}, whose body runs "
            "only after it has returned: wrap the function that consumes it"
        )

    if is_coroutine_function(handler):

        async def tracked_async(*args: Any, **kwargs: Any) -> Any:
            async with _visit(tracker(), settings, args, kwargs):
                return await handler(*args, **kwargs)

        return dressed(tracked_async, handler)

    def tracked(*args: Any, **kwargs: Any) -> Any:
        with _visit(tracker(), settings, args, kwargs) as visit:
            result = handler(*args, **kwargs)
            if type(result) is not CoroutineType:
                return result
            # A def that returns a coroutine, as decorators make them: its body is yet to run.
            visit.hand_over()
        return _await_in(visit, result)

    return dressed(tracked, handler)


async def _await_in(visit: Visit, coroutine: CoroutineType[Any, Any, Any]) -> Any:
    async with visit:
        return await coroutine


def _visit(
    tracker: Tracker, settings: Settings, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Visit:
    remaining_s = _first(deadlines, args, kwargs)
    identity = _first(identities, args, kwargs) if settings.idempotent else None
    return Visit(tracker, settings, remaining_s, identity)


def _first(finders: list[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        found = (find(args, kwargs) for find in finders)
        return next((value for value in found if value is not None), None)
    except Exception as fault:
        report_fault("looking at the arguments of the handler", fault)
        return None
