"""Readers of hostile input are bounded, and restore exactly what platforms replaced."""

from __future__ import annotations

import base64
import gzip
import json
import random
import zlib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from doow_serverless._frames import unpacking
from doow_serverless._frames.unpacking import (
    from_base64,
    from_json,
    gunzip,
    next_json,
    path_of,
    peek,
    refuse_many_values,
    restore_properties,
    restore_quotes,
    to_text,
    unpacked,
)

SCALAR = st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.lists(st.binary(max_size=20_000), min_size=1, max_size=5))
def test_all_members_are_unpacked(contents: list[bytes]) -> None:
    """The contents of a gzip file are those of its members, one after the other."""
    assert gunzip(b"".join(map(gzip.compress, contents))) == b"".join(contents)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (gzip.compress(b"text", mtime=0)[:-1], "is gzip that is cut off"),
        (gzip.compress(b"text", mtime=0)[:1] + b"\x8b" + bytes(20), "is gzip that is damaged"),
        (gzip.compress(b"text", mtime=0) + b"more", "is gzip followed by something else"),
        (gzip.compress(b"a" * 5001, mtime=0), "unpacks to more than 0 MB"),
        (
            gzip.compress(b"a" * 5000, mtime=0) + gzip.compress(b"a", mtime=0),
            "unpacks to more than 0 MB",
        ),
    ],
)
def test_gzip_that_is_refused(data: bytes, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gzip that is cut, damaged, or too large raises ValueError with the reason."""
    monkeypatch.setattr(unpacking, "MAX_TEXT", 5000)
    with pytest.raises(ValueError, match=f"^{why}$"):
        gunzip(data)


def test_a_limit_is_inclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many bytes as allowed are unpacked."""
    monkeypatch.setattr(unpacking, "MAX_TEXT", 5000)
    assert gunzip(gzip.compress(b"a" * 5000)) == b"a" * 5000


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The length of each block that zlib is given, and the most that it may unpack from it."""
    fed: list[tuple[int, int]] = []
    original = zlib.decompressobj

    class Counting:
        def __init__(self, wbits: int) -> None:
            self._inner = original(wbits)

        def decompress(self, block: memoryview, most: int) -> bytes:
            fed.append((len(block), most))
            text: bytes = self._inner.decompress(block, most)
            return text

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

    monkeypatch.setattr(zlib, "decompressobj", Counting)
    return fed


def test_small_members_are_not_copied_again_and_again(fed: list[tuple[int, int]]) -> None:
    """Of 2,000 small members zlib is given 4 KB each, and the room that is left."""
    member = gzip.compress(b"ab")
    assert gunzip(member * 2_000) == b"ab" * 2_000
    left = len(member) * 2_000
    assert fed == [
        (min(4_096, left - len(member) * number), unpacking.MAX_TEXT + 1 - 2 * number)
        for number in range(2_000)
    ]


def test_larger_members_are_not_copied_again_and_again(fed: list[tuple[int, int]]) -> None:
    """Members above 4 KB are read in blocks that double, so that at most thrice as much is read."""
    content = random.Random(1).randbytes(5_000)
    data = gzip.compress(content) * 500
    assert gunzip(data) == content * 500
    assert sum(length for length, _ in fed) < 3 * len(data)


def test_gzip_of_gzip_is_unpacked() -> None:
    """Four layers are unpacked, a fifth is refused."""
    data = b"text"
    for _ in range(4):
        data = gzip.compress(data)
    assert unpacked(data) == b"text"
    with pytest.raises(ValueError, match=r"^is gzip within gzip, too many times$"):
        unpacked(gzip.compress(data))


def test_input_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Input that is not packed has the same limit."""
    monkeypatch.setattr(unpacking, "MAX_TEXT", 1024 * 1024)
    assert unpacked(b"a" * 1024 * 1024) == b"a" * 1024 * 1024
    with pytest.raises(ValueError, match=r"^has more than 1 MB$"):
        unpacked(b"a" * (1024 * 1024 + 1))


def test_a_look_inside_is_bounded() -> None:
    """At most 64 kB come out of gzip in base64, and nothing out of other text."""
    content = random.Random(1).randbytes(70_000)
    for data, packed in (
        (content, gzip.compress(content)),
        (b"a" * 70_000, gzip.compress(gzip.compress(b"a" * 70_000))),
    ):
        assert peek(base64.b64encode(packed).decode()) == data[: 64 * 1024]
    assert [peek(text) for text in ("", "H4sIno", "H4sI!", "H4sIAAAA", "é")] == [b""] * 5


def test_values_are_counted_outside_of_strings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large JSON with too many values is refused; the text within its strings counts once each."""
    monkeypatch.setattr(unpacking, "_SMALL", 10)
    monkeypatch.setattr(unpacking, "_MOST_VALUES", 8)
    for fine in (
        json.dumps(["\\", '",{[,,,,,,,,,', "\\\\"]),
        json.dumps({"a": [1, 2], "b": "c"}),
        "[0,0,0,0,0,0,0,0]",
        '{"":"","":"",',
        "," * 8,
    ):
        refuse_many_values(fine.encode())
    for bad in (
        "[0,0,0,0,0,0,0,0,0]",
        '{"":"","":"","":"","',
        "," * 11,
        '[{"a":[[[[[[[',
        '""' * 9,
    ):
        with pytest.raises(ValueError, match=r"^is JSON of too many values$"):
            refuse_many_values(bad.encode())
        with pytest.raises(ValueError, match=r"^is JSON of too many values$"):
            to_text(bad.encode())
    monkeypatch.setattr(unpacking, "_SMALL", 30)
    refuse_many_values(b"," * 30)
    assert to_text(b"\xef\xbb\xbf" + b"," * 9) == "," * 9


@pytest.mark.parametrize("text", [None, 7, "a", "ab=c", "a\nbc", "é"])
def test_base64_that_is_refused(text: object) -> None:
    """A value that is no base64 raises ValueError."""
    with pytest.raises(ValueError, match=r"^holds no (valid )?base64$"):
        from_base64(text)


@given(JSON)
def test_json_is_read(value: Any) -> None:
    """The value of a JSON text is read, white space around it aside."""
    assert from_json(f"\r\n {json.dumps(value)}\n") == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is no valid JSON"),
        ("{", "is no valid JSON"),
        ('"a\nb"', "is no valid JSON"),
        ("1 2", "is JSON followed by something else"),
        ("[" * 100_000, "is JSON that is nested too deeply"),
    ],
)
def test_json_that_is_refused(text: str, why: str) -> None:
    """A text that is no JSON, or no single value, raises ValueError with the reason."""
    with pytest.raises(ValueError, match=f"^{why}$"):
        from_json(text)


def test_numbers_cost_no_more_than_their_digits() -> None:
    """An integer of a million digits is a float, since reading it as an int is quadratic."""
    assert from_json("1" * 1_000_000) == float("inf")


def test_values_follow_one_another() -> None:
    """Values are read one by one, with or without white space between them."""
    assert next_json('{"a":"b"}[] ', 0) == ({"a": "b"}, 9)
    assert next_json('{"a":"b"}[] ', 9) == ([], 12)


def test_names_that_occur_twice() -> None:
    """An object with the same name twice is refused, if asked for."""
    assert next_json('{"a":"b","a":"c"}', 0) == ({"a": "c"}, 17)
    with pytest.raises(ValueError, match=r"^is no valid JSON$"):
        next_json('[{"a":"b","a":"c"}]', 0, unique_names=True)


PROPERTIES = st.fixed_dictionaries(
    {"category": st.text()},
    optional=dict.fromkeys(("appName", "message", "levelId", "exceptionDetails"), SCALAR),
)


def by_host(properties: dict[str, Any]) -> str:
    return json.dumps(properties).replace("'", "").replace('"', "'")


@given(PROPERTIES)
@example({"category": "\\", "message": "a\"b'"})
def test_properties_of_a_host_are_restored(properties: dict[str, Any]) -> None:
    """They come back, except for the single quotes that the host dropped."""
    restored = restore_properties(by_host(properties))
    assert restored == json.loads(json.dumps(properties).replace("'", ""))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "{'message':'a'}",
        "{'message':'a','category':'b','ua':'c'}",
        "{'message':'a','category':'b','message':'c'}",
        "{'message':{},'category':'b'}",
        "{'message':['a'],'category':'b'}",
        "{'message':\"a\",'category':'b'}",
        "['category']",
        "'category'",
    ],
)
def test_other_objects_are_not_restored(text: str) -> None:
    """An object is none of the host's if a field is another's, twice there, or holds an object."""
    assert restore_properties(text) is None
    assert restore_quotes(f'{{"properties":{text}}}') == f'{{"properties":{text}}}'


def test_an_object_followed_by_something_else() -> None:
    """It is no properties by itself; within JSON the next value follows."""
    assert restore_properties("{'category':'b'}{}") is None
    assert restore_quotes("\"properties\":{'category':'b'}{'") == '"properties":{"category":"b"}{\''


@given(st.lists(st.tuples(PROPERTIES, JSON), max_size=4))
@example(records=[({"category": "a\"b'"}, "{\"properties\": {'category': 'c'}}")])
@example(records=[({"category": "'"}, {"properties": "{'category':'c'}", "'": "{'"})])
def test_quotes_are_restored(records: list[tuple[dict[str, Any], Any]]) -> None:
    """Bare properties are restored wherever they stand, and the values beside them stay."""
    written, expected = [], []
    for properties, value in records:
        written.append(f'{{"a":{json.dumps(value)},"properties" : {by_host(properties)}}}')
        restored = json.loads(json.dumps(properties).replace("'", ""))
        expected.append({"a": value, "properties": restored})
    assert json.loads(restore_quotes(f"[{','.join(written)}]")) == expected


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("a word", ""),
        (["a", {"b": ["c", {"d": "the word"}]}], "b.d"),
        ({"a": {"words": 1}}, "a"),
        ({"words": 1}, ""),
        ({"a": ["wor", "d"], "b": 7.0, "c": None}, None),
    ],
)
def test_where_a_word_stands(value: object, path: str | None) -> None:
    """The path of a name or string with the word is found, at any depth."""
    assert path_of("word", value) == path


def test_a_word_in_the_deep() -> None:
    """A value nested 10,000 levels deep is searched without recursion, and the path is short."""
    value: object = "word"
    for _ in range(10_000):
        value = {"a": value}
    assert path_of("word", value) == ".".join("a" * 8)
