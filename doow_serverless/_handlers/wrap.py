"""Handlers become tracked ones: only here def, async def and other callables are told apart."""

from __future__ import annotations

from functools import partial
from types import CoroutineType

from doow_serverless._callables import (
    dressed,
    is_coroutine_function,
    is_generator_function,
    name_of,
)
from doow_serverless._config import FLUSH_MODES, one_of, seconds
from doow_serverless._recording.event import check_attribution, check_text
from doow_serverless._redaction import show
from doow_serverless.errors import ConfigurationError, DoowError

from .invocation import Visit
from .platform import (
    adapter_of,
    deadlines,
    first,
    identities,
    is_asgi_call,
    is_wsgi_call,
    prepare,
    server_of,
)
from .streams import follow, is_stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from typing import Any

    from doow_serverless._engine import Tracker

_ON_EXCEPTION = ("flush", "discard")


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
        flush_mode: str | None = None,
    ) -> None:
        self.removed: list[str] = []
        self.budget_s = None if budget is None else seconds("budget", budget)
        try:
            self.license_id = None if license_id is None else check_text("license_id", license_id)
            self.attribution = check_attribution(attribution, self.removed)
            self.metric = None if metric is None else check_text("metric", metric)
        except DoowError as problem:
            raise ConfigurationError(f"tracked(): {problem}") from None
        self.discards = one_of("on_exception", on_exception, _ON_EXCEPTION) == "discard"
        if not isinstance(idempotent, bool):
            raise ConfigurationError(f"idempotent must be True or False, not {show(idempotent)}")
        self.idempotent = idempotent
        self.flush_mode = (
            None if flush_mode is None else one_of("flush_mode", flush_mode, FLUSH_MODES)
        )


def wrap(handler: Any, settings: Settings, tracker: Callable[[], Tracker]) -> Any:
    """``handler``, tracked. ``tracker`` is asked at each call, since it may be configured late."""
    if isinstance(handler, (staticmethod, classmethod)):
        return type(handler)(wrap(handler.__func__, settings, tracker))
    adapt = adapter_of(handler)
    if adapt is not None:
        return adapt(handler, settings, tracker)
    handler = prepare(handler, settings)
    _check(handler)
    wrapper = _tracked_async if is_coroutine_function(handler) else _tracked
    return dressed(wrapper(handler, settings, tracker), handler)


def _tracked_async(handler: Any, settings: Settings, tracker: Callable[[], Tracker]) -> Any:
    async def tracked_async(*args: Any, **kwargs: Any) -> Any:
        if is_asgi_call(args):
            app = partial(handler, *args[:-3])
            return await server_of("asgi")(app, settings, tracker(), *args[-3:])
        async with visit(tracker(), settings, args, kwargs) as call:
            return await _result(call, handler(*args, **kwargs))

    return tracked_async


def _tracked(handler: Any, settings: Settings, tracker: Callable[[], Tracker]) -> Any:
    def tracked(*args: Any, **kwargs: Any) -> Any:
        if is_wsgi_call(args):
            return server_of("wsgi")(partial(handler, *args[:-2]), settings, tracker(), *args[-2:])
        if is_asgi_call(args):
            return server_of("asgi")(partial(handler, *args[:-3]), settings, tracker(), *args[-3:])
        with visit(tracker(), settings, args, kwargs) as call:
            result = handler(*args, **kwargs)
            if is_stream(result):
                call.flush(is_undecided=True)  # The body is yet to run, and may raise.
                follow(result, call)
            if type(result) is not CoroutineType:
                return result
            # A def that returns a coroutine, as decorators make them: its body is yet to run.
            call.hand_over()
        return _await_in(call, result)

    return tracked


def _check(handler: Any) -> None:
    """Refuse what cannot be wrapped."""
    if isinstance(handler, type) or not callable(handler):
        remedy = "; of classes, only a BaseHTTPRequestHandler" if isinstance(handler, type) else ""
        raise ConfigurationError(
            f"tracked() takes a function or another callable, not {show(handler)}{remedy}"
        )
    if is_generator_function(handler):
        raise ConfigurationError(
            f"tracked() cannot wrap the generator function {name_of(handler)}, whose body runs "
            "only after it has returned: wrap the function that consumes it, or a WSGI application "
            "with doow_serverless.wsgi.DoowMiddleware"
        )


async def _await_in(call: Visit, coroutine: Coroutine[Any, Any, Any]) -> Any:
    async with call:
        return await _result(call, coroutine)


async def _result(call: Visit, coroutine: Coroutine[Any, Any, Any]) -> Any:
    result = await coroutine
    if is_stream(result):
        await call.aflush(is_undecided=True)
        follow(result, call)
    return result


def visit(
    tracker: Tracker, settings: Settings, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Visit:
    """One call of a handler with these arguments, among which platforms find what they know."""
    remaining_s = first(deadlines, args, kwargs)
    identity = first(identities, args, kwargs) if settings.idempotent else None
    return Visit(tracker, settings, remaining_s, identity)
