"""Shapes of JSON objects: the fields that a tool always writes, and those that it may write.

They tell a tool's object from an object that a logger has written, with a text of somebody else's
in one of its fields. Whoever can have an application print a whole line can imitate any of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Shape:
    """The fields of one kind of object.

    Args:
        always: The fields that each such object has, with the types of their values.
        maybe: The names of the other fields that it may have, separated by blanks; None if the
            fields that it always has tell it from the objects of loggers, whatever else is there.
    """

    def __init__(self, always: Mapping[str, type], maybe: str | None = "") -> None:
        self._always = always
        self._names = None if maybe is None else frozenset({*always, *maybe.split()})

    def fits(self, value: Any) -> bool:
        """Return whether ``value`` is an object of this shape."""
        return (
            isinstance(value, dict)
            and (self._names is None or value.keys() <= self._names)
            and all(isinstance(value.get(name), kind) for name, kind in self._always.items())
        )

    def fits_all(self, value: Any) -> bool:
        """Return whether ``value`` is a list of objects of this shape."""
        return isinstance(value, list) and all(map(self.fits, value))


def listing(whole: Shape, name: str, each: Shape) -> Callable[[dict[str, Any]], bool]:
    """Return a function that tells objects of shape ``whole`` with a list of ``each``.

    Args:
        whole: The shape of the whole object.
        name: The field that is the list.
        each: The shape of its members.
    """
    return lambda value: whole.fits(value) and each.fits_all(value[name])
