"""What platforms know and the engine asks for; filled by the faces, so that imports point down."""

from __future__ import annotations

from doow_serverless._process.log import report_fault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from doow_serverless._engine import Tracker
    from doow_serverless._recording.ids import Identity

    from .wrap import Settings

deadlines: list[Callable[[tuple[Any, ...], dict[str, Any]], Callable[[], float] | None]] = []
"""Where platforms tell the time that is left: each finds, in the arguments of a handler or beside
them, what gives the seconds that remain, or None."""

identities: list[Callable[[tuple[Any, ...], dict[str, Any]], Identity | None]] = []
"""Where platforms name the work of an invocation: each finds, in the arguments of a handler or
beside them, an identity that stays when the platform does the work again, or None."""

after_response: list[Callable[[Coroutine[Any, Any, None]], bool]] = []
"""Where platforms go on once the response has gone back, before they freeze the process: each says
whether it took the coroutine, which is then awaited on whatever loop."""

adapters: dict[str, Callable[[Any, Settings, Callable[[], Tracker]], Any]] = {}
"""What tracks what is no plain function: from the full name of a class, to that which takes it, its
subclasses or its instances."""

preparations: list[Callable[[Any, Settings], Any]] = []
"""How platforms need a handler to be before it is tracked: each returns it, or another in its
stead, or raises ConfigurationError for what must not be tracked there."""

protocols: dict[str, str] = {}
"""Which face serves a call by a web server, whose response goes on after the call or within it:
from ``"wsgi"`` and ``"asgi"`` to the module with ``serve(app, settings, tracker, *arguments)``."""


def first(finders: list[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What the first of ``finders`` finds that finds anything; None if none does, or one fails."""
    try:
        for find in finders:
            found = find(args, kwargs)
            if found is not None:
                return found
    except Exception as fault:
        report_fault("looking at the arguments of the handler", fault)
    return None


def hand_over(coroutine: Coroutine[Any, Any, None]) -> bool:
    """Whether a platform has taken ``coroutine`` to run after the response; else it is closed."""
    try:
        if any(take(coroutine) for take in after_response):
            return True
    except Exception as fault:
        report_fault("asking the platform to go on after the response", fault)
    coroutine.close()
    return False


def prepare(handler: Any, settings: Settings) -> Any:
    """``handler`` as all platforms need it; raises ConfigurationError."""
    for preparation in preparations:
        handler = preparation(handler, settings)
    return handler


def adapter_of(handler: Any) -> Any:
    """What tracks a class or an object like ``handler``, or None."""
    kind = handler if isinstance(handler, type) else type(handler)
    known = (adapters.get(f"{base.__module__}.{base.__qualname__}") for base in kind.__mro__)
    return next(filter(None, known), None)


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
        and args[-3].get("type") in ("http", "websocket", "lifespan")
        and callable(args[-2])
        and callable(args[-1])
    )


def server_of(protocol: str) -> Any:
    """The ``serve`` of the face for ``protocol``, imported once there is use for it."""
    return __import__(protocols[protocol], fromlist=["serve"]).serve
