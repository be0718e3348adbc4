"""Attribution and metadata: credentials leave them, and all else comes back as it was."""

from __future__ import annotations

import json
import math
from datetime import datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doow_serverless._recording.labels import fit_metadata
from doow_serverless._recording.rules import check_attribution, check_text
from doow_serverless.errors import InvalidEvent
from tests.network import KEY

if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless._recording.rules import LeftOut


ROOM = 256 * 1024


def test_credentials_are_removed_from_attribution() -> None:
    """The event goes on without them; what was removed is told by its key, never by value."""
    removed: list[LeftOut] = []
    given = {"team": "ai", "token": KEY, KEY: "x", "n": 1}
    assert check_attribution(given, removed) == {"team": "ai", "n": 1}
    assert removed == ["attribution.token", "a key of attribution"]


@pytest.mark.parametrize(
    ("metadata", "written", "removed"),
    [
        ({"a": [1, {"b": KEY}], "c": "x"}, {"a": [1, {}], "c": "x"}, ["metadata.a[1].b"]),
        (["x", f"see\n{KEY}"], ["x"], ["metadata[1]"]),
        ({"a": {"b": f"\u2014{KEY}"}}, {"a": {}}, ["metadata.a.b"]),
        (f"Bearer {KEY}", None, ["metadata"]),
        (f"\n{KEY}", None, ["metadata"]),
        ({"a": None, "b": [True, 0.5, "x\n"]}, {"a": None, "b": [True, 0.5, "x\n"]}, []),
    ],
)
def test_credentials_are_removed_from_metadata(
    metadata: Any, written: Any, removed: list[str]
) -> None:
    """They are found at any depth, in mappings and lists, behind line breaks too."""
    found: list[LeftOut] = []
    assert json.loads(fit_metadata(metadata, ROOM, found) or "") == written
    assert found == removed


def _nested(levels: int, value: Any = 1) -> Any:
    for _ in range(levels):
        value = [value]
    return value


def test_metadata_to_the_allowed_depth_and_pairs_of_surrogates() -> None:
    """32 levels are allowed, and so is every character there is."""
    for metadata in (_nested(32), "\U0001f600 \\ud800"):
        assert fitted(metadata) == (metadata, [])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])), inner
    ),
    max_leaves=20,
)  # fmt: skip


@given(JSON)
def test_metadata_comes_back_as_it_was(metadata: Any) -> None:
    """Whatever JSON can say is written as it is."""
    removed: list[LeftOut] = []
    assert json.loads(fit_metadata(metadata, ROOM, removed) or "null") == metadata
    assert removed == []


@given(st.text())
def test_any_text_is_written_or_refused(text: str) -> None:
    """Text is refused with InvalidEvent or reads back to the letter; no lone surrogate gets by."""
    writers: list[Callable[[str], str | None]] = [
        lambda text: json.dumps(check_text("x", text)),
        lambda text: fit_metadata(text, ROOM, []),
    ]
    for write in writers:
        try:
            result = write(text)
        except InvalidEvent:
            continue
        if result is not None:
            assert json.loads(result) == text
            text.encode()


def fitted(metadata: Any, room: int = 1_000) -> tuple[Any, list[str]]:
    """What is kept of metadata, and what is told."""
    left_out: list[LeftOut] = []
    text = fit_metadata(metadata, room, left_out)
    return None if text is None else json.loads(text), list(map(str, left_out))


@pytest.mark.parametrize(
    ("metadata", "kept"),
    [
        ({"a": {2, 1}, "b": frozenset("x")}, {"a": [1, 2], "b": ["x"]}),
        ({"price": Decimal("0.10"), "n": Decimal(7)}, {"price": 0.1, "n": 7.0}),
        (Decimal("0.1234567890123456789"), "0.1234567890123456789"),
        (
            {"when": datetime(2026, 1, 2, tzinfo=timezone.utc)},
            {"when": "2026-01-02T00:00:00+00:00"},
        ),
        ({UUID(int=1): [UUID(int=2)]}, {str(UUID(int=1)): [str(UUID(int=2))]}),
    ],
)
def test_what_json_has_no_word_for(metadata: Any, kept: Any) -> None:
    """Sets, decimals, moments and ids are said exactly."""
    assert fitted(metadata) == (kept, [])


class Hostile(dict[str, int]):
    def items(self) -> Any:
        raise RuntimeError("not to be read")

    values = items


@pytest.mark.parametrize(
    ("metadata", "kept", "told"),
    [
        ({"a": 1, "b": object}, {"a": 1}, "metadata['b'] must be JSON, not <class 'object'>"),
        ([1, math.nan, 2], [1, 2], "metadata[1] must be JSON, not nan"),
        ({"a": 1, (1, 2): 3}, {"a": 1}, "metadata[(1, 2)] has a key that JSON cannot say"),
        ({"a": 1, "b": "\ud800"}, {"a": 1}, "metadata['b'] must be JSON, not '\\ud800'"),
        ({"a": [Decimal("NaN")]}, {"a": []}, "metadata['a'][0] must be JSON, not Decimal('NaN')"),
        (object, None, "metadata must be JSON, not <class 'object'>"),
        ([object()], [], "metadata[0] must be JSON, not <object>"),
        ([10**5000], [], "metadata[0] must be JSON, not <int>"),
        ("\ud800\ud800\udc00", None, "metadata must be JSON, not '\\ud800\\ud800"),
        (_nested(33), _nested(31, []), f"metadata{'[0]' * 32} is nested deeper than 32 levels"),
        ({"a": 1, 10**5000: 2}, {"a": 1}, "metadata[<int>] has a key that JSON cannot say"),
        ({"a": 1, "\udc00": 2}, {"a": 1}, "metadata['\\udc00'] has a key that JSON cannot say"),
        ({"a": 1, math.inf: 2}, {"a": 1}, "metadata[inf] has a key that JSON cannot say"),
        (
            {"a": 1, "b": Hostile(a=1)},
            {"a": 1},
            "metadata['b'] must be JSON, not <Hostile> that raised RuntimeError('not to be read')",
        ),
        ("x" * 1_000, None, "metadata has more than the 1,000 bytes of JSON that are left"),
        ("\x00" * 200, None, "metadata is 1,202 bytes of JSON, where 1,000 are left"),
    ],
)
def test_what_cannot_be_said_is_left_out(metadata: Any, kept: Any, told: str) -> None:
    """The rest of the metadata stays, and the event goes on."""
    found, (said,) = fitted(metadata)
    assert (found, said[: len(told)]) == (kept, told)


def test_metadata_that_holds_itself() -> None:
    """It is cut off where it is too deep, and is no endless work however often it does."""
    cycle: list[Any] = [1]
    cycle.append(cycle)
    kept, told = fitted(cycle)
    assert kept[0] == 1
    assert told == [f"metadata{'[1]' * 32} is nested deeper than 32 levels"]
    cycle += [cycle] * 3
    assert fitted(cycle) == (
        None,
        ["metadata has more than the 1,000 bytes of JSON that are left"],
    )


def test_no_credential_hides_in_a_set() -> None:
    """What is converted is looked at as well."""
    assert fitted({"a": {KEY}, "b": 1}) == ({"a": [], "b": 1}, ["metadata.a[0]"])
