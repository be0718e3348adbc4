"""Objects that stand in for others: tracked callables that are no plain functions."""

from __future__ import annotations

from weakref import WeakKeyDictionary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_OWN = {
    "__call__", "__class__", "__copy__", "__deepcopy__", "__del__", "__delattr__", "__dict__",
    "__doc__", "__get__", "__getattr__", "__getattribute__", "__getnewargs__", "__getnewargs_ex__",
    "__getstate__", "__init__", "__init_subclass__", "__module__", "__new__", "__reduce__",
    "__reduce_ex__", "__set_name__", "__setattr__", "__setstate__", "__slots__",
    "__subclasshook__", "__weakref__",
}  # fmt: skip
"""What a stand-in does itself, or what is no operator. Python looks operators up in the type."""


class StandIn:
    """Stands in for a callable object: all but the calls are the object's own affair.

    That is its attributes, also when they are set, its methods, its operators, and what
    ``isinstance`` says. Its methods see the object, not the stand-in: what they call is not
    tracked.

    Args:
        target: The object.
        call: A function to call in its place.
        again: Makes a stand-in for another object of its kind: a copy, or one that is bound.
    """

    __slots__ = ("__weakref__", "_again", "_call", "_target")

    def __new__(cls, target: Any, call: Callable[..., Any], again: Callable[[Any], Any]) -> StandIn:
        made: StandIn = object.__new__(_kind_for(type(target)))
        for name, value in (("_target", target), ("_call", call), ("_again", again)):
            object.__setattr__(made, name, value)
        return made

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return object.__getattribute__(self, "_call")(*args, **kwargs)

    def __getattribute__(self, name: str) -> Any:
        target = object.__getattribute__(self, "_target")
        if name == "__wrapped__":
            return target
        if name == "__call__":
            return object.__getattribute__(self, "_call")
        if name in ("__copy__", "__deepcopy__", "__reduce__", "__reduce_ex__"):
            return object.__getattribute__(self, name)
        if name in ("__name__", "__qualname__") and not hasattr(target, name):
            return type(target).__name__  # Frameworks name routes after their functions.
        return getattr(target, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(object.__getattribute__(self, "_target"), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(object.__getattribute__(self, "_target"), name)

    def __copy__(self) -> Any:
        from copy import copy

        return object.__getattribute__(self, "_again")(copy(self.__wrapped__))

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        from copy import deepcopy

        return object.__getattribute__(self, "_again")(deepcopy(self.__wrapped__, memo))

    def __reduce_ex__(self, _protocol: object) -> tuple[Any, ...]:
        return object.__getattribute__(self, "_again"), (self.__wrapped__,)


def _bind(self: Any, instance: Any, owner: type | None = None) -> Any:
    """What stands in for the object as a method, where the object would become one."""
    target = self.__wrapped__
    bound = type(target).__get__(target, instance, owner)
    return self if bound is target else object.__getattribute__(self, "_again")(bound)


def _operator(name: str) -> Any:
    def operator(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.__wrapped__, name)(*args, **kwargs)

    return operator


_kinds: WeakKeyDictionary[type, type[StandIn]] = WeakKeyDictionary()


def _kind_for(kind: type) -> type[StandIn]:
    """The subclass whose instances have the operators that those of ``kind`` have."""
    found = _kinds.get(kind)
    if found is None:
        members: dict[str, Any] = {"__slots__": ()}
        for name in dir(kind):
            if name.startswith("__") and name.endswith("__") and name not in _OWN:
                value = getattr(kind, name, None)
                if value is None:
                    members[name] = None  # As of what cannot be hashed.
                elif callable(value):
                    members[name] = _operator(name)
        if hasattr(kind, "__get__"):
            members["__get__"] = _bind
        found = _kinds[kind] = type("StandIn", (StandIn,), members)
    return found
