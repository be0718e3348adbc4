"""The work of a call is bounded by what is reported, however large what is passed is."""

from __future__ import annotations

from itertools import count, repeat
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless import _engine
from tests.unit.recording.calls import Calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONG = "x" * 1_000_000
ONE = [{"measurements": [{"metric_name": "m", "quantity": 1}]}]


class Endless(dict):  # type: ignore[type-arg]  # of whatever it is asked
    """A dict without end, that counts what is visited."""

    visited = 0

    def items(self) -> Any:
        for number in count():
            Endless.visited += 1
            yield f"k{number}", self.item(number)

    def item(self, number: int) -> Any:
        return number


class EndlessObjects(Endless):
    def item(self, number: int) -> Any:
        return object()


class EndlessList(list):  # type: ignore[type-arg]  # likewise
    def __iter__(self) -> Iterator[Any]:
        for number in count():
            Endless.visited += 1
            yield number


class EndlessTree(list):  # type: ignore[type-arg]  # likewise
    def __iter__(self) -> Iterator[Any]:
        Endless.visited += 1
        return repeat(EndlessTree())


ROOM = 256 * 1024
TOO_LONG = "metadata has more than the "
VISITS: list[tuple[dict[str, Any], int, str]] = [
    ({"attribution": Endless()}, 101, "attribution has over 100 entries, 100 are allowed"),
    ({"metric_tuple_hint": Endless()}, 4, "metric_tuple_hint must be "),
    ({"metadata": Endless()}, ROOM // 2, TOO_LONG),
    ({"metadata": EndlessList()}, ROOM // 2, TOO_LONG),
    ({"metadata": [[EndlessList()]]}, ROOM // 2, TOO_LONG),
    ({"metadata": EndlessTree()}, 32 + 1, TOO_LONG),
    ({"metadata": [object() for _ in range(20_000)]}, 0, "metadata has more than 1,000 values"),
    ({"metadata": list(range(10**6))}, 0, TOO_LONG),
    ({"metadata": LONG}, 0, TOO_LONG),
    ({"metadata": {LONG: 1}}, 0, TOO_LONG),
    ({"unit": LONG}, 0, "unit must be "),
    ({"unit": [LONG] * 1_000}, 0, "unit must be "),
    ({"source_system": LONG}, 0, "source_system must be "),
    ({"attribution": {"a": LONG}}, 0, "attribution['a'] has 1,000,000 characters"),
    ({"attribution": {LONG: "a"}}, 0, "attribution keys must be "),
    ({"attribution": dict.fromkeys(range(10**5))}, 0, "attribution has 100,000 entries"),
    ({"attribution": [LONG] * 1_000}, 0, "attribution must be "),
]


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many characters were searched for credentials, each time."""
    from doow_serverless import _redaction
    from doow_serverless._recording import labels, rules

    lengths: list[int] = []
    search = _redaction.looks_secret

    def count_and_search(text: str) -> bool:
        lengths.append(len(text))
        return search(text)

    for module in (_redaction, labels, rules):
        monkeypatch.setattr(module, "looks_secret", count_and_search)
    return lengths


@pytest.mark.parametrize(("labels", "most", "told"), VISITS, ids=[told for *_, told in VISITS])
def test_a_label_without_end(
    labels: dict[str, Any], most: int, told: str, searched: list[int]
) -> None:
    """It is looked at as far as an event has room, is left out by name, and the event counts."""
    Endless.visited = 0
    events, messages = Calls().of(lambda tracker: tracker.track("m", **labels))
    assert (events, [message[: len(told)] for message in messages]) == (ONE, [told])
    assert Endless.visited <= most + 2
    assert sum(searched) <= 10_000
    assert max(map(len, messages)) < 300


REFUSED: list[tuple[Callable[[Any], None], int, str]] = [
    (lambda t: t.track(LONG), 0, "metric must be "),
    (lambda t: t.track("m", LONG), 0, "quantity must be "),
    (lambda t: t.track("m", [LONG] * 1_000), 0, "quantity must be "),
    (lambda t: t.track("m", Endless()), 0, "quantity must be "),
    (lambda t: t.track("m", 10**100_000), 0, "quantity must be finite and at most 64 digits"),
    (lambda t: t.track("m", license_id=LONG), 0, "license_id must be "),
    (lambda t: t.track("m", timestamp=LONG), 0, "timestamp must be "),
    (lambda t: t.track("m", event_id=LONG), 0, "event_id must be "),
    (lambda t: t.track("m", kind=LONG), 0, "kind must be "),
    (lambda t: t.track_all(LONG), 0, "measurements must be "),
    (lambda t: t.track_all(Endless()), 10_001, "measurements has more than 10,000 entries"),
    (lambda t: t.track_all({LONG: 1}), 0, "metric must be "),
    (lambda t: t.track_llm(Endless()), 0, "track_llm() takes "),
]


@pytest.mark.parametrize(("call", "most", "told"), REFUSED)
def test_an_argument_without_end(
    call: Callable[[Any], None], most: int, told: str, searched: list[int]
) -> None:
    """It is refused by one short report."""
    Endless.visited = 0
    events, messages = Calls().of(call)
    assert (events, [message[: len(told)] for message in messages]) == ([], [told])
    assert Endless.visited <= most
    assert sum(searched) <= 10_000
    assert max(map(len, messages)) < 300


def test_one_event_makes_a_handful_of_reports() -> None:
    """The last of which sums up the rest; the same again makes none."""
    calls = Calls()
    labels: dict[str, Any] = {
        "unit": 1,
        "attribution": {f"a{number}": [] for number in range(100)},
        "metadata": {f"m{number}": object() for number in range(500)} | {"good": 1},
    }
    events, told = calls.of(lambda tracker: tracker.track("m", **labels))
    assert (events, len(told)) == ([{**ONE[0], "metadata": {"good": 1}}], 5)
    assert told[0].startswith("metadata has 497 more values that JSON cannot say")
    assert told[-1] == "101 more labels of the same event were left out, and it goes on"
    assert calls.of(lambda tracker: tracker.track("m", **labels))[1] == []


def test_secrets_without_end_make_a_handful_of_reports() -> None:
    """The first few are named, and the others are counted."""
    secrets = [f"dk_live_{number:016}" for number in range(2_000)]
    events, told = Calls().of(lambda tracker: tracker.track("m", metadata=secrets))
    assert (events, told) == (
        [{**ONE[0], "metadata": []}],
        [
            f"{what} looked like a credential and was left out; the event goes on without it"
            for what in (
                "each of 1997 more values of metadata",
                "metadata[2]",
                "metadata[1]",
                "metadata[0]",
            )
        ],
    )


def test_a_process_is_never_silent_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """New things are reported however many there were, and what is remembered is bounded."""
    monkeypatch.setattr(_engine, "_MAX_WARNED", 10)
    calls = Calls()
    for number in range(100):
        _, told = calls.track("m", unit=number)
        assert len(told) == 1
        assert len(calls.tracker.engine._warned) <= 10


def test_long_labels_are_not_kept() -> None:
    """What is looked up of earlier events holds on to no megabytes."""
    calls = Calls()
    for number in range(20):
        calls.track("m", unit=f"{number}{LONG}")
    kept = calls.tracker.engine.outside.defaults._templates
    assert sum(len(str(key)) for key in kept) < 10_000


def test_numbers_that_cannot_be_written_out() -> None:
    """Python may refuse to, or take long: they are left out of metadata."""
    from decimal import Decimal

    huge = [10**100_000, Decimal(10**1_000), Decimal("1e1000000"), 1]
    events, told = Calls().of(lambda tracker: tracker.track("m", metadata=huge))
    assert (events, told) == (
        [{**ONE[0], "metadata": ["1E+1000000", 1]}],
        [
            f"metadata[{number}] must be JSON, not <{kind}>, and was left out; the event goes on "
            "without it"
            for number, kind in ((1, "Decimal"), (0, "int"))
        ],
    )
