"""Tells the kinds of callables apart, and calls each within a span; without the module inspect."""

from __future__ import annotations

import sys
from functools import partial, update_wrapper
from types import CoroutineType, FunctionType

from ._stand_ins import StandIn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any, TypeAlias

    from typing_extensions import Self

    Divert: TypeAlias = Callable[[Any, tuple[Any, ...]], Callable[[], Any] | None]


class Span:
    """One call: entered before it, left after it, whatever kind of callable it is.

    A subclass begins it in ``__enter__`` and ends it in ``__exit__``, which sets ``_is_left`` last
    and does not end what is suspended.
    """

    __slots__ = ("_is_left", "_is_suspended")

    def __init__(self) -> None:
        self._is_left = False
        self._is_suspended = False

    def __enter__(self) -> Self:
        raise NotImplementedError

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        self._is_suspended = False
        return self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.__exit__(kind)

    def suspend(self) -> None:
        """Have the next ``__exit__`` not end the call, which an ``__aenter__`` resumes."""
        self._is_suspended = True

    def leave_anyway(self) -> None:
        """End the call, as one that failed, where the handler of a signal has kept it from that."""
        if not self._is_left:
            self._is_suspended = False
            self.__exit__(BaseException)

    @staticmethod
    def goes_on_with(result: Any) -> bool:
        """Return whether a call that returned this goes on: a coroutine, and no other awaitable."""
        kind = type(result)
        if kind is CoroutineType:
            return True
        # One of another kind, as compiled code makes; no future is one.
        return hasattr(kind, "__await__") and hasattr(kind, "send") and hasattr(kind, "throw")

    async def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Await the coroutine that a call has returned, within the span, and end that."""
        try:
            async with self:
                result = await coroutine
                await self.asettle(result)
                return result
        except BaseException:
            self.leave_anyway()
            raise

    def settle(self, result: Any) -> None:
        """Take in what the call returned, before it is left."""

    async def asettle(self, result: Any) -> None:
        """As `settle`, of what a coroutine returned."""


# The CO_ flags of the module inspect: https://docs.python.org/3/library/inspect.html
_GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x200


def is_coroutine_function(function: Any) -> bool:
    """Whether a call gives a coroutine, whose body runs when it is awaited."""
    return bool(_code_flags(function) & _COROUTINE)


def is_generator_function(function: Any) -> bool:
    """Whether a call gives a generator, sync or async, whose body runs when it is consumed."""
    return bool(_code_flags(function) & (_GENERATOR | _ASYNC_GENERATOR))


def name_of(function: Any) -> str:
    """A name for messages, also of partials and of objects with ``__call__``."""
    return getattr(function, "__qualname__", None) or type(function).__qualname__


def dressed(wrapper: Any, function: Any) -> Any:
    """``wrapper`` with the name, signature and attributes of ``function``."""
    update_wrapper(wrapper, function)
    if not hasattr(function, "__name__"):  # A partial, or an object with __call__.
        wrapper.__name__ = wrapper.__qualname__ = type(function).__name__
    _set_signature(wrapper, function)
    return wrapper


_BLIND_TO_WRAPPED = ("bottle", "pyramid")
"""Frameworks for which ``__wrapped__`` is not enough. They read the arguments of a view by
``inspect.getfullargspec``, which does not follow it: Pyramid calls ``view(request)`` with a
context, too, and Bottle makes no routes of arguments."""


def _set_signature(wrapper: Any, function: Any) -> None:
    """Set ``__signature__`` if such a framework is loaded; ``__wrapped__`` serves all others."""
    if "__signature__" in wrapper.__dict__ or sys.modules.keys().isdisjoint(_BLIND_TO_WRAPPED):
        return
    try:
        wrapper.__signature__ = signature_of(function)
    except (TypeError, ValueError):  # There is none, of some callables that are written in C.
        return


def signature_of(function: Any) -> Any:
    """The signature to set on a wrapper: with its annotations evaluated, if they can be.

    Nobody evaluates the annotations of a signature that is set, not even
    ``inspect.signature(…, eval_str=True)``.

    Raises:
        TypeError, ValueError: As ``inspect.signature`` does.
    """
    from inspect import signature  # Dear at import; who needs signatures has imported it.

    try:
        return signature(function, eval_str=True)
    except Exception:  # An annotation may name what is not defined yet, or only for type checkers.
        return signature(function)


def _in_place_of(
    function: Any, wrapper: Any, begin: Callable[..., Span], divert: Divert | None
) -> Any:
    """``wrapper``, dressed; for an object, a stand-in that keeps its methods and attributes."""
    if type(function) is FunctionType:
        return dressed(_moved(wrapper, function.__globals__), function)
    update_wrapper(wrapper, function, ("__module__", "__name__", "__qualname__", "__doc__"), ())
    _set_signature(wrapper, function)
    return StandIn(function, wrapper, partial(call_within, begin=begin, divert=divert))


def _moved(wrapper: Any, module: dict[str, Any]) -> Any:
    """``wrapper`` as if it had been defined in the module with these globals, the handler's.

    Frameworks evaluate annotations that are text there, though they are the handler's (Powertools'
    Event Handler, and FastAPI for long). So its code must look up no global name.
    """
    return FunctionType(wrapper.__code__, module, closure=wrapper.__closure__)


def _code_flags(function: Any) -> int:
    """The flags of the code that a call runs, under partials, methods and callable objects."""
    while isinstance(function, partial):
        function = function.func
    code = getattr(function, "__code__", None)
    if code is None:
        code = getattr(getattr(function, "__call__", None), "__code__", None)  # noqa: B004
    return getattr(code, "co_flags", 0)


def call_within(
    function: Any,
    begin: Callable[[tuple[Any, ...], dict[str, Any]], Span],
    divert: Divert | None = None,
) -> Any:
    """``function``, of which each call runs within the span that ``begin(args, kwargs)`` makes.

    On a def, an async def, or a def that returns a coroutine, as decorators make them: there the
    span ends with the coroutine. A span begins before its coroutine is made, so that one that
    refuses leaves none unawaited.

    Args:
        function: The callable.
        begin: Makes the span of one call.
        divert: Gives what to do instead with a call of the function with these arguments, or None.

    Returns:
        A function, or what stands in for an object; it can be copied, and pickled where the
        object, ``begin`` and ``divert`` can.
    """

    # Neither of the two looks up a global name: see _moved(). Hence the bare excepts.
    async def within_async(*args: Any, **kwargs: Any) -> Any:
        instead = None if divert is None else divert(function, args)
        if instead is not None:
            return await instead()
        span = begin(args, kwargs)
        try:
            async with span:
                result = await function(*args, **kwargs)
                await span.asettle(result)
                return result
        except:
            span.leave_anyway()
            raise

    def within(*args: Any, **kwargs: Any) -> Any:
        instead = None if divert is None else divert(function, args)
        if instead is not None:
            return instead()
        span = begin(args, kwargs)
        try:
            with span:
                result = function(*args, **kwargs)
                if not span.goes_on_with(result):
                    span.settle(result)
                    return result
                span.suspend()
        except:
            span.leave_anyway()
            raise
        return span.run(result)

    wrapper = within_async if is_coroutine_function(function) else within
    return _in_place_of(function, wrapper, begin, divert)
