"""A window seals what it was given: all of it once, alike whenever its work is done again."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doow_serverless._frames.format import BY_LOG, frames_of
from doow_serverless._frames.reader import Part, frame_of, read_frame
from doow_serverless._keeping.refolding import Folded, written
from doow_serverless._recording import scope as scope_module
from doow_serverless._recording.ids import new_id
from doow_serverless._sealing import Batch, pack
from doow_serverless.relay._window import MAX_KNOWN, MAX_PARTS_LENGTH, Window, digest
from doow_serverless.testing import MemoryTransport
from tests.batches import batch
from tests.unit.recording.folded import HOUR, made
from tests.unit.recording.test_folding_totals import EVENTS, NUMBERS

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


def test_other_batches_never_seal_alike() -> None:
    """The id derives from the batches that the events came from, and from nothing else."""
    one, two = batch(1), batch(1)
    ids = [
        through(lot, False, 1, name)[0].id for lot in ([one], [two], [one, two]) for name in "ab"
    ]
    assert len(set(ids)) == 3
    assert ids[::2] == ids[1::2]


NOISY = [batch(50, batch_id=new_id(), noise=3_000) for _ in range(12)]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=12), st.lists(st.integers(1, 5), min_size=12))
def test_however_the_records_are_cut_into_invocations(one: list[int], two: list[int]) -> None:
    """A full window is sealed at the same place, under the same ids, with the same content."""

    def sealed(sizes: list[int]) -> list[tuple[str, bytes]]:
        frames = [frames_of(each, BY_LOG, 1.0, limit=10**9)[0] for each in NOISY]
        state: dict[str, Any] = {}
        batches: list[Batch] = []
        for size in sizes:
            lot, frames = frames[:size], frames[size:]
            window = Window(json.loads(json.dumps(state)), "shard 1", str(len(frames)), fold=False)
            for text in lot:
                frame = read_frame_of_any_length(text)
                batches += window.take(frame, lambda _: False)
            state = window.state()
            assert len(json.dumps(state)) < 1_000_000
        return [(each.id, each.body) for each in (*batches, *Window(state, "", "", False).seal())]

    first, second = sealed(one), sealed(two)
    assert first == second
    assert len(first) > 1


def read_frame_of_any_length(text: str) -> Part:
    found = frame_of(json.loads(text))
    assert isinstance(found, Part)
    return found


def test_what_a_process_remembers_names_nothing() -> None:
    """A batch of an earlier window is left out, and the others keep their ids without that memory.

    So Doow deduplicates them when another process, which remembers nothing, does the work again.
    """
    again, new = batch(2, batch_id=new_id()), batch(3, batch_id=new_id())
    sealed = []
    for known in ({again.id}, set()):
        window = Window({}, "shard 2", "0", fold=False)
        for one in (again, new):
            assert window.take(part(one, BY_LOG), known.__contains__) == []
        sealed.append(window.seal())
    (first,), (second,) = sealed
    assert first.id == second.id
    assert first.event_ids == new.event_ids
    assert second.event_ids == again.event_ids + new.event_ids


def test_numbers_that_nobody_can_read() -> None:
    """They stop no shard; the batch leaves by itself, for Doow to refuse."""
    one = batch(1, batch_id=new_id())
    body = one.json().replace('"quantity": 1', '"quantity": 1E1000000000000000000')
    assert body != one.json()
    huge = Batch(one.id, one.event_ids, body.encode(), False, one.sdk_version)
    window = Window({}, "shard 1", "0", fold=True)
    assert [each.body for each in window.take(part(huge, BY_LOG), lambda _: False)] == [huge.body]
    assert window.seal() == []


def test_a_state_keeps_apart_what_could_not_become_one() -> None:
    """However the work is cut into invocations, the same events are sealed."""
    quantities = ["1", "0.5", "1e63", "-1e-40", "1e-40", "-1e63"]
    events = [
        {
            "event_id": f"e-{number}",
            "license_id": "lic",
            "occurred_at": "2026-11-22T11:33:00.000Z",
            "kind": "ADJUSTMENT",
            "measurements": [{"metric_name": "m", "quantity": Decimal(quantity)}],
        }
        for number, quantity in enumerate(quantities)
    ]
    whole = Folded(True)
    for event in events:
        whole.add(json.loads(written(event), parse_float=Decimal))
    for cut in range(len(events)):
        first = Folded(True)
        for event in events[:cut]:
            first.add(json.loads(written(event), parse_float=Decimal))
        second = Folded(True, json.loads(written(first.events), parse_float=Decimal))
        for event in events[cut:]:
            second.add(json.loads(written(event), parse_float=Decimal))
        assert written(second.events) == written(whole.events)


def test_a_dead_letter_and_its_log_frame_count_once() -> None:
    """A batch whose frame came late is in the log as both, in either order."""
    one = batch(2, batch_id=new_id())
    by_log, letter = (part(one, BY_LOG), part(one, "TIMEOUT"))
    for frames, at_once in (((by_log, letter), []), ((letter, by_log), [one.id])):
        state: dict[str, Any] = {}
        left: list[str] = []
        for frame in frames:
            window = Window(state, "shard 1", "0", fold=False)
            left += [each.id for each in window.take(frame, lambda _: False)]
            state = window.state()
        left += [each.id for each in Window(state, "shard 1", "1", fold=False).seal()]
        assert len(left) == 1
        assert [each for each in left if each in at_once] == at_once


def part(one: Batch, reason: str) -> Part:
    found = read_frame(frames_of(one, reason, 1.0)[0])
    assert isinstance(found, Part)
    return found


def test_a_state_of_an_earlier_version() -> None:
    """Its events are sealed with the others; what it had is known still."""
    one, two = batch(2, batch_id=new_id()), batch(1, batch_id=new_id())
    window = Window({}, "shard 1", "0", fold=False)
    window.add(one)
    state = {name: window.state()[name] for name in ("first", "known", "events", "parts")}
    later = Window({**state, "sealed": 0}, "shard 1", "1", fold=False)
    assert later.take(part(one, BY_LOG), lambda _: False) == []
    later.take(part(two, BY_LOG), lambda _: False)
    assert [each for sent in later.seal() for each in sent.event_ids] == [
        *one.event_ids,
        *two.event_ids,
    ]


@pytest.mark.parametrize("depth", [32, 200, 600, 900])
@pytest.mark.parametrize("name", ["attribution", "metadata"])
def test_deep_nesting(depth: int, name: str) -> None:
    """No event of ours is so deep, and none stops a shard: it leaves by itself, as it is."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    fields: dict[str, Any] = {name: {"a": value}}
    one = batch(1, batch_id=new_id(), **fields)
    window = Window({}, "shard 1", "0", fold=True)
    left = window.take(part(one, BY_LOG), lambda _: False)
    if depth < 100:
        assert left == []
        left = window.seal()
    assert [each for sent in left for each in sent.event_ids] == list(one.event_ids)


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
    lines = frames_of(batch(500, noise=2_000), "TIMEOUT", 1.0)
    window = Window({}, "shard 1", "0", fold=False)
    for line in lines[1:]:
        frame = read_frame(line)
        assert isinstance(frame, Part)
        assert window.take(frame, lambda _: False) == []
    kept = window.state()["parts"]
    rest = [one.line() for one in window.leftover_parts()]
    assert [*kept, *rest] == lines[1:]
    assert 5 < len(kept) < len(lines) - 5
    assert sum(map(len, kept)) <= MAX_PARTS_LENGTH
    again = Window(window.state(), "shard 1", "1", fold=False)
    assert again.state()["parts"] == kept
    assert again.leftover_parts() == []


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
