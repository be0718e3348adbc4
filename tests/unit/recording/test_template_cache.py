"""Templates of events are kept for the next event, are bounded, and are never confused."""

from __future__ import annotations

from decimal import Decimal
from types import MappingProxyType
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from doow_serverless._recording.event import Defaults
from tests.unit.recording.templates import refusal, shape

# ── shapes are kept, and never confused ────────────────────────────────────────────────────────

EQUAL = [1, 1.0, True, Decimal(1), Decimal("1.0"), "1", "True"]


@given(st.permutations(EQUAL))
def test_equal_values_of_other_types_are_not_confused(values: list[Any]) -> None:
    """1, 1.0, True and Decimal(1) are equal to Python and not to Doow."""
    defaults = Defaults("lic_1", None, [])
    for value in values * 2:
        written = shape(defaults, attribution={"x": value})["attribution"]["x"]
        assert (written, isinstance(written, bool)) == (value, isinstance(value, bool))
        assert isinstance(written, str) is isinstance(value, str)


def test_equal_values_are_written_in_their_own_digits() -> None:
    """The text of each is its own, in whatever order they come."""
    defaults = Defaults("lic_1", None, [])

    def text(value: Any) -> str:
        made = defaults.template("m", (None, None, {"x": value}, "USAGE", None, None))
        return made.before.partition('"attribution":{"x":')[2].partition("}")[0]

    values = [1, 1.0, True, Decimal(1), 0, False, 0.0]
    assert [text(value) for value in values] == ["1", "1.0", "true", "1", "0", "false", "0.0"]


def test_defaults_do_not_leak_into_each_other() -> None:
    """The same fields under other defaults are another shape."""
    outer = Defaults("lic_1", {"team": "a"}, [])
    inner = outer.overlaid("wrapper", "lic_2", {"team": "b"})
    other = Defaults("lic_3", None, [])
    found = [
        (written["license_id"], written.get("attribution"))
        for written in (shape(defaults) for defaults in (outer, inner, other, outer, inner))
    ]
    first, second, third = ("lic_1", {"team": "a"}), ("lic_2", {"team": "b"}), ("lic_3", None)
    assert found == [first, second, third, first, second]


def test_fields_of_the_same_value_are_not_confused() -> None:
    """A text as unit is another shape than the same text as license or source."""
    defaults = Defaults("x", None, [])
    written = [
        shape(defaults, unit="y"),
        shape(defaults, license_id="y"),
        shape(defaults, source_system="y"),
    ]
    assert [(w["license_id"], w.get("unit"), w["source_system"]) for w in written] == [
        ("x", "y", "sdk"),
        ("y", None, "sdk"),
        ("x", None, "y"),
    ]


def test_what_is_refused_once_is_refused_again() -> None:
    """A bad shape is not kept, and spoils no good one."""
    defaults = Defaults("lic_1", None, [])
    for _ in range(2):
        assert refusal(shape, defaults, kind="OTHER", attribution={"x": 1})
        assert "attribution" not in shape(defaults, attribution={"x": []})
        assert shape(defaults, attribution={"x": 1})["attribution"] == {"x": 1}


def test_the_callers_mappings_are_copied() -> None:
    """What is changed afterwards changes neither the event, nor those that follow."""
    attribution = {"team": "a"}
    defaults = Defaults("lic_1", attribution, [])
    own = {"model": "x"}
    made = defaults.template("m", (None, None, own, "USAGE", None, None))
    before = made.before
    attribution["team"] = own["model"] = "changed"
    assert made.before == before
    assert shape(defaults, attribution={"model": "x"})["attribution"] == {"team": "a", "model": "x"}
    assert shape(defaults, attribution=own)["attribution"] == {"team": "a", "model": "changed"}


def test_any_mapping_will_do() -> None:
    """Mappings that are no dicts are taken as well."""
    assert shape(attribution=MappingProxyType({"a": 1}))["attribution"] == {"a": 1}
    assert "attribution" not in shape(attribution={})


def test_known_shapes_and_children_are_bounded() -> None:
    """Neither ever new attributions nor ever new wrappers fill the memory."""
    defaults = Defaults("lic_1", None, [])
    for i in range(3_000):
        shape(defaults, attribution={"request": i})
        defaults.overlaid(f"wrapper {i}", f"lic_{i}", None)
    assert len(defaults._templates) <= 1_024
    assert len(defaults._overlaid) <= 1_024
    assert shape(defaults, attribution={"request": 1})["attribution"] == {"request": 1}
