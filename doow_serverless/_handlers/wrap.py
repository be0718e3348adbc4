"""Handlers become tracked ones: which kind of handler is tracked by whom."""

from __future__ import annotations

from functools import partial

from doow_serverless._callables import (
    call_within,
    is_coroutine_function,
    is_generator_function,
    name_of,
)
from doow_serverless._redaction import show
from doow_serverless.errors import ConfigurationError

from .invocation import Invocation
from .platform import adapter_of, find_deadline, find_identity, prepare, server_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping
    from typing import Any, TypeAlias

    from doow_serverless._engine import Engine

    from .options import TrackedOptions

    FindEngine: TypeAlias = Callable[[], Engine]


def wrap(handler: Any, options: TrackedOptions, engine: FindEngine) -> Any:
    """``handler``, tracked. ``engine`` is asked at each call, since it may be configured late."""
    if isinstance(handler, (staticmethod, classmethod)):
        return type(handler)(wrap(handler.__func__, options, engine))
    adapt = adapter_of(handler)
    if adapt is not None:
        return adapt(handler, options, engine)
    handler = prepare(handler, options)
    _check(handler)
    return call_within(
        handler,
        lambda args, kwargs: begin_invocation(engine(), options, args, kwargs),
        divert=_to_servers(handler, options, engine),
    )


def _to_servers(
    handler: Any, options: TrackedOptions, engine: FindEngine
) -> Callable[[tuple[Any, ...]], Any]:
    """What serves a call by a web server, whose response goes on after the call, or within it."""
    is_async = is_coroutine_function(handler)

    def divert(args: tuple[Any, ...]) -> Any:
        if not is_async and is_wsgi_call(args):
            protocol, count = "wsgi", 2
        elif is_asgi_call(args):
            protocol, count = "asgi", 3
        else:
            return None
        app = partial(handler, *args[:-count])
        return partial(server_of(protocol), app, options, engine(), *args[-count:])

    return divert


def begin_invocation(
    engine: Engine,
    options: TrackedOptions,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    request: MutableMapping[str, Any] | None = None,
) -> Invocation:
    """One call of a handler with these arguments, among which platforms find what they know.

    Where a server of ASGI calls, ``request`` is its scope.
    """
    identity = find_identity(args, kwargs) if options.idempotent else None
    return Invocation(engine, options, partial(find_deadline, args, kwargs), identity, request)


def is_wsgi_call(args: tuple[Any, ...]) -> bool:
    """Whether these are the arguments of a WSGI application (PEP 3333), maybe after a self."""
    return (
        len(args) >= 2
        and type(args[-2]) is dict
        and "wsgi.version" in args[-2]
        and callable(args[-1])
    )


def is_asgi_call(args: tuple[Any, ...]) -> bool:
    """Whether these are the arguments of an ASGI application, maybe after a self."""
    return (
        len(args) >= 3
        and isinstance(args[-3], dict)
        # Not the mapping's own method, which may be the application's.
        and dict.get(args[-3], "type") in ("http", "websocket", "lifespan")
        and callable(args[-2])
        and callable(args[-1])
    )


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
