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
    # Not closures: these can be pickled where the engine can, and leave the handler the only
    # function among what the wrapper refers to, by which Bottle finds it.
    begin = partial(_begin, engine, options)
    return call_within(handler, begin, partial(_to_server, engine, options))


def _begin(
    engine: FindEngine, options: TrackedOptions, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Invocation:
    return begin_invocation(engine(), options, args, kwargs)


def _to_server(
    engine: FindEngine, options: TrackedOptions, handler: Any, args: tuple[Any, ...]
) -> Callable[[], Any] | None:
    """What serves a call by a web server, whose response goes on after the call, or within it."""
    if is_wsgi_call(args) and not is_coroutine_function(handler):
        protocol, count = "wsgi", 2
    elif is_asgi_call(args):
        protocol, count = "asgi", 3
    else:
        return None
    app = partial(handler, *args[:-count])
    return partial(server_of(protocol), app, options, engine(), *args[-count:])


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
    """Whether these are the arguments of a WSGI application, maybe after a self.

    By keys that every environ has: https://peps.python.org/pep-3333/#environ-variables
    """
    return (
        len(args) >= 2
        and type(args[-2]) is dict
        and "wsgi.version" in args[-2]
        and "REQUEST_METHOD" in args[-2]
        and callable(args[-1])
    )


_SCOPES = {
    "http": ("path", "headers"),
    "websocket": ("path", "headers"),
    "lifespan": (),
}
"""What the scope of each type has, by ASGI: https://asgi.readthedocs.io/en/latest/specs/www.html"""


def is_asgi_call(args: tuple[Any, ...]) -> bool:
    """Whether these are the arguments of an ASGI application, maybe after a self.

    A type is not enough: an event may have one, and a test double can be called. Starlette's test
    client leaves ``asgi`` out, but what it has the application receive by is an ``async def``.
    """
    if len(args) < 3 or not isinstance(args[-3], dict):
        return False
    scope, receive, send = args[-3:]
    kind = dict.get(scope, "type")  # Not the mapping's own method, which may do anything.
    needed = _SCOPES.get(kind) if isinstance(kind, str) else None
    return (
        needed is not None
        and all(dict.__contains__(scope, key) for key in needed)
        and callable(receive)
        and callable(send)
        and (isinstance(dict.get(scope, "asgi"), dict) or is_coroutine_function(receive))
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
