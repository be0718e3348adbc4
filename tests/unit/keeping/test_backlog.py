"""The backlog: bounded, in order, and each batch in it once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doow_serverless._keeping.backlog import Backlog
from doow_serverless._sealing import Batch
from doow_serverless.errors import ErrorKind

TIMEOUT = ErrorKind.TIMEOUT


def batch(id: str, events: int = 1, size: int = 10) -> Batch:
    ids = tuple(f"{id}-{number}" for number in range(events))
    return Batch(id, ids, b"x" * size, False, "1")


def ids(batches: list[Batch]) -> list[str]:
    return [batch.id for batch in batches]


def test_oldest_first() -> None:
    """Batches come back in the order in which they came, and stay until they are removed."""
    backlog = Backlog(100, 1_000)
    for name in "abc":
        assert backlog.put(batch(name, 2), TIMEOUT) == []
    assert (len(backlog), backlog.events) == (3, 6)
    found = []
    while (oldest := backlog.oldest()) is not None:
        assert backlog.oldest() is oldest
        found.append(oldest.id)
        assert backlog.remove(oldest.id)
    assert found == ["a", "b", "c"]
    assert (len(backlog), backlog.events) == (0, 0)


def test_a_batch_is_kept_once() -> None:
    """What is here already is not counted again, and what is gone is not removed twice."""
    backlog = Backlog(100, 1_000)
    backlog.put(batch("a", 3), TIMEOUT)
    backlog.put(batch("a", 3), TIMEOUT)
    assert (len(backlog), backlog.events) == (1, 3)
    assert [backlog.remove("a"), backlog.remove("a")] == [True, False]
    assert backlog.events == 0


@pytest.mark.parametrize(("max_events", "max_bytes"), [(5, 1_000), (100, 50)])
def test_the_oldest_are_pushed_out(max_events: int, max_bytes: int) -> None:
    """Where events or bytes exceed their bound, the oldest go, and are handed back."""
    backlog = Backlog(max_events, max_bytes)
    for name in "abcde":
        backlog.put(batch(name), TIMEOUT)
    assert ids(backlog.put(batch("f", 2, 20), TIMEOUT)) == ["a", "b"]
    assert ids(backlog.drain()) == ["c", "d", "e", "f"]


def test_what_is_larger_than_all_room_is_not_kept() -> None:
    """A batch beyond the bounds pushes everything out, itself included."""
    backlog = Backlog(3, 1_000)
    backlog.put(batch("a"), TIMEOUT)
    assert ids(backlog.put(batch("b", 4), TIMEOUT)) == ["a", "b"]
    assert (len(backlog), backlog.events) == (0, 0)


def test_halves_take_the_place_of_the_whole() -> None:
    """They stand at the front, in their order, and count instead of it."""
    backlog = Backlog(100, 1_000)
    whole = batch("a", 4)
    for one in (whole, batch("b")):
        backlog.put(one, TIMEOUT)
    backlog.replace(whole, (batch("a0", 2), batch("a1", 2)))
    assert backlog.events == 5
    assert ids(backlog.drain()) == ["a0", "a1", "b"]
    backlog.replace(whole, (batch("a0", 2), batch("a1", 2)))
    assert len(backlog) == 0


def test_every_batch_that_comes_in_is_told() -> None:
    """The seam for the dead letters sees each, with the reason."""
    told: list[tuple[str, str]] = []
    backlog = Backlog(1, 1_000, lambda batch, reason: told.append((batch.id, reason)))
    backlog.put(batch("a"), TIMEOUT)
    backlog.put(batch("b"), ErrorKind.RATE_LIMITED)
    assert told == [("a", "TIMEOUT"), ("b", "RATE_LIMITED")]


@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.integers(1, 5), st.integers(1, 30)) | st.integers(0, 20)
    )
)
def test_bounds_hold_whatever_comes(steps: list[tuple[int, int, int] | int]) -> None:
    """Counts are those of what is inside, within the bounds, and nothing leaves unnoticed."""
    backlog = Backlog(12, 60)
    inside: dict[str, Batch] = {}
    for step in steps:
        if isinstance(step, int):
            assert backlog.remove(str(step)) == (inside.pop(str(step), None) is not None)
        else:
            number, events, size = step
            new = batch(str(number), events, size)
            pushed_out = backlog.put(new, TIMEOUT)
            inside.setdefault(new.id, new)
            for gone in pushed_out:
                assert next(iter(inside)) == gone.id
                del inside[gone.id]
        assert backlog.events == sum(map(len, inside.values())) <= 12
        assert sum(len(one.body) for one in inside.values()) <= 60
    assert ids(backlog.drain()) == list(inside)
