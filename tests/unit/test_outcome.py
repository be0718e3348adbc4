"""The account of a flush."""

from __future__ import annotations

import pytest

from doow_serverless import Outcome
from doow_serverless.errors import ErrorKind


def test_an_empty_one_is_ok() -> None:
    """Nothing to send is no failure."""
    empty = Outcome()
    assert (empty.accepted, empty.rejected, empty.unsent, empty.requests, empty.elapsed_s) == (
        0,
        [],
        {},
        0,
        0.0,
    )
    assert empty.ok


@pytest.mark.parametrize(
    ("outcome", "ok"),
    [
        (Outcome(accepted=3), True),
        (Outcome(accepted=3, rejected=[("e", "why")]), False),
        (Outcome(unsent={"TIMEOUT": 1}), False),
        (Outcome(accepted=3, requests=5, elapsed_s=9.0), True),
    ],
)
def test_ok(outcome: Outcome, ok: bool) -> None:
    """It is ok if nothing was rejected and nothing is unsent."""
    assert outcome.ok is ok


def test_unsent_adds_up() -> None:
    """Events count under their reason, which may be asked for as a string."""
    outcome = Outcome()
    outcome.add_unsent(ErrorKind.TIMEOUT, 2)
    outcome.add_unsent("TIMEOUT", 3)
    outcome.add_unsent("NETWORK_ERROR", 0)
    assert outcome.unsent == {"TIMEOUT": 5}
    assert outcome.unsent[ErrorKind.TIMEOUT] == 5


def test_equality_and_repr() -> None:
    """Outcomes are compared by all they say, and say it plainly."""
    one = Outcome(1, [("e", "why")], {ErrorKind.TIMEOUT: 2}, 3, 0.25)
    same = Outcome(1, [("e", "why")], {"TIMEOUT": 2}, 3, 0.25)
    assert one == same
    assert one != Outcome(1, [("e", "why")], {"TIMEOUT": 2}, 4, 0.25)
    assert one != "Outcome"
    assert repr(one).startswith(
        "Outcome(accepted=1, rejected=[('e', 'why')], unsent={'TIMEOUT': 2}, requests=3, "
        "elapsed_s=0.2500"
    )
    with pytest.raises(TypeError):
        hash(one)


def test_no_two_share_their_lists() -> None:
    """A fresh outcome starts empty, whatever became of another."""
    Outcome().rejected.append(("e", "why"))
    Outcome().add_unsent("TIMEOUT", 1)
    assert Outcome() == Outcome(0, [], {}, 0, 0.0)
