"""Sealing and splitting: within the bounds, in order, exact, and the same bytes each time."""

from __future__ import annotations

import json
from decimal import Decimal
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from doow_serverless._recording.event import Defaults
from doow_serverless._recording.ids import new_id
from doow_serverless._recording.labels import fit_metadata
from doow_serverless._recording.rules import (
    check_measurements,
    check_quantity,
    measurements_json,
)
from doow_serverless._sealing import MAX_BYTES, MAX_EVENTS, Batch, gzip, seal, split
from doow_serverless._version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from doow_serverless._recording.event import Event

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(str.strip)
numbers = (
    st.integers(1, 10**60)
    | st.floats(min_value=5e-324, allow_infinity=False)
    | st.decimals(min_value=Decimal("1e-20"), max_value=Decimal("1e20"), places=9)
)
attributes = st.dictionaries(text, text | numbers | st.booleans(), max_size=3)


@st.composite
def events(draw: st.DrawFn) -> tuple[Event, dict[str, Any]]:
    """An event as it is buffered, and what must be read from the wire."""
    event_id, license_id, metric = draw(text), draw(text), draw(text)
    attribution, metadata = draw(attributes), draw(st.none() | attributes.map(_jsonable))
    moment = draw(st.just("2026-11-22T11:33:00+01:00") | st.floats(0, 4e9))
    defaults = Defaults(license_id, attribution, [])
    amount: int | float | str
    if draw(st.booleans()):
        quantity = draw(numbers)
        shape = defaults.template(metric, (None, None, None, "USAGE", None, None))
        amount = check_quantity(quantity, "USAGE")
        measurements = [{"metric_name": metric, "quantity": _read(quantity)}]
    else:
        several = draw(st.dictionaries(text, numbers, min_size=1, max_size=3))
        shape = defaults.template_of_many((None, None, None, "USAGE", None, None))
        amount = measurements_json(check_measurements(several, "USAGE"))
        measurements = [{"metric_name": m, "quantity": _read(q)} for m, q in several.items()]
    expected: dict[str, Any] = {
        "event_id": event_id,
        "license_id": license_id,
        "source_system": "sdk",
        "kind": "USAGE",
        "measurements": measurements,
    }
    if attribution:
        expected["attribution"] = {name: _read(value) for name, value in attribution.items()}
    if metadata is not None:
        expected["metadata"] = {name: _read(value) for name, value in metadata.items()}
    written = None if metadata is None else fit_metadata(metadata, 100_000, [])
    return (event_id, moment, shape, amount, written), expected


def _jsonable(values: dict[str, Any]) -> dict[str, Any]:
    return {k: float(v) if isinstance(v, Decimal) else v for k, v in values.items()}


def _read(value: Any) -> Any:
    """``value`` as a reader sees it who takes every number for exact."""
    if isinstance(value, float):
        return Decimal(repr(value))
    return value


def decoded(batch: Batch) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(batch.json(), parse_float=Decimal)
    return body


def made_ids() -> Callable[[Sequence[str]], str]:
    numbers = count()
    return lambda _: f"batch-{next(numbers)}"


def plain(number: int, metadata: str | None = None) -> list[Event]:
    shape = Defaults("lic_1", None, []).template("m", (None, None, None, "USAGE", None, None))
    return [(f"evt_{i}", "2026-11-22T11:33:00Z", shape, 1, metadata) for i in range(number)]


@settings(deadline=None)
@given(st.lists(events(), max_size=12), st.integers(600, 5_000), st.booleans())
def test_sealing(given: list[Any], max_bytes: int, compress: bool) -> None:
    """Batches keep the bounds and the order, and their JSON is what was recorded."""
    recorded, expected = [event for event, _ in given], [body for _, body in given]
    batches = list(seal(recorded, max_bytes=max_bytes, compress=compress, make_id=made_ids()))
    bodies = [decoded(batch) for batch in batches]
    for batch, body in zip(batches, bodies, strict=True):
        assert (body["batch_id"], body["sdk_version"]) == (batch.id, batch.sdk_version)
        assert batch.sdk_version == __version__
        assert batch.event_ids == tuple(event["event_id"] for event in body["events"])
        assert len(batch.json()) <= max_bytes or len(batch) == 1
        assert 1 <= len(batch) <= MAX_EVENTS
        assert batch.gzipped == (compress and len(batch.json()) >= 1_024)
    written = [event for body in bodies for event in body["events"]]
    for event, (_, moment, *_) in zip(written, recorded, strict=True):
        stamp = event.pop("occurred_at")
        assert stamp == moment if isinstance(moment, str) else stamp.endswith("Z")
    assert written == expected
    again = list(seal(recorded, max_bytes=max_bytes, compress=compress, make_id=made_ids()))
    assert [batch.body for batch in again] == [batch.body for batch in batches]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(0, 900), min_size=1, max_size=60),
    st.integers(400, 4_000),
    st.booleans(),
    st.integers(0, 9),
)
def test_cutting(noises: list[int], max_packed: int, compress: bool, seed: int) -> None:
    """Packed, each batch keeps its bound or is one event; retried work is cut the same way."""
    characters = Random(seed)
    recorded = plain(len(noises))
    for number, noise in enumerate(noises):
        text = "".join(characters.choices("abcdefghijklmnopqrstuvwxyz234567", k=noise))
        recorded[number] = (*recorded[number][:4], f'{{"noise":"{text}"}}')

    def sealed() -> list[Batch]:
        named = made_ids()
        bounds = {"max_bytes": 20 * 1024, "max_packed": max_packed}
        return list(seal(recorded, **bounds, compress=compress, make_id=named))

    batches = sealed()
    assert [batch.id for batch in batches] == [f"batch-{n}" for n in range(len(batches))]
    assert [one for batch in batches for one in batch.event_ids] == [one[0] for one in recorded]
    for batch in batches:
        packed = batch.body if batch.gzipped else gzip(batch.body)
        assert len(packed) <= max_packed or len(batch) == 1
    assert [batch.body for batch in sealed()] == [batch.body for batch in batches]


def test_cutting_no_more_than_needed() -> None:
    """Events that pack well stay together; others become a few batches that are full."""
    alike = plain(60)
    assert [len(one) for one in seal(alike, max_packed=2_650)] == [60]
    characters = Random(1)
    noises = (f'{{"noise":"{characters.randbytes(200).hex()}"}}' for _ in alike)
    unlike = [(*event[:4], noise) for event, noise in zip(alike, noises, strict=True)]
    lengths = [len(one) for one in seal(unlike, max_packed=2_650)]
    assert sum(lengths) == 60
    assert set(lengths) == {7, 8}


@settings(deadline=None)
@given(st.lists(events(), min_size=2, max_size=12), st.booleans())
def test_splitting(given: list[Any], compress: bool) -> None:
    """Halves hold the very letters of the whole, in order, under ids that follow from its own."""
    (whole,) = seal([event for event, _ in given], compress=compress, make_id=lambda _: "whole")
    first, second = split(whole)
    assert first.event_ids + second.event_ids == whole.event_ids
    assert abs(len(first) - len(second)) <= 1
    events = [half.json().partition('"events":[')[2][:-2] for half in (first, second)]
    assert ",".join(events) == whole.json().partition('"events":[')[2][:-2]
    assert len({whole.id, first.id, second.id}) == 3
    again = split(Batch(whole.id, whole.event_ids, whole.body, whole.gzipped, whole.sdk_version))
    assert [(half.id, half.body) for half in again] == [(h.id, h.body) for h in (first, second)]


def test_splitting_keeps_the_version_that_sealed() -> None:
    """A batch of an older version, replayed and split, goes on naming that version."""
    body = b'{"batch_id":"b","sdk_version":"0.0.1","events":[{"q":1.10},{"q":2e5}]}'
    halves = split(Batch("b", ("1", "2"), body, False, "0.0.1"))
    assert [half.sdk_version for half in halves] == ["0.0.1", "0.0.1"]
    assert [json.loads(half.json())["sdk_version"] for half in halves] == ["0.0.1", "0.0.1"]
    assert [half.json().partition('"events":')[2] for half in halves] == [
        '[{"q":1.10}]}',
        '[{"q":2e5}]}',
    ]


def test_at_most_500_events() -> None:
    """The event after the five hundredth begins a batch."""
    assert [len(batch) for batch in seal(plain(1_001))] == [500, 500, 1]
    assert [len(batch) for batch in seal(plain(500))] == [500]
    assert list(seal([])) == []


def test_at_most_450_kib() -> None:
    """Batches are as full as the bound on bytes allows, and no fuller."""
    batches = list(seal(plain(60, f'"{"x" * 20_000}"')))
    assert [len(batch) for batch in batches] == [22, 22, 16]
    assert all(len(batch.json()) <= MAX_BYTES for batch in batches)
    assert len(batches[0].json()) + 20_300 > MAX_BYTES


def test_a_large_event_travels_alone() -> None:
    """An event beyond the bound goes by itself, and takes no other along."""
    large = plain(1, f'"{"x" * 9_000}"')
    batches = list(seal([*plain(1), *large, *plain(2)], max_bytes=5_000))
    assert [len(batch) for batch in batches] == [1, 1, 2]


def test_the_time_of_an_event() -> None:
    """Unix seconds become UTC to the millisecond, never a second early or late."""
    shape = plain(1)[0][2]
    moments = [0.0, 1_795_000_000.9996, 1_795_000_001.0, 1_795_000_000.5, 59.0014]
    recorded: list[Event] = [("e", moment, shape, 1, None) for moment in moments]
    (batch,) = seal(recorded)
    assert [event["occurred_at"] for event in decoded(batch)["events"]] == [
        "1970-01-01T00:00:00.000Z",
        "2026-11-18T11:06:40.999Z",
        "2026-11-18T11:06:41.000Z",
        "2026-11-18T11:06:40.500Z",
        "1970-01-01T00:00:59.001Z",
    ]


def test_a_batch_shows_no_content() -> None:
    """The repr of a batch tells its size alone."""
    (batch,) = seal(plain(2), make_id=lambda _: "b")
    assert repr(batch) == f"Batch('b', 2 events, {len(batch.body)} bytes)"


def test_ids_are_random_uuids() -> None:
    """Ids are UUIDs of version 4, each another."""
    ids = {new_id() for _ in range(200)}
    assert len(ids) == 200
    assert {(UUID(one).version, UUID(one).variant, str(UUID(one)) == one) for one in ids} == {
        (4, "specified in RFC 4122", True)
    }
