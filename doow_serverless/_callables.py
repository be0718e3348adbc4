"""What a callable runs when it is called, without the import of the module inspect."""

from __future__ import annotations

from functools import partial, update_wrapper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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
    return wrapper


def _code_flags(function: Any) -> int:
    """The flags of the code that a call runs, under partials, methods and callable objects."""
    while isinstance(function, partial):
        function = function.func
    code = getattr(function, "__code__", None)
    if code is None:
        code = getattr(getattr(function, "__call__", None), "__code__", None)  # noqa: B004
    return getattr(code, "co_flags", 0)
