"""Quantities that may be added to others: exactly, as they are written, or not at all."""

from __future__ import annotations

from decimal import Context, Decimal, Inexact

from doow_serverless.errors import InvalidEvent

from .rules import MAX_DIGITS, measurements_json, number_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from .rules import Pair

    # A number, of which decimals may be digits; or several as JSON, which `Measurements` are.
    Quantity: TypeAlias = int | float | str

_FASTEST_SUM = 10**18
_EXACTLY = Context(prec=MAX_DIGITS, Emax=999, Emin=-999, traps=[Inexact])
"""No sum that needs more digits than one may have keeps the rules."""


def total(one: Quantity, other: Quantity) -> Quantity | None:
    """The exact sum; None where it would break a rule of events.

    Decimals count as they are written: 0.1 and 0.2 are 0.3.
    """
    if type(one) is int and type(other) is int:
        whole = one + other
        if -_FASTEST_SUM < whole < _FASTEST_SUM:
            return whole
        exact: int | Decimal = whole
    elif isinstance(one, Measurements) and isinstance(other, Measurements):
        return one.plus(other)
    else:
        try:
            exact = _EXACTLY.add(Decimal(str(one)), Decimal(str(other)))
        except ArithmeticError:
            return None
    try:
        return number_json("quantity", exact)
    except InvalidEvent:
        return None


class Measurements(str):
    """Several measurements as JSON, to which others of the same metrics may be added.

    Attributes:
        pairs: Metrics and quantities, as `check_measurements` returns them.
        names: The metrics.
    """

    __slots__ = ("names", "pairs")

    names: tuple[str, ...]
    pairs: list[Pair]

    def __new__(cls, pairs: list[Pair]) -> Measurements:
        self = super().__new__(cls, measurements_json(pairs))
        self.pairs = pairs
        self.names = tuple(name for name, _ in pairs)
        return self

    def plus(self, other: Measurements) -> Measurements | None:
        """The sums, metric by metric; None where one would break a rule."""
        pairs = []
        for (name, one), (_, another) in zip(self.pairs, other.pairs, strict=True):
            amount = total(one, another)
            if amount is None:
                return None
            pairs.append((name, amount))
        return Measurements(pairs)
