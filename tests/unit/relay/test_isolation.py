"""What Doow cannot digest is given up once that is certain, and nothing is counted twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doow_serverless._delivery.patient import Undeliverable
from doow_serverless._sealing import split
from doow_serverless.relay._isolation import MAX_SUSPECTS, Isolation, Suspects
from doow_serverless.relay._recent import Recent
from tests.batches import batch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from doow_serverless._sealing import Batch

ROUNDS = 12
"""Deliveries after which all is decided: two for each level of the halves."""


class Doow:
    """Fails with each batch that holds one of some events, in one of two ways.

    Args:
        errors: It answers that it cannot take them.
        losses: It takes them, and the answer is lost.
    """

    def __init__(self, errors: Iterable[str] = (), losses: Iterable[str] = ()) -> None:
        self.errors, self.losses = {*errors}, {*losses}
        self.is_down = False
        self.counted: dict[str, set[str]] = {}
        self.given_up: dict[str, set[str]] = {}

    def take(self, one: Batch) -> None:
        if self.is_down or self.errors.intersection(one.event_ids):
            raise Undeliverable("500", ends_all=False, is_answered=True)
        for event_id in one.event_ids:
            self.counted.setdefault(event_id, set()).add(one.id)
        if self.losses.intersection(one.event_ids):
            raise Undeliverable("504", ends_all=False, is_ambiguous=True)

    def leave(self, one: Batch, _: str) -> None:
        for event_id in one.event_ids:
            self.given_up.setdefault(event_id, set()).add(one.id)


class Desk:
    """Delivers as a relay does, one batch after the other, and those that failed once more."""

    def __init__(self, doow: Doow) -> None:
        self.doow = doow
        self.known: set[str] = set()
        self.halved, self.suspects = Recent(1_000), Suspects()

    def send(self, one: Batch) -> None:
        if one.id in self.known:
            return
        self.attempt(one)
        self.known.add(one.id)
        self.suspects.got_through(one.id)

    def attempt(self, one: Batch) -> None:
        if one.id in self.halved:
            for half in split(one):
                self.attempt(half)
        else:
            self.doow.take(one)

    def deliver(self, one: Batch) -> bool:
        """Whether it need not come again."""
        try:
            self.send(one)
        except Undeliverable as problem:
            isolation = Isolation(self.send, self.doow.leave, self.suspects, self.halved)
            try:
                isolation.settle(one, problem)
            except Undeliverable:
                return False
        return True


@given(st.sets(st.integers(0, 15)), st.sets(st.integers(0, 15), max_size=2), st.integers(1, 16))
def test_each_event_has_one_end(errors: set[int], losses: set[int], events: int) -> None:
    """Counted under one id, or written down under one; healthy ones alone count, or wait there."""
    one = batch(events)
    ids = one.event_ids
    bad = {ids[at] for at in errors if at < events}
    lost = {ids[at] for at in losses if at < events}
    doow = Doow(bad, lost)
    desk = Desk(doow)
    for _ in range(ROUNDS):
        if desk.deliver(one):
            break
        desk.deliver(batch())
    else:
        pytest.fail("the batch holds up what follows for ever")
    for event_id in ids:
        under = doow.counted.get(event_id, set()) | doow.given_up.get(event_id, set())
        assert len(under) == 1
    assert bad <= doow.given_up.keys()


def test_one_of_many() -> None:
    """It is found at once, since other halves get through; none of them waits for a person."""
    one = batch(100)
    doow = Doow(errors=[one.event_ids[37]])
    assert Desk(doow).deliver(one)
    assert doow.given_up.keys() == {one.event_ids[37]}
    assert len(doow.counted) == 99


@pytest.mark.parametrize("events", [1, 4])
def test_an_outage(events: int) -> None:
    """Where nothing gets through in between nothing is given up, however often it fails."""
    doow = Doow()
    doow.is_down = True
    desk = Desk(doow)
    one, other = batch(events), batch()
    for _ in range(5):
        assert not desk.deliver(one)
        assert not desk.deliver(other)
    doow.is_down = False
    assert desk.deliver(one)
    assert desk.deliver(other)
    assert not doow.given_up


def test_two_outages() -> None:
    """What got through after the first one is a suspect no more."""
    doow = Doow()
    desk = Desk(doow)
    one = batch()
    doow.is_down = True
    assert not desk.deliver(one)
    doow.is_down = False
    assert desk.deliver(one)
    desk.known.clear()  # Its record comes again.
    desk.deliver(batch())
    doow.is_down = True
    assert not desk.deliver(one)


def test_the_end_of_the_time_is_no_fault() -> None:
    suspects, one = Suspects(), batch()
    isolation = Isolation(Doow().take, Doow().leave, suspects, Recent(10))
    for _ in range(3):
        with pytest.raises(Undeliverable):
            isolation.settle(one, Undeliverable("no time is left", ends_all=True))
        suspects.got_through("another")


def test_what_was_delivered_by_half_is_never_given_up_whole() -> None:
    """Also where the other half brings no answer: the whole, replayed, would count it again."""
    one = batch(4)
    doow = Doow(errors=[one.event_ids[3]])
    desk = Desk(doow)
    desk.deliver(one)
    doow.errors, doow.losses = set(), {one.event_ids[2]}
    desk.known.discard(one.id)
    for _ in range(ROUNDS):
        desk.deliver(one)
        desk.deliver(batch())
    assert one.id not in {batch_id for ids in doow.given_up.values() for batch_id in ids}


def test_suspects_are_forgotten_in_the_end() -> None:
    suspects = Suspects()
    for number in range(MAX_SUSPECTS + 1):
        suspects.failed_again(str(number))
    assert "0" not in suspects
    assert "1" in suspects


def test_an_outage_that_begins_amid_the_halves() -> None:
    """One half got through, and then nothing does: the rest is written down, under its own id.

    If it came again as a whole, another process could not know of the half.
    """
    doow = Doow(errors=["-"])
    desk = Desk(doow)
    one = batch(8)
    first, second = split(one)

    def take(half: Batch) -> None:
        desk.send(half)
        doow.is_down = half.id == first.id

    isolation = Isolation(take, doow.leave, desk.suspects, desk.halved)
    isolation.settle(one, Undeliverable("500", ends_all=False, is_answered=True))
    assert doow.counted == {event_id: {first.id} for event_id in first.event_ids}
    assert doow.given_up == {event_id: {second.id} for event_id in second.event_ids}


def test_an_answer_that_was_lost_before() -> None:
    """Though the server answers with an error now it may have the whole, which stays whole."""
    one = batch(4)
    doow = Doow(losses=[one.event_ids[0]])
    desk = Desk(doow)
    assert not desk.deliver(one)
    doow.losses, doow.errors = set(), {one.event_ids[0]}
    assert desk.deliver(batch())
    assert desk.deliver(one)
    assert doow.given_up == {event_id: {one.id} for event_id in one.event_ids}
    assert doow.counted.items() >= doow.given_up.items()
