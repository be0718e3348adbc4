"""The rules of events: what is taken, what is refused in which words, and what is written."""

from __future__ import annotations

import json
import math
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doow_serverless._recording.event import Defaults
from doow_serverless._recording.labels import fit_metadata
from doow_serverless._recording.rules import (
    check_attribution,
    check_measurements,
    check_quantity,
    check_text,
    check_timestamp,
    measurements_json,
)
from doow_serverless.errors import InvalidEvent
from tests.network import KEY
from tests.unit.recording.templates import refusal, shape

if TYPE_CHECKING:
    from doow_serverless._recording.rules import LeftOut

MANY = {f"key{i}": i for i in range(101)}


def test_a_plain_event() -> None:
    """What is not given is left out, but for the source system and the kind."""
    assert shape() == {
        "license_id": "lic_1",
        "source_system": "sdk",
        "kind": "USAGE",
        "measurements": [{"metric_name": "tokens", "quantity": 1}],
    }


def test_every_field() -> None:
    """All that can be said of an event is written where the protocol has it."""
    hint = {"app_name": "a", "license_name": "l", "metric_name": "m"}
    written = shape(
        metric='to"kens',
        license_id="lic_2",
        unit="tökens",
        attribution={"team": "ai", "n": 3, "x": 0.5, "d": Decimal("1.50"), "yes": True},
        kind="ADJUSTMENT",
        source_system="billing",
        hint=hint,
    )
    assert written == {
        "license_id": "lic_2",
        "source_system": "billing",
        "kind": "ADJUSTMENT",
        "unit": "tökens",
        "attribution": {
            "team": "ai",
            "n": 3,
            "x": Decimal("0.5"),
            "d": Decimal("1.50"),
            "yes": True,
        },
        "measurements": [{"metric_name": 'to"kens', "quantity": 1, "metric_tuple_hint": hint}],
    }


TEXT = "must be a non-empty string of at most 256 characters, not"
HINT = "metric_tuple_hint must be {'app_name': …, 'license_name': …, 'metric_name': …}, not"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"metric": ""}, f"metric {TEXT} ''"),
        ({"metric": " "}, f"metric {TEXT} ' '"),
        ({"metric": None}, f"metric {TEXT} None"),
        ({"metric": 5}, f"metric {TEXT} 5"),
        ({"metric": b"tokens"}, f"metric {TEXT} b'tokens'"),
        ({"metric": ["tokens"]}, f"metric {TEXT} ['tokens']"),
        ({"metric": "m" * 257}, f"metric {TEXT} '{'m' * 59}…"),
        ({"metric": "\ud800"}, "metric holds half of a surrogate pair, which is no valid text"),
        ({"license_id": ""}, f"license_id {TEXT} ''"),
        ({"license_id": 7}, f"license_id {TEXT} 7"),
        ({"license_id": KEY}, "license_id looks like a credential, and was not recorded"),
        ({"kind": "usage"}, "kind must be 'USAGE' or 'ADJUSTMENT', not 'usage'"),
        ({"kind": None}, "kind must be 'USAGE' or 'ADJUSTMENT', not None"),
        ({"kind": ["USAGE"]}, "kind must be 'USAGE' or 'ADJUSTMENT', not ['USAGE']"),
    ],
)  # fmt: skip
def test_refused_shapes(fields: dict[str, Any], message: str) -> None:
    """A refusal names the field, its value, and what is allowed."""
    assert refusal(shape, **fields) == message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"unit": ""}, f"unit {TEXT} ''"),
        ({"unit": 1}, f"unit {TEXT} 1"),
        ({"source_system": "s" * 300}, f"source_system {TEXT} '{'s' * 59}…"),
        ({"hint": {}}, f"{HINT} {{}}"),
        ({"hint": "app"}, f"{HINT} 'app'"),
        ({"hint": {"app_name": "a"}}, f"{HINT} {{'app_name': 'a'}}"),
        ({"hint": {"app_name": "a", "license_name": "", "metric_name": "m"}},
         f"metric_tuple_hint.license_name {TEXT} ''"),
        ({"attribution": "team"},
         "attribution must be a mapping such as {'team': 'search'}, not 'team'"),
        ({"attribution": [("team", "ai")]},
         "attribution must be a mapping such as {'team': 'search'}, not [('team', 'ai')]"),
        ({"attribution": MANY}, "attribution has 101 entries, 100 are allowed"),
        ({"attribution": {1: "x"}},
         "attribution keys must be strings of 1 to 256 characters, not 1"),
        ({"attribution": {"": "x"}},
         "attribution keys must be strings of 1 to 256 characters, not ''"),
        ({"attribution": {"team": {}}},
         "attribution['team'] must be a string, number or bool, not {}"),
        ({"attribution": {"team": ["a"]}},
         "attribution['team'] must be a string, number or bool, not ['a']"),
        ({"attribution": {"n": math.nan}},
         "attribution['n'] must be finite and at most 64 digits long, not nan"),
        ({"attribution": {"n": 10**64}},
         "attribution['n'] must be finite and at most 64 digits long, not 1" + "0" * 59 + "…"),
        ({"attribution": {"t": "v" * 4_097}},
         "attribution['t'] has 4,097 characters, 4,096 are allowed"),
        ({"attribution": {"t": "\udfff"}},
         "attribution['t'] holds half of a surrogate pair, which is no valid text"),
        ({"attribution": {"\ud800": 1}},
         "a key of attribution holds half of a surrogate pair, which is no valid text"),
    ],
)  # fmt: skip
def test_a_label_that_cannot_be_said(fields: dict[str, Any], message: str) -> None:
    """It is left out, and told by its name; the event goes on as one without it."""
    left_out: list[LeftOut] = []
    assert shape(Defaults("lic_1", None, left_out), **fields) == shape()
    assert list(map(str, left_out)) == [message]


def test_the_other_labels_stay() -> None:
    """One attribute that cannot be said takes no other with it."""
    left_out: list[LeftOut] = []
    given = {"team": "ai", "tags": ["a"], "n": math.inf, 3: "x", "yes": True}
    made = shape(Defaults("lic_1", {"env": "prod"}, left_out), attribution=given, unit="tokens")
    assert made["attribution"] == {"env": "prod", "team": "ai", "yes": True}
    assert (made["unit"], len(left_out)) == ("tokens", 3)


class Number(Enum):
    ONE = 1


class Half(Fraction):
    """A number of an application's own."""


ID = UUID("12345678-1234-5678-1234-567812345678")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (ID, str(ID)),
        (Number.ONE, 1),
        (datetime(2026, 1, 2, 3, 4, tzinfo=timezone.utc), "2026-01-02T03:04:00+00:00"),
        (datetime(2026, 1, 2), "2026-01-02T00:00:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (Half(1, 2), 0.5),
        (numpy.int64(7), 7),
        (numpy.float32(0.5), 0.5),
        (numpy.float64(0.25), 0.25),
        (numpy.bool_(True), True),
        (numpy.str_("ai"), "ai"),
        (numpy.datetime64("2026-01-02T03:04:05"), "2026-01-02T03:04:05"),
    ],
    ids=repr,
)
def test_what_can_be_said_exactly(value: Any, said: Any) -> None:
    """Ids, members of enums, moments and numbers of other types are taken, in all labels."""
    left_out: list[LeftOut] = []
    made = shape(Defaults("lic_1", None, left_out), attribution={"x": value})
    assert (made["attribution"], left_out) == ({"x": said}, [])
    assert type(made["attribution"]["x"]) in (type(said), Decimal)
    assert json.loads(fit_metadata({"x": [value]}, 1_000, left_out) or "") == {"x": [said]}


def test_ids_that_are_uuids() -> None:
    """Of a license, a unit, an attribute's key."""
    made = shape(license_id=ID, unit=ID, attribution={ID: 1})
    assert (made["license_id"], made["unit"]) == (str(ID), str(ID))
    assert made["attribution"] == {str(ID): 1}


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (numpy.int64(7), 7),
        (numpy.float32(0.1), float(numpy.float32(0.1))),
        (Fraction(1, 4), 0.25),
        (Number.ONE, 1),
    ],
    ids=repr,
)
def test_quantities_of_other_types(number: Any, written: Any) -> None:
    """Numbers count as the number that they are equal to."""
    assert check_quantity(number, "USAGE") == written
    if number is not Number.ONE:
        given = {"a": number, "b": number - number}
        assert check_measurements(given, "USAGE") == [("a", written)]


@pytest.mark.parametrize("number", [Fraction(1, 3), numpy.bool_(True), 1j, numpy.array([1, 2])])
def test_no_quantity_that_would_be_another(number: Any) -> None:
    """What cannot be said exactly falsifies the usage, and is refused."""
    assert refusal(check_quantity, number, "USAGE").startswith("quantity must be an int, float or")


def test_a_missing_license() -> None:
    """Without a license anywhere, the message lists all the places to give one."""
    assert refusal(shape, Defaults(None, None, [])) == (
        "license_id is missing: pass license_id=… to track(), tracked() or configure(), "
        "or set DOOW_TRACK_LICENSE_ID"
    )


def test_an_attribution_that_is_too_large() -> None:
    """It may not carry an event over its bound, nor hide behind escapes: it is left out."""
    left_out: list[LeftOut] = []
    large = {f"k{i}": "\u00e9" * 4_000 for i in range(100)}
    assert shape(Defaults("lic_1", None, left_out), attribution=large) == shape()
    assert list(map(str, left_out)) == [
        "attribution is 2,400,891 bytes of JSON, 245,760 are allowed"
    ]


class Text(str, Enum):
    TOKENS = "tokens"
    USAGE = "USAGE"


def test_members_of_string_enums_count_as_their_text() -> None:
    """An application may keep its metric names in an Enum."""
    assert check_text("metric", Text.TOKENS) == "tokens"
    written = shape(metric=Text.TOKENS, kind=Text.USAGE, attribution={"a": Text.TOKENS})
    assert written == shape(attribution={"a": "tokens"})


class _Int64:
    """As a scalar of numpy: a number by behaviour, not by type."""

    def __int__(self) -> int:
        return 3

    def __float__(self) -> float:
        return 3.0

    def __repr__(self) -> str:
        return "int64(3)"


QUANTITY = "quantity must be an int, float or Decimal, not"
DIGITS = "quantity must be finite and at most 64 digits long, not"
POSITIVE = "quantity must be greater than zero for USAGE, not"


@pytest.mark.parametrize(
    ("quantity", "message"),
    [
        (True, f"{QUANTITY} True"),
        (None, f"{QUANTITY} None"),
        ("3", f"{QUANTITY} '3'"),
        (3j, f"{QUANTITY} 3j"),
        (Fraction(1, 3), f"{QUANTITY} <Fraction>"),
        (_Int64(), f"{QUANTITY} <_Int64>"),
        (math.nan, f"{DIGITS} nan"),
        (math.inf, f"{DIGITS} inf"),
        (-math.inf, f"{DIGITS} -inf"),
        (Decimal("NaN"), f"{DIGITS} Decimal('NaN')"),
        (Decimal("sNaN"), f"{DIGITS} Decimal('sNaN')"),
        (Decimal("Infinity"), f"{DIGITS} Decimal('Infinity')"),
        (Decimal("1e308"), f"{DIGITS} Decimal('1E+308')"),
        (Decimal("1e-308"), f"{DIGITS} Decimal('1E-308')"),
        (Decimal("0." + "1" * 63), f"{DIGITS} Decimal('0.{'1' * 49}…"),
        (10**64, f"{DIGITS} 1{'0' * 59}…"),
        pytest.param(10**5000, f"{DIGITS} <int>", id="huge"),
        (0, f"{POSITIVE} 0: use kind='ADJUSTMENT' to correct"),
        (-1, f"{POSITIVE} -1: use kind='ADJUSTMENT' to correct"),
        (-0.5, f"{POSITIVE} -0.5: use kind='ADJUSTMENT' to correct"),
        (Decimal("-0"), f"{POSITIVE} Decimal('-0'): use kind='ADJUSTMENT' to correct"),
    ],
)
def test_refused_quantities(quantity: Any, message: str) -> None:
    """A quantity is a finite number of bounded length, above zero for usage."""
    assert refusal(check_quantity, quantity, "USAGE") == message


def test_adjustments_may_be_negative() -> None:
    """Corrections have any sign, and zero is a number."""
    written = [check_quantity(q, "ADJUSTMENT") for q in (-3, 0, -0.5, Decimal("-1.10"))]
    assert written == [-3, 0, -0.5, "-1.10"]


class _Float64(float):
    """As numpy's float64, which is a float by type and prints itself otherwise."""

    def __repr__(self) -> str:
        return "np.float64(0.5)"


def test_subclasses_of_numbers_are_written_as_numbers() -> None:
    """What is a float by type is written as one, however it prints itself."""
    assert f"{check_quantity(_Float64(0.5), 'USAGE')}" == "0.5"


@given(
    st.decimals(allow_nan=False, allow_infinity=False).filter(
        lambda number: len(str(number)) <= 64 and (not number or abs(number.adjusted()) <= 307)
    )
)
def test_decimals_are_exact(number: Decimal) -> None:
    """A Decimal is written to the digit, exponent and trailing zeros included."""
    written = check_quantity(number, "ADJUSTMENT")
    read = json.loads(f"[{written}]", parse_float=Decimal, parse_int=Decimal)[0]
    assert read.as_tuple() == number.as_tuple()


@given(
    st.integers(-(10**62), 10**63)
    | st.floats(allow_nan=False, allow_infinity=False, min_value=-1e9)
)
def test_numbers_are_written_as_json_reads_them(number: float) -> None:
    """An int or a float comes back equal, and of its type."""
    read = json.loads(f"[{check_quantity(number, 'ADJUSTMENT')}]")[0]
    assert (read, type(read)) == (number, type(number))


def test_several_measurements() -> None:
    """A mapping becomes one measurement for each entry, in its order, decimals exact."""
    written = measurements_json(check_measurements({"b": 2, "a": Decimal("0.10")}, "USAGE"))
    assert written == '{"metric_name":"b","quantity":2},{"metric_name":"a","quantity":0.10}'


@pytest.mark.parametrize("given", [{}, None, "tokens", [("tokens", 1)], 5])
def test_measurements_are_a_mapping(given: Any) -> None:
    """Anything but a mapping with an entry is refused."""
    assert refusal(check_measurements, given, "USAGE") == (
        "measurements must be a mapping of metric to quantity with at least one entry, "
        f"such as {{'tokens': 12}}, not {given!r}"
    )


def test_one_bad_measurement_refuses_all() -> None:
    """Several measurements are accepted or refused together."""
    assert refusal(check_measurements, {"a": 1, "b": True}, "USAGE") == f"{QUANTITY} True"


AWARE = datetime(2026, 11, 22, 12, 33, 0, 123456, timezone(timedelta(hours=1)))


@pytest.mark.parametrize(
    ("timestamp", "written"),
    [
        (AWARE, "2026-11-22T11:33:00.123456Z"),
        (datetime(2026, 11, 22, tzinfo=timezone.utc), "2026-11-22T00:00:00Z"),
        ("2026-11-22T11:33:00Z", "2026-11-22T11:33:00Z"),
        ("2026-11-22T11:33:00.123456789+05:30", "2026-11-22T11:33:00.123456789+05:30"),
        ("2024-02-29T23:59:59-00:00", "2024-02-29T23:59:59-00:00"),
    ],
)
def test_timestamps(timestamp: Any, written: str) -> None:
    """Aware datetimes go out in UTC, ISO strings as they are."""
    assert check_timestamp(timestamp) == written


NAIVE = "is naive, so its moment is unknown: use datetime.now(timezone.utc), or give it a tzinfo"
ISO = "timestamp must be ISO 8601 with Z or an offset, such as 2026-11-22T11:33:00Z, not"


@pytest.mark.parametrize(
    ("timestamp", "message"),
    [
        (datetime(2026, 11, 22), f"timestamp datetime.datetime(2026, 11, 22, 0, 0) {NAIVE}"),
        (1_795, "timestamp must be an aware datetime or an ISO 8601 string, not 1795"),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
         "timestamp datetime.datetime(1, 1, 1, 0, 0, tzinfo=datetime.timezone(da… is out of range"),
        ("", f"{ISO} ''"),
        ("2026-11-22", f"{ISO} '2026-11-22'"),
        ("2026-11-22T11:33:00", f"{ISO} '2026-11-22T11:33:00'"),
        ("2026-02-30T11:33:00Z", f"{ISO} '2026-02-30T11:33:00Z'"),
        ("2026-11-22T25:00:00Z", f"{ISO} '2026-11-22T25:00:00Z'"),
        ("2026-11-22T11:33:00Z\n", f"{ISO} '2026-11-22T11:33:00Z\\n'"),
        ("٢٠٢٦-11-22T11:33:00Z", f"{ISO} '٢٠٢٦-11-22T11:33:00Z'"),
        ('2026-11-22T11:33:00Z","x":"', f"{ISO} '2026-11-22T11:33:00Z\",\"x\":\"'"),
    ],
)  # fmt: skip
def test_refused_timestamps(timestamp: Any, message: str) -> None:
    """A moment that is unknown, or no date, is refused with the remedy."""
    assert refusal(check_timestamp, timestamp) == message


def test_zeros_among_measurements_measure_nothing() -> None:
    """As the answers of language models are full of; all of them zero, there is no usage."""
    usage = {"input_tokens": 12, "cached_tokens": 0, "output_tokens": 0.0}
    assert check_measurements(usage, "USAGE") == [("input_tokens", 12)]
    with pytest.raises(InvalidEvent, match="greater than zero"):
        check_measurements({"cached_tokens": 0}, "USAGE")
    with pytest.raises(InvalidEvent, match="greater than zero"):
        check_measurements({"input_tokens": 12, "output_tokens": -1}, "USAGE")
    assert check_measurements({"a": 0, "b": 1}, "ADJUSTMENT") == [("a", 0), ("b", 1)]


def test_an_attribute_that_is_none_says_nothing() -> None:
    """Of the event's own, of the handler's and of the configuration."""
    removed: list[LeftOut] = []
    assert check_attribution({"team": None, "model": "x"}, removed) == {"model": "x"}
    assert removed == []
