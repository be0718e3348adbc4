"""A stretch of time on a fake clock."""

from __future__ import annotations

from doow_serverless._process.clock import Budget


def test_it_counts_down_and_ends_at_zero() -> None:
    """What is left and what is spent add up, until it is overrun."""
    now = [50.0]
    budget = Budget(2.0, lambda: now[0])

    def at(moment: float) -> tuple[float, float]:
        now[0] = moment
        return budget.remaining(), budget.spent()

    assert budget.limit_s == 2.0
    assert [at(50.0), at(50.5), at(52.0), at(53.0)] == [
        (2.0, 0.0),
        (1.5, 0.5),
        (0.0, 2.0),
        (0.0, 3.0),
    ]


def test_a_negative_one_is_empty() -> None:
    """A deadline that has passed leaves nothing."""
    budget = Budget(-1.0, lambda: 50.0)
    assert (budget.limit_s, budget.remaining(), budget.spent()) == (0.0, 0.0, 0.0)
