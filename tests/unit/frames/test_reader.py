"""A text is exactly a frame, whole or damaged, or it is none; batches come back to the byte."""

from __future__ import annotations

import json
import random
import time
import tracemalloc
import zlib
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doow_serverless._frames.assembly import Assembly
from doow_serverless._frames.format import SIGNED, digest_of, encoded, frame, frames_of, signed_text
from doow_serverless._frames.reader import Damage, Part, frame_of, read_frame, read_frames
from doow_serverless._sealing import LINE_LIMIT, Batch, gzip
from doow_serverless.errors import ErrorKind
from tests.batches import batch, contents, find_records

if TYPE_CHECKING:
    from collections.abc import Iterable

AT = 1_795_347_180.123
"""2026-11-22T11:33:00.123Z"""
KEY = b"a log key"


def frames(one: Batch, limit: int = LINE_LIMIT, key: bytes | None = None) -> list[str]:
    return frames_of(one, ErrorKind.TIMEOUT, AT, limit=limit, key=key)


def assembled(text: str) -> tuple[list[tuple[Any, ...]], list[tuple[str | None, str]]]:
    """The batches in a text, and what is wrong with the others."""
    return put_together(find_records(text))


def put_together(
    found: Iterable[Part | Damage],
) -> tuple[list[tuple[Any, ...]], list[tuple[str | None, str]]]:
    assembly = Assembly()
    letters = [letter for one in found if (letter := assembly.add(one))]
    return [contents(letter.batch) for letter in letters], assembly.problems()


def part_of(text: str) -> Part:
    part = read_frame(text)
    assert isinstance(part, Part)
    return part


def signed_by(one: Part | Damage | None, keys: list[bytes]) -> bool:
    assert isinstance(one, Part)
    return one.is_signed_by(keys)


# ── whole ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("key", [None, KEY])
def test_a_frame_is_one_line_of_json(key: bytes | None) -> None:
    """All of its fields, in their order; with a key it is signed."""
    (line,) = frames(batch(2, batch_id="b-1", compress=False), key=key)
    said = json.loads(line)
    assert list(said)[-2 if key is None else -3 :] == ["data", "digest", *(["hmac"] if key else [])]
    assert len(said.pop("hmac", "")) == (43 if key else 0)
    assert [len(said.pop(name)) for name in ("sha256", "digest")] == [22, 22]
    assert said.pop("data").startswith("H4sI"), "gzip in base64"
    assert said == {
        "doow_dead_letter": 2,
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
    assert "\n" not in line


@settings(max_examples=60, deadline=None)
@given(
    batch_id=st.text(min_size=0, max_size=30),
    events=st.integers(1, 20),
    noise=st.sampled_from([0, 10, 900]),
    compress=st.booleans(),
    limit=st.integers(2_000, LINE_LIMIT),
    key=st.none() | st.binary(min_size=1),
    seed=st.integers(),
)
def test_round_trip(
    batch_id: str,
    events: int,
    noise: int,
    compress: bool,
    limit: int,
    key: bytes | None,
    seed: int,
) -> None:
    """However shuffled and repeated, and whether as lines or as objects: the same bytes, once."""
    chance = random.Random(seed)
    batches = [batch(events, noise=noise, compress=compress), batch(1, batch_id=batch_id or "x")]
    lines = [line for one in batches for line in frames(one, limit, key)]
    assert max(map(len, lines)) <= limit
    lines += chance.choices(lines, k=3)
    chance.shuffle(lines)
    by_line = list(map(read_frame, lines))
    sorted_keys = [
        frame_of(json.loads(json.dumps(json.loads(line), sort_keys=True))) for line in lines
    ]
    for found in (by_line, sorted_keys):
        read, problems = put_together(found)  # type: ignore[arg-type]
        assert sorted(read) == sorted(map(contents, batches))
        assert problems == []
        assert {signed_by(one, [KEY, key or b""]) for one in found} == {key is not None}


@pytest.mark.parametrize("batch_id", ["", "a b", 'q"\\', "é\ud800", "%41", "a,b:c{d}", "\u2028"])
def test_any_id(batch_id: str) -> None:
    """The alphabet of frames is kept, whatever a batch is called."""
    # The JSON inside names it as well, and json.loads gives back a lone surrogate.
    one = Batch(batch_id, *contents(batch(batch_id=batch_id or "x"))[1:])
    if not batch_id:
        one = batch(batch_id="x")
        one = Batch("", one.event_ids, one.body.replace(b'"x"', b'""'), False, one.sdk_version)
    text = "\n".join(frames(one))
    assert text.isascii()
    assert "\\" not in text
    assert "'" not in text
    assert assembled(text) == ([contents(one)], [])


def test_no_frame_is_long() -> None:
    """The largest body that is sent makes parts within the limit, each told apart."""
    one = batch(500, noise=900)
    for key in (None, KEY):
        lines = frames(one, key=key)
        assert len(one.body) > 200_000
        assert LINE_LIMIT - 10 < max(map(len, lines)) <= LINE_LIMIT
        assert [json.loads(line)["part"] for line in lines] == list(range(1, len(lines) + 1))


def test_a_part_is_written_again_as_it_came() -> None:
    """With its signature, at whatever level the log keeps."""
    (line,) = frames(batch(3), key=KEY)
    again = part_of(line).line("FATAL")
    assert again == line.replace('"level":"ERROR"', '"level":"FATAL"')
    assert part_of(again).is_signed_by([KEY])


def earlier(one: Batch, limit: int = 28_000) -> list[str]:
    """The lines of format 1, as earlier versions have written them."""
    packed = one.body if one.gzipped else gzip(one.body)
    data = urlsafe_b64encode(packed).decode().rstrip("=")
    pieces = [data[at : at + limit] for at in range(0, len(data), limit)]
    return [
        '{"doow_dead_letter":1,"timestamp":"2026-11-22T11:33:00.123Z","level":"INFO",'
        '"message":"usage events for a relay to bring to Doow",'
        f'"batch_id":"{one.id}","events":{len(one)},"reason":"LOG","sdk_version":"0.1.0",'
        f'"encoding":"{"gzip" if one.gzipped else "identity"}",'
        f'"sha256":"{sha256(one.body).hexdigest()}",'
        f'"part":{number},"parts":{len(pieces)},"crc32":"{zlib.crc32(piece.encode()):08x}",'
        f'"data":"{piece}"}}'
        for number, piece in enumerate(pieces, 1)
    ]


def test_lines_of_earlier_versions() -> None:
    """They are read, and written again as they were; nobody has signed them."""
    one, two = batch(3), batch(200, noise=900)
    lines = [*earlier(one), *earlier(two, 20_000)]
    assert len(lines) > 3
    assert assembled("\n".join(lines)) == ([contents(one), contents(two)], [])
    assert [part_of(line).line() for line in lines] == lines
    assert not part_of(lines[0]).is_signed_by([KEY])
    assert isinstance(frame_of(json.loads(lines[0])), Part)


# ── signatures ──────────────────────────────────────────────────────────────────────────────────


def test_signatures() -> None:
    """Only a holder of one of the keys can have written the frame."""
    (signed,), (unsigned,) = frames(batch(2), key=KEY), frames(batch(2))
    assert part_of(signed).is_signed_by([KEY])
    assert part_of(signed).is_signed_by([b"new", KEY])
    assert not part_of(signed).is_signed_by([b"new"])
    assert not part_of(signed).is_signed_by([])
    assert not part_of(unsigned).is_signed_by([KEY])


@pytest.mark.parametrize("name", SIGNED)
def test_a_signature_covers_all_that_counts(name: str) -> None:
    """Whoever alters a field, and makes the digest fit again, has no signature for it."""
    (line,) = frames_of(batch(2, batch_id="b-1"), "LOG", AT, key=KEY)
    other = {
        "batch_id": "b-2", "events": "9", "reason": "SPLIT", "sdk_version": "9",
        "encoding": "gzip", "sha256": "A" * 22, "part": "2", "parts": "3", "data": "H4sI",
    }  # fmt: skip
    fields = {key: str(value) for key, value in json.loads(line).items()}
    fields.update({name: other[name], "parts": "3"})
    fields["digest"] = digest_of(signed_text(fields))
    forged = frame_of(fields)
    assert isinstance(forged, Part)
    assert not forged.is_signed_by([KEY])


# ── none, or damaged ────────────────────────────────────────────────────────────────────────────

(LINE,) = frames(batch(3, batch_id="b"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "doow_dead_letter",
        "null",
        f"a print without an end{LINE}",
        f"x {LINE}",
        f"\ufeff{LINE}",
        f"\u2028{LINE}",
        f"\x1c{LINE}",
        f"\xa0{LINE}",
        f"\x0b{LINE}\x0c",
        f'"{LINE}"',
        f"[{LINE}]",
        json.dumps(LINE),
        json.dumps({"message": LINE}),
        json.dumps({"level": "INFO", **json.loads(LINE)}),
        LINE.replace('"doow', ' "doow'),
    ],
)
def test_other_text_is_none(text: str) -> None:
    """A frame within a line, a string or an object is content of that line, string or object."""
    assert read_frame(text) is None
    assert read_frames(text) == []


@pytest.mark.parametrize(
    ("text", "batch_id", "why"),
    [
        (LINE[:-1], "b", "is cut off or altered"),
        (LINE[:200], "b", "is cut off or altered"),
        (LINE[:30], None, "is cut off or altered"),
        (f"{LINE} and more", "b", "is cut off or altered"),
        (f"{LINE}{LINE}", "b", "is cut off or altered"),
        (LINE.replace('"b"', '"c"'), "c", "is cut off or altered"),
        (LINE.replace('"part":1', '"part":2'), "b", "is cut off or altered"),
        (LINE.replace('letter":2', 'letter":3'), "b", "is of a later version of doow-serverless"),
        (
            LINE.replace('letter":2', 'letter":9999999999'),
            None,
            "is of a later version of doow-serverless",
        ),
    ],
)
def test_damage(text: str, batch_id: str | None, why: str) -> None:
    """A text that begins as a frame and is no whole one is reported, with its batch if known."""
    damage = read_frame(text)
    assert isinstance(damage, Damage)
    assert (damage.batch_id, damage.why) == (batch_id, why)


def resealed(**changes: str) -> str:
    """A frame with other values, whose digest fits."""
    fields = {name: str(value) for name, value in json.loads(LINE).items()} | changes
    return frame({**fields, "digest": digest_of(signed_text(fields))})


@pytest.mark.parametrize(
    ("changes", "batch_id"),
    [
        ({"batch_id": "i" * 401}, None),
        ({"batch_id": "i" * 60_000}, None),
        ({"sdk_version": "1" * 65}, "b"),
        ({"timestamp": "1" * 41}, None),
        ({"level": "A" * 11}, None),
        ({"message": "a" * 101}, None),
        ({"data": "A" * 30_000}, "b"),
    ],
)
def test_long_values_are_damage(changes: dict[str, str], batch_id: str | None) -> None:
    """No frame was ever so long, and nobody can make a reader remember long ids."""
    found = read_frame(resealed(**changes))
    assert isinstance(found, Damage)
    assert (found.batch_id, len(found.timestamp) <= 40) == (batch_id, True)


@pytest.mark.parametrize("changes", [{"batch_id": "i" * 401}, {"sdk_version": "1" * 65}])
def test_long_values_of_objects_are_damage(changes: dict[str, str]) -> None:
    """An object that an export has parsed has the same limits."""
    found = frame_of(json.loads(resealed(**changes)))
    assert isinstance(found, Damage)
    assert found.batch_id == (None if "batch_id" in changes else "b")


def test_values_may_be_as_long_as_any_version_wrote_them() -> None:
    """Ids of 400 characters are read, and frames of 30,000 as a whole."""
    room = 30_000 - len(resealed(data="", batch_id="i" * 400, sdk_version="1" * 64))
    line = resealed(data="A" * room, batch_id="i" * 400, sdk_version="1" * 64)
    assert part_of(line).batch_id == "i" * 400
    assert isinstance(read_frame(line.replace('"data":"', '"data":"A')), Damage)


def test_several_lines() -> None:
    """A text of nothing but frames holds them all; with anything else beside them, none."""
    other = frames(batch(1))[0]
    assert [type(one) for one in read_frames(f"\n{LINE}\r\n\n{other}\n")] == [Part, Part]
    assert read_frames(f"the customer said:\n{LINE}") == []
    assert read_frames(f"{LINE}\nmore") == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Part),
        ({"events": "3", "part": "1", "parts": "1", "doow_dead_letter": "2"}, Part),
        ({"timestamp": None, "message": None, "level": None}, Part),
        ({"location": "handler:5"}, type(None)),
        ({"doow_dead_letter": None}, type(None)),
        ({"doow_dead_letter": 3}, Damage),
        ({"doow_dead_letter": [2]}, Damage),
        ({"data": None}, Damage),
        ({"data": {"a": 1}}, Damage),
        ({"events": True}, Damage),
        ({"events": "x"}, Damage),
        ({"events": 4}, Damage),
        ({"digest": "A" * 22}, Damage),
    ],
)
def test_objects(changes: dict[str, Any], expected: type) -> None:
    """An object is a frame if it has the fields of one and no others."""
    fields = {**json.loads(LINE), **changes}
    found = frame_of({name: value for name, value in fields.items() if value is not None})
    assert type(found) is expected


@settings(max_examples=60, deadline=None)
@given(cut=st.floats(0, 1))
def test_a_cut_line_is_noticed(cut: float) -> None:
    """A line that ends early delivers nothing, harms nobody, and is reported if it has a batch."""
    (broken,), (good,) = frames(batch(3, batch_id="lost")), frames(batch(batch_id="kept"))
    left = broken[: int(cut * (len(broken) - 1))]
    read, problems = assembled(f"{left}\n{good}")
    assert [one[0] for one in read] == ["kept"]
    if '"events":' in left:
        assert problems == [("lost", "a frame is cut off or altered")]


@settings(max_examples=100, deadline=None)
@given(st.text('{}doow_dead_letter:1,"\\ \nu0022batch_id%events', max_size=300))
def test_any_text_is_survived(text: str) -> None:
    """A log may hold anything."""
    marked = text.replace("d", "doow_dead_letter")
    assert assembled(marked)[0] == []


@pytest.mark.parametrize(
    "tail", ["\\", "\\u", "&quot", ",", "a:", " ", '"', "doow_dead_letter:1,", '"data":"', "A"]
)
def test_hostile_lines_are_read_in_linear_time(tail: str) -> None:
    """A line of ten times the length takes no hundred times as long."""

    def spent(length: int) -> float:
        text = LINE[:-40] + tail * (length // len(tail))
        began = time.perf_counter()
        for _ in range(5):
            read_frame(text)
        return time.perf_counter() - began

    # Far from what a quadratic reader needs, which is minutes.
    assert min(spent(600_000) for _ in range(3)) < 1.0


# ── putting together ────────────────────────────────────────────────────────────────────────────


def test_missing_parts_are_named() -> None:
    """The report says which parts to look for."""
    lines = frames(batch(30, noise=900, batch_id="b"), 3_000)
    count = len(lines)
    assert count > 4
    assert assembled("\n".join(lines[:1] + lines[2:])) == (
        [],
        [("b", f"part 2 of {count} missing")],
    )
    rest = [n for n in range(1, count + 1) if n not in (1, 4)]
    named = ", ".join(map(str, rest[:10])) + (", …" if len(rest) > 10 else "")
    assert assembled("\n".join((lines[0], lines[3]))) == (
        [],
        [("b", f"parts {named} of {count} missing")],
    )


def test_an_altered_value_is_noticed() -> None:
    """One character of the data, of the proofs, or of a field that counts."""
    (line,) = frames(batch(30, batch_id="b-1"))
    said = json.loads(line)
    flipped = "A" if said["data"][50] != "A" else "B"
    altered = {
        "data": said["data"][:50] + flipped + said["data"][51:],
        "sha256": said["sha256"][::-1],
        "batch_id": "b-2",
        "events": 31,
        "sdk_version": "9",
        "encoding": "identity" if said["encoding"] == "gzip" else "gzip",
        "reason": "SPLIT",
        "part": 2,
        "doow_dead_letter": 3,
    }
    for name, value in altered.items():
        text = json.dumps({**said, name: value}, separators=(",", ":"))
        read, problems = assembled(text)
        assert (name, read, len(problems)) == (name, [], 1)


def test_a_whole_copy_heals_a_damaged_one() -> None:
    """A line that one export has cut off may be whole in another."""
    one = batch(batch_id="b")
    (line,) = frames(one)
    assert assembled(f"{line[:-9]}\n{line}") == ([contents(one)], [])


def test_parts_of_different_lengths_do_not_mix() -> None:
    """Two versions may cut one batch differently: each set stands for itself."""
    one = batch(50, noise=900, batch_id="b")
    long, short = frames(one, 4_000), frames(one, 3_000)
    assert assembled("\n".join(long[:1] + short + long[1:])) == ([contents(one)], [])
    assert assembled("\n".join(long[:1] + short[1:]))[0] == []


def test_the_same_work_done_again() -> None:
    """Equal events under an equal id, sealed at another time, are no conflict: the first counts."""
    first = batch(2, batch_id="b")
    again = batch(2, batch_id="b", occurred_at="2026-11-22T11:34:00.000Z")
    assert assembled("\n".join(frames(first) + frames(again))) == ([contents(first)], [])


def test_other_events_under_one_id_are_reported() -> None:
    """The server would take the second for the first, and lose it."""
    first, second = batch(2, batch_id="b"), batch(3, batch_id="b")
    read, problems = assembled("\n".join(frames(first) + frames(second)))
    assert read == [contents(first)]
    assert problems == [("b", "came again with other events, which were left out")]


def test_repeated_frames_are_counted() -> None:
    """For the summary."""
    lines = frames(batch(50, noise=900), 20_000)
    assembly = Assembly()
    for one in find_records("\n".join(lines[:2] * 2 + lines[2:] + lines[-1:])):
        assembly.add(one)
    assert (assembly.repeated, assembly.problems()) == (3, [])


def test_a_body_that_never_ends_is_refused() -> None:
    """A body of more than 1 MiB, which little gzip can hold, is not unpacked further."""
    for more, problems in ((0, []), (1_000, [("b", "the checksum does not fit")])):
        one = batch(batch_id="b", unit="a" * (1024 * 1024 - 1_000 + more))
        assert assembled("\n".join(frames(one)))[1] == problems


@pytest.mark.parametrize(
    ("objects", "why"), [(149_000, "it holds no batch"), (1_900_000, "the checksum does not fit")]
)
def test_hostile_bodies_take_little_memory(objects: int, why: str) -> None:
    """A frame of 30 kB that unpacks to the smallest of JSON's objects takes less than 60 MB."""
    body = b'[{"event_id":"a"},' + b'{"":0},' * objects + b"0]"
    fields = {"encoding": "identity", "sha256": digest_of(body)}
    packer = zlib.compressobj(9, wbits=31)
    data = encoded(packer.compress(body) + packer.flush())
    line = resealed(data=data, **fields)
    assert len(line) < 30_000
    found = read_frame(line)
    tracemalloc.start()
    try:
        problems = put_together([found])[1]  # type: ignore[list-item]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert problems == [("b", why)]
    assert peak < 60 * 1024 * 1024


@pytest.mark.parametrize("batch_id", ["%FF", "%"])
def test_ids_that_nobody_wrote(batch_id: str) -> None:
    """An id that cannot be decoded is shown as it stands."""
    (line,) = earlier(batch(batch_id="good"))
    assert assembled(line.replace('"good"', f'"{batch_id}"')) == (
        [],
        [(batch_id, "it holds another batch than it says")],
    )
