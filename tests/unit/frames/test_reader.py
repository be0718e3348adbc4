"""Dead letters survive what logs do to them, and what does not survive is noticed."""

from __future__ import annotations

import csv
import io
import json
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doow_serverless._frames import reader as dead_letter_reader
from doow_serverless._frames.format import records_of
from doow_serverless._frames.reader import Assembly, Damage, Finder, Part
from doow_serverless._sealing import LINE_LIMIT, Batch
from doow_serverless.errors import ErrorKind
from tests.batches import batch, contents, find_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

AT = 1_795_347_180.123
"""2026-11-22T11:33:00.123Z"""


def records(one: Batch, limit: int = LINE_LIMIT) -> list[str]:
    return records_of(one, ErrorKind.TIMEOUT, AT, limit=limit)


def assembled(text: str) -> tuple[list[tuple[Any, ...]], list[tuple[str | None, str]]]:
    """The batches in a text, and what is wrong with the others."""
    return put_together(find_records(text))


def put_together(
    found: Iterable[Part | Damage],
) -> tuple[list[tuple[Any, ...]], list[tuple[str | None, str]]]:
    assembly = Assembly()
    letters = [letter for one in found if (letter := assembly.add(one))]
    return [contents(letter.batch) for letter in letters], assembly.problems()


def _as_csv(text: str) -> str:
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_ALL).writerow(["2026-11-22", text, "{}"])
    return file.getvalue()


def _by_dot_net(text: str) -> str:
    return json.dumps({"message": text, "customDimensions": {"a": "{b}"}}).replace('\\"', "\\u0022")


def _reprinted(text: str) -> str:
    """Each line that is JSON read and written anew: pretty, and with its keys sorted."""
    try:
        return json.dumps({"record": json.loads(text)}, indent=2, sort_keys=True)
    except ValueError:
        return text


ENVELOPES: list[Callable[[str], str]] = [
    lambda text: text,
    lambda text: f"2026-11-22T11:33:00.123Z {text}",
    lambda text: f"2026/11/22/[$LATEST]0123456789abcdef {text} trailing {{}} words",
    lambda text: f"a print without an end{text}",
    json.dumps,
    lambda text: json.dumps({"timestamp": 1, "message": f"{text}\n", "ingestionTime": 2}),
    lambda text: json.dumps({"tables": [{"rows": [["x", text], ["y", "z"]]}]}, indent=4),
    _as_csv,
    _by_dot_net,
    _reprinted,
    lambda text: text.replace('"', "&quot;"),
]


# ── whole ───────────────────────────────────────────────────────────────────────────────────────


def test_a_record_is_one_line_of_json() -> None:
    """What stands in the log, whole."""
    one = batch(2, batch_id="b-1", compress=False)

    (line,) = records(one)

    said = json.loads(line)
    data = said.pop("data")
    for changing in ("sha256", "crc32"):
        assert set(said.pop(changing)) <= set("0123456789abcdef")
    assert said == {
        "doow_dead_letter": 1,
        "timestamp": "2026-11-22T11:33:00.123Z",
        "level": "ERROR",
        "message": "usage events that Doow did not confirm - see doow-serverless replay",
        "batch_id": "b-1",
        "events": 2,
        "reason": "TIMEOUT",
        "sdk_version": "0.1.0",
        "encoding": "identity",
        "part": 1,
        "parts": 1,
    }
    assert data.startswith("H4sI"), "gzip in base64"
    assert "\n" not in line


@settings(max_examples=60, deadline=None)
@given(
    batch_id=st.text(min_size=0, max_size=30),
    events=st.integers(1, 20),
    noise=st.sampled_from([0, 10, 900]),
    compress=st.booleans(),
    limit=st.integers(2_000, LINE_LIMIT),
    levels=st.lists(st.sampled_from(ENVELOPES), max_size=5),
    seed=st.integers(),
)
def test_round_trip(
    batch_id: str,
    events: int,
    noise: int,
    compress: bool,
    limit: int,
    levels: list[Callable[[str], str]],
    seed: int,
) -> None:
    """However escaped, shuffled, repeated and cut into blocks, the same bytes come back, once."""
    chance = random.Random(seed)
    batches = [batch(events, noise=noise, compress=compress), batch(1, batch_id=batch_id or "x")]
    lines = [line for one in batches for line in records(one, limit)]
    assert max(map(len, lines)) <= limit
    lines += chance.choices(lines, k=3)
    chance.shuffle(lines)
    for envelope in levels:
        lines = [envelope(line) for line in lines]
    text = "\n".join(["START RequestId: {1}", *lines, "mentions doow_dead_letter: {1}", ""])

    finder, at = Finder(), 0
    found: list[Part | Damage] = []
    while at < len(text):
        size = chance.choice([1, 100, 5_000, 100_000])
        found += finder.feed(text[at : at + size])
        at += size
    found += finder.close()

    read, problems = put_together(found)
    assert sorted(read) == sorted(map(contents, batches))
    assert problems == []


@pytest.mark.parametrize("batch_id", ["", "a b", 'q"\\', "é\ud800", "%41", "a,b:c{d}", "\u2028"])
def test_any_id(batch_id: str) -> None:
    """The alphabet of records is kept by whatever a batch is called."""
    # The JSON inside names it as well, and json.loads gives back a lone surrogate.
    one = Batch(batch_id, *contents(batch(batch_id=batch_id or "x"))[1:])
    if not batch_id:
        one = batch(batch_id="x")
        one = Batch("", one.event_ids, one.body.replace(b'"x"', b'""'), False, one.sdk_version)

    text = "\n".join(records(one))

    assert text.isascii()
    assert "\\" not in text
    assert assembled(json.dumps(text)) == ([contents(one)], [])


def test_no_record_is_long() -> None:
    """The largest body that is sent makes parts within the limit, each told apart."""
    one = batch(500, noise=900)
    lines = records(one)

    assert len(one.body) > 200_000
    assert max(map(len, lines)) <= LINE_LIMIT
    assert [json.loads(line)["part"] for line in lines] == list(range(1, len(lines) + 1))


# ── not whole ───────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=60, deadline=None)
@given(cut=st.floats(0, 1), levels=st.lists(st.sampled_from(ENVELOPES[:9]), max_size=3))
def test_a_cut_line_is_noticed(cut: float, levels: list[Callable[[str], str]]) -> None:
    """A line that ends early delivers nothing, harms nobody, and is told as long as it is known."""
    (broken,), (good,) = records(batch(3, batch_id="lost")), records(batch(batch_id="kept"))
    lines = [broken[: int(cut * (len(broken) - 3))], good]
    for envelope in levels:
        lines = [envelope(line) for line in lines]

    read, problems = assembled("\n".join(lines))

    assert [one[0] for one in read] == ["kept"]
    if '"events":' in broken[: int(cut * (len(broken) - 3))]:
        assert problems == [("lost", "a record is cut off or altered")]


def test_missing_parts_are_named() -> None:
    """What is needed to look for the rest."""
    lines = records(batch(100, noise=900, batch_id="b"), 10_000)
    count = len(lines)
    assert count > 4

    assert assembled("\n".join(lines[:1] + lines[2:])) == (
        [],
        [("b", f"part 2 of {count} missing")],
    )
    assert assembled(lines[0] + lines[3]) == (
        [],
        [("b", f"parts 2, 3, {', '.join(str(n) for n in range(5, count + 1))} of {count} missing")],
    )


def test_an_altered_character_is_noticed() -> None:
    """One character of the data, of the checksum, or of what the record says of the batch."""
    one = batch(30, batch_id="b-1")
    (line,) = records(one)
    said = json.loads(line)
    flipped = "A" if said["data"][50] != "A" else "B"
    altered = {
        "data": said["data"][:50] + flipped + said["data"][51:],
        "sha256": said["sha256"][::-1],
        "batch_id": "b-2",
        "events": 31,
        "sdk_version": "9",
        "encoding": "identity",
        "part": 2,
        "doow_dead_letter": 2,
    }
    for name, value in altered.items():
        read, problems = assembled(json.dumps({**said, name: value}))
        assert (name, read, len(problems)) == (name, [], 1)


def test_a_whole_copy_heals_a_damaged_one() -> None:
    """What one export cut off, another may hold."""
    one = batch(batch_id="b")
    (line,) = records(one)

    assert assembled(f"{line[:-9]}\n{line}") == ([contents(one)], [])


def test_parts_of_different_lengths_do_not_mix() -> None:
    """Two versions may cut one batch differently: each set stands for itself."""
    one = batch(50, noise=900, batch_id="b")
    long, short = records(one, 20_000), records(one, 10_000)

    assert assembled("\n".join(long[:1] + short + long[1:])) == ([contents(one)], [])
    assert assembled("\n".join(long[:1] + short[1:]))[0] == []


def test_the_same_work_done_again() -> None:
    """Equal events under an equal id, sealed at another time, are no conflict: the first counts."""
    first = batch(2, batch_id="b")
    again = batch(2, batch_id="b", occurred_at="2026-11-22T11:34:00.000Z")

    assert assembled("\n".join(records(first) + records(again))) == ([contents(first)], [])


def test_other_events_under_one_id_are_told() -> None:
    """The server would take the second for the first, and lose it."""
    first, second = batch(2, batch_id="b"), batch(3, batch_id="b")

    read, problems = assembled("\n".join(records(first) + records(second)))

    assert read == [contents(first)]
    assert problems == [("b", "came again with other events, which were left out")]


def test_repeated_records_are_counted() -> None:
    """For the summary."""
    lines = records(batch(50, noise=900), 20_000)
    assembly = Assembly()
    for one in find_records("\n".join(lines[:2] * 2 + lines[2:] + lines[-1:])):
        assembly.add(one)

    assert (assembly.repeated, assembly.problems()) == (3, [])


def test_a_body_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little gzip can hold a lot."""
    monkeypatch.setattr(dead_letter_reader, "_MAX_BODY", 1_000)

    assert assembled(records(batch(batch_id="b", unit="a" * 2_000))[0]) == (
        [],
        [("b", "the checksum does not fit")],
    )


@settings(max_examples=100, deadline=None)
@given(st.text('{}doow_dead_letter:1,"\\ \nu0022batch_id%events', max_size=300))
def test_any_text_is_survived(text: str) -> None:
    """A log may hold anything."""
    marked = text.replace("d", "doow_dead_letter")
    assert assembled(marked)[0] == []


@pytest.mark.parametrize("batch_id", ["%FF", "%"])
def test_ids_that_nobody_wrote(batch_id: str) -> None:
    """An id that cannot be decoded is shown as it stands."""
    (line,) = records(batch(batch_id="good"))

    assert assembled(line.replace('"good"', f'"{batch_id}"')) == (
        [],
        [(batch_id, "it holds another batch than it says")],
    )


def test_memory_is_bounded() -> None:
    """A marker without an end keeps no gigabytes waiting."""
    finder = Finder()
    for text in ['{"doow_dead_letter":1,', *["a" * 10_000] * 100]:
        list(finder.feed(text))
        assert len(finder._kept) < 100_000
