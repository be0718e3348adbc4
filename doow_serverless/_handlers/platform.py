"""What is asked of the platform around: deadline, name of the work, code after the response.

The modules of the platforms lie above this one. A platform's is imported only where one of its
tell-tales is there: a module that its runtime has loaded, or a variable that it sets.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

from doow_serverless._process import init_phase
from doow_serverless._process.log import report_fault, warn
from doow_serverless._process.signals import is_from_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from doow_serverless._engine import Engine
    from doow_serverless._recording.ids import Identity

    from .options import TrackedOptions

    class Deferred(Protocol):
        """What a platform may call once the response has gone back (an `Invocation`)."""

        def flush_after_response(self, ends_at: float) -> None:
            """Deliver, on whatever thread, until that moment on the monotonic clock."""

        async def aflush_after_response(self) -> None:
            """Deliver, without blocking the event loop."""


_PACKAGE = __name__.partition(".")[0]


class Platform:
    """One platform, and how it is told that the process runs there.

    Args:
        module: The name of its module in ``_platforms``, which offers ``find_deadline(args,
            kwargs)``, ``find_identity(args, kwargs)`` and ``prepare(handler, options)``; and, where
            code may run after the response, ``after_response(invocation)``, which says in words
            why not, or None once it is arranged.
        loaded: Modules of which one is loaded there. None: its functions are known by their
            arguments alone.
        variable: One that is set there. Only one, since it is asked for at each call.
    """

    __slots__ = ("_loaded", "_module", "_name", "_variable")

    def __init__(self, module: str, loaded: tuple[str, ...] | None, variable: str = "") -> None:
        self._name = f"{_PACKAGE}._platforms.{module}"
        self._loaded = loaded
        self._variable = variable
        self._module: Any = None

    def __repr__(self) -> str:
        return f"Platform({self._name}, {'imported' if self._module else 'not imported'})"

    def module(self) -> Any:
        """Its module, or None while nothing tells that the process runs there."""
        if self._module is None and self._is_told():
            self._module = import_module(self._name)
        return self._module

    def _is_told(self) -> bool:
        if self._loaded is None:
            return True
        for name in self._loaded:  # Not any(…), which costs more than all of this.
            if name in sys.modules:
                return True
        return self._variable in os.environ


PLATFORMS = (
    Platform("aws", None),
    Platform(
        "azure",
        # The first is what functions import; the others are the worker, which is there before.
        (
            "azure.functions",
            "azure_functions_worker",
            "azure_functions_runtime",
            "azure_functions_runtime_v1",
        ),
        "FUNCTIONS_WORKER_RUNTIME",
    ),
    Platform("vercel", ("vercel_runtime",), "VERCEL"),
)

_ADAPTERS = {
    "http.server.BaseHTTPRequestHandler": ("vercel", "adapt"),
    "azure.functions.decorators.function_app.FunctionBuilder": ("azure", "adapt"),
    "azure.functions.decorators.function_app.DecoratorApi": ("azure", "refuse_app"),
}
"""What tracks a class, its subclasses or its instances: from its full name to a module of
``_platforms``, and the function there of the thing, the options and the engine."""


def find_deadline(args: tuple[Any, ...], kwargs: dict[str, Any]) -> float | None:
    """When the platform kills the function, on the monotonic clock, where one tells."""
    found: float | None = _first("find_deadline", args, kwargs)
    return found


def find_identity(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Identity | None:
    """What names the work of this call, and names it again when the platform has it done again."""
    found: Identity | None = _first("find_identity", args, kwargs)
    return found


def _first(question: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The first answer of a platform that has one; None if none has, or one fails."""
    try:
        for platform in PLATFORMS:
            module = platform.module()
            found = None if module is None else getattr(module, question)(args, kwargs)
            if found is not None:
                return found
    except BaseException as fault:
        if is_from_signal(fault):
            raise
        if _is_ours(fault):
            report_fault("looking at the arguments of the handler", fault)
        # Otherwise a method of an argument has raised: then no platform made it.
    return None


def _is_ours(fault: BaseException) -> bool:
    """Return True if code of this library has raised ``fault``, not code that it called."""
    traceback = fault.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    module = "" if traceback is None else traceback.tb_frame.f_globals.get("__name__", "")
    return module == _PACKAGE or str(module).startswith(f"{_PACKAGE}.")


def prepare(handler: Any, options: TrackedOptions) -> Any:
    """``handler`` as the platforms need it; raises ConfigurationError for what one refuses."""
    for platform in PLATFORMS:
        module = platform.module()
        if module is not None:
            handler = module.prepare(handler, options)
    return handler


def adapter_of(handler: Any) -> Callable[[Any, TrackedOptions, Callable[[], Engine]], Any] | None:
    """What tracks a class or an object like ``handler``, or None for a plain callable."""
    kind = handler if isinstance(handler, type) else type(handler)
    for base in kind.__mro__:
        known = _ADAPTERS.get(f"{base.__module__}.{base.__qualname__}")
        if known is not None:
            module, function = known
            adapter: Any = getattr(import_module(f"{_PACKAGE}._platforms.{module}"), function)
            return adapter  # type: ignore[no-any-return]  # the table says so
    return None


def expect_after_response() -> None:
    """Flushes after the response are asked for, which Lambda must hear in its init phase."""
    try:
        if init_phase.is_on():
            import_module(f"{_PACKAGE}._platforms.aws").expect_after_response()
    except Exception as fault:
        report_fault("asking the platform to go on after the response", fault)


def run_after_response(invocation: Deferred) -> bool:
    """Whether a platform will have ``invocation`` flush after the response."""
    why = "no platform here goes on once the response has gone back"
    try:
        for platform in PLATFORMS:
            module = platform.module()
            if hasattr(module, "after_response"):
                why_not = module.after_response(invocation)
                if why_not is None:
                    return True
                why = why_not or why
    except Exception as fault:
        report_fault("asking the platform to go on after the response", fault)
    _warn_once(f"flush_mode='after_response' is not to be had ({why}): the flush comes before it")
    return False


_warned: set[str] = set()


def _warn_once(message: str) -> None:
    if not _warned:  # Whatever the reason: it would be told at each invocation.
        _warned.add(message)
        warn(message)


def server_of(protocol: str) -> Any:
    """``serve(app, options, engine, *arguments)`` of the module for ``"wsgi"`` or ``"asgi"``."""
    return import_module(f"{_PACKAGE}.{protocol}").serve
