"""Calls with arguments that a function does not have: they are reported, and raise nothing.

A TypeError of Python's own would reach the handler, and take the usage with it.
"""

from __future__ import annotations

from decimal import Decimal

from doow_serverless._redaction import show

from .plain import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MISSING: Any = object()
"""In the place of an argument that was not passed."""
_MOST_TOLD = 3
_NUMBERS = (int, float, Decimal)


class Misuse:
    """Sorts out the arguments of one call.

    Args:
        called: The name of the function.
        places: The names of the arguments that may go by place, with their values as passed so.
        options: The names of the others.
        others: Further values that were passed by place.
        unknown: Values that were passed by names that are not among ``options``.

    Attributes:
        values: Those of ``places``, however they were passed.
        mistakes: The mistakes in the call, each as the subject of a sentence.
        fault: Why nothing can be counted, if so.
    """

    def __init__(
        self,
        called: str,
        places: dict[str, Any],
        options: tuple[str, ...],
        others: tuple[Any, ...],
        unknown: dict[str, Any],
    ) -> None:
        self._called = called
        self._known = [*places, *options]
        self.values = places
        self.mistakes: list[str] = []
        self.fault = ""
        self._suggested: set[str] = set()
        for name in places:
            self._take(name, unknown)
        self._complain_about(others, unknown)
        first = next(iter(places), None)
        if first is not None and places[first] is MISSING:
            self.fault = f"{first} is missing: {called}({first}, …)"
        elif places.get("quantity", 0) is MISSING and self._may_be_quantity(unknown):
            self.fault = "the quantity is unknown: pass quantity=…"

    def __repr__(self) -> str:
        return f"Misuse({self.mistakes}, {self.fault!r})"

    def _take(self, name: str, unknown: dict[str, Any]) -> None:
        if name not in unknown:
            return
        by_name = unknown.pop(name)
        if self.values[name] is not MISSING:
            self.fault = f"{name} is passed twice to {self._called}()"
        self.values[name] = by_name

    def _complain_about(self, others: tuple[Any, ...], unknown: dict[str, Any]) -> None:
        called, places = self._called, " and ".join(self.values)
        if others:
            remedy = f"it takes {places}" if places else "it takes none"
            if options := self._known[len(self.values) :]:
                remedy = f"all but {places} go by name, such as {options[0]}=…"
            count = "an argument" if len(others) == 1 else f"{len(others)} arguments"
            self.mistakes.append(f"{count} of {called}() without a name ({remedy})")
        for name in list(unknown)[:_MOST_TOLD]:
            self.mistakes.append(f"{show(name)}, which {called}() does not take{self._hint(name)}")
        if len(unknown) > _MOST_TOLD:
            self.mistakes.append(f"each of {len(unknown) - _MOST_TOLD} more arguments")

    def _hint(self, name: str) -> str:
        from difflib import get_close_matches  # Not needed while all is well.

        close = get_close_matches(name[:100], self._known, 1)
        if not close:
            return f" (it takes {', '.join(self._known)})" if self._known else ""
        self._suggested.add(close[0])
        return f" (did you mean {close[0]!r}?)"

    def _may_be_quantity(self, unknown: dict[str, Any]) -> bool:
        """Return True if the default of 1 is probably wrong: it would be a wrong bill."""
        return "quantity" in self._suggested or any(
            type(plain(value)) in _NUMBERS for value in unknown.values()
        )
