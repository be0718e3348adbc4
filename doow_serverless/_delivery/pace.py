"""How quick a server is, as far as its answers have shown."""

from __future__ import annotations

LEAST_S = 0.5
"""Seconds beyond the mean that mean nothing: a busy process is late by as much, on either side."""


class Pace:
    """How long this server has needed for its answers, estimated as TCP does (RFC 6298)."""

    def __init__(self) -> None:
        self._mean_s: float | None = None
        self._deviation_s = 0.0

    def __repr__(self) -> str:
        return f"Pace({self._mean_s}, ± {self._deviation_s:.3f} s)"

    def note(self, seconds: float) -> None:
        """An answer came after so long."""
        if self._mean_s is None:
            self._mean_s, self._deviation_s = seconds, seconds / 2
        else:
            self._deviation_s += (abs(seconds - self._mean_s) - self._deviation_s) / 4
            self._mean_s += (seconds - self._mean_s) / 8

    def patience_s(self, otherwise: float) -> float:
        """Seconds within which an answer should have come; ``otherwise`` where none ever has."""
        if self._mean_s is None:
            return otherwise
        return self._mean_s + max(4 * self._deviation_s, LEAST_S)
