"""Shapes of JSON objects: the fields that a tool always writes, and those that it may write.

An application's own object is told from a tool's by all of its fields, not by one of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Shape:
    """The fields of one kind of object.

    Args:
        always: The fields that each such object has, with the types of their values.
        maybe: The names of the other fields that it may have, separated by blanks.
    """

    def __init__(self, always: Mapping[str, type], maybe: str = "") -> None:
        self._always = always
        self._names = frozenset({*always, *maybe.split()})

    def fits(self, value: Any) -> bool:
        """Return whether ``value`` is an object of this shape."""
        return (
            isinstance(value, dict)
            and value.keys() <= self._names
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
