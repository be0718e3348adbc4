"""A window seals what it was given: all of it once, alike whenever its work is done again."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doow_serverless._frames.format import frames_of
from doow_serverless._frames.reader import Part
from doow_serverless._recording import scope as scope_module
from doow_serverless._recording.ids import new_id
from doow_serverless._sealing import pack
from doow_serverless.relay._records import records_in
from doow_serverless.relay._window import MAX_KNOWN, MAX_PARTS_LENGTH, Window, digest
from doow_serverless.testing import MemoryTransport
from tests.batches import batch
from tests.unit.recording.folded import HOUR, made
from tests.unit.recording.test_folding_totals import EVENTS, NUMBERS

if TYPE_CHECKING:
    from doow_serverless._sealing import Batch

SEVERAL = st.dictionaries(st.sampled_from(["in", "out"]), NUMBERS, min_size=1)
LOTS = st.lists(st.lists(st.one_of(EVENTS, SEVERAL)), max_size=6)
ODD: list[Any] = [True, None, "1", [1]]


def sealed(lots: list[list[dict[str, Any]]], seconds: list[float]) -> list[Batch]:
    """A batch of each lot, as an invocation seals it at that time."""
    transport, now = MemoryTransport(), [HOUR]
    tracker = made(transport)

    def record(lot: list[dict[str, Any]]) -> None:
        for event in lot:
            if "metric" in event:
                tracker.track(**event)
            else:
                tracker.track_all(event)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scope_module, "time", lambda: now[0])
        for lot, later in zip(lots, seconds, strict=False):
            now[0] += later
            tracker.tracked(record)(lot)
    return list(transport.batches)


def plain_batch(events: int, **fields: Any) -> Batch:
    """Events that have no metadata, so that nothing but ``fields`` keeps them from folding."""
    made = json.loads(batch(events, **fields).json())["events"]
    texts = [json.dumps({k: v for k, v in one.items() if k != "metadata"}) for one in made]
    return pack(new_id(), [one["event_id"] for one in made], texts, "0.1.0", True)


def through(batches: list[Batch], fold: Any, size: int, name: str = "shard 1") -> list[Batch]:
    """What a window makes of them that gets so many an invocation."""
    state: dict[str, Any] = {}
    for at in range(0, len(batches), size):
        window = Window(json.loads(json.dumps(state)), name, str(at), fold)
        assert all(window.add(one) for one in batches[at : at + size])
        state = window.state()
    return Window(state, name, "later", fold).seal()


def totals(batches: list[Batch]) -> dict[str, Fraction]:
    """By all that an event says, and the hour."""
    found: dict[str, Fraction] = {}
    for one in batches:
        for event in json.loads(one.json(), parse_float=Decimal)["events"]:
            said = {name: event.get(name) for name in ("license_id", "unit", "attribution", "kind")}
            for each in event["measurements"]:
                key = json.dumps([said, event["occurred_at"][:13], each["metric_name"]])
                found[key] = found.get(key, Fraction(0)) + Fraction(each["quantity"])
    return found


@settings(max_examples=200, deadline=None)
@given(
    LOTS,
    st.lists(st.floats(0, 4_000), min_size=6, max_size=6),
    st.sampled_from([False, True, frozenset({"tokens"}), frozenset({"in", "out"})]),
    st.integers(1, 4),
)
def test_totals_are_the_same(
    lots: list[Any], seconds: list[float], fold: Any, invocation: int
) -> None:
    """By metric, license, unit, attribution, kind and hour, to the last digit."""
    batches = sealed(lots, seconds)
    once = through(batches, fold, invocation)
    assert totals(once) == totals(batches)
    again = through(batches, fold, invocation)
    assert [(one.id, one.body) for one in again] == [(one.id, one.body) for one in once]


def test_equal_events_of_many_invocations_become_one() -> None:
    batches = sealed([[{"metric": "tokens", "quantity": 3}] * 2] * 50, [1.0] * 50)
    (one,) = through(batches, True, 7)
    assert len(one) == 1
    (event,) = json.loads(one.json())["events"]
    assert event["measurements"][0]["quantity"] == 300
    last = json.loads(batches[-1].json())["events"][-1]
    assert event["occurred_at"] == last["occurred_at"]


def test_what_has_metadata_of_its_own_does_not_fold() -> None:
    lot = [{"metric": "tokens", "quantity": 3, "metadata": {"m": 1}}] * 2
    (one,) = through(sealed([lot] * 3, [1.0] * 3), True, 2)
    assert len(one) == 6


def test_a_batch_that_comes_again() -> None:
    """Whether in the same invocation or a later one of the window."""
    one, two = batch(3), batch(2)
    for lot in ([one, two, one], [one, two, two, one]):
        assert sum(map(len, through(lot, False, 2))) == 5


def test_two_windows_never_seal_alike() -> None:
    """Nor the parts of one that was terminated early, which begin at another place."""
    one = batch(1)
    names = {
        through([one], False, 1, "shard 1")[0].id,
        through([one], False, 1, "shard 2")[0].id,
        *(part.id for part in _from("17", one)),
    }
    assert len(names) == 3


def _from(place: str, one: Batch) -> list[Batch]:
    window = Window({}, "shard 1", place, fold=False)
    window.add(one)
    return window.seal()


def test_a_full_window_leaves_early() -> None:
    """And goes on under other ids; what it had is known still."""
    window = Window({}, "shard 1", "0", fold=False)
    batches: list[Batch] = []
    lots = [batch(50, noise=3_000) for _ in range(6)]
    for lot in lots:
        assert window.add(lot)
        if window.is_full:
            batches += window.seal()
            window = Window(json.loads(json.dumps(window.state())), "shard 1", "9", fold=False)
        assert len(json.dumps(window.state())) < 1_000_000
    for lot in lots:
        assert window.add(lot)
    batches += window.seal()
    assert sum(map(len, batches)) == 300
    assert len({one.id for one in batches}) == len(batches)


def test_the_state_never_grows_beyond_what_lambda_takes() -> None:
    window = Window({}, "shard 1", "0", fold=True)
    for number in range(MAX_KNOWN + 500):
        window.known[digest(str(number))] = True
    state = window.state()
    assert len(json.dumps(state)) < 500_000
    assert digest(str(MAX_KNOWN + 499)) in Window(state, "shard 1", "0", fold=True).known


def test_there_is_room_for_so_many_parts() -> None:
    """The others are for somebody else to keep; Lambda takes no larger state."""
    one = batch(500, noise=2_000)
    text = "\n".join(frames_of(one, "TIMEOUT", 1.0))
    parts = [part for part in records_in(text) if isinstance(part, Part)]
    window = Window({}, "shard 1", "0", fold=False)
    rest = window.keep(parts)
    assert [*window.parts, *(part.line() for part in rest)] == [part.line() for part in parts]
    assert len(window.parts) >= 5
    assert len(rest) >= 5
    assert sum(map(len, window.parts)) <= MAX_PARTS_LENGTH
    assert window.keep(parts[:1]) == []
    assert window.parts == [parts[0].line()]


def test_what_cannot_be_read_is_not_taken() -> None:
    """It goes under its own id instead, whole; nothing of it stays behind."""
    window = Window({}, "shard 1", "0", fold=True)
    assert not window.add(batch(2, unit=float("nan")))
    assert window.seal() == []
    assert window.known == {}


@pytest.mark.parametrize(
    "fields",
    [
        {"occurred_at": 5},
        {"occurred_at": "2026-11-22T11:33:00+02:00"},
        {"measurements": 5},
        {"measurements": [5]},
        {"measurements": []},
        {"measurements": [{"metric_name": ["tokens"], "quantity": 1}]},
        {"measurements": [{"metric_name": "tokens"}]},
        {"measurements": [{"metric_name": "tokens", "quantity": 1, "more": 1}]},
        *({"measurements": [{"metric_name": "tokens", "quantity": odd}]} for odd in ODD),
        {"more": 1},
    ],
)
def test_what_is_none_of_ours_stays_as_it_is(fields: dict[str, Any]) -> None:
    """It is Doow's to refuse."""
    window = Window({}, "shard 1", "0", fold=True)
    one = plain_batch(3, **fields)
    assert window.add(one)
    (sent,) = window.seal()
    assert json.loads(sent.json())["events"] == json.loads(one.json())["events"]
