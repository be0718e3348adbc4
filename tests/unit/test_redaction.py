"""What is taken for a credential, what is not, and what messages show of it."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from doow_serverless._redaction import Unreadable, clean, looks_secret, scrub, show
from tests.network import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

AWS_SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"
CREDENTIALS = [
    KEY,
    "dk_live_" + "0aZ9" * 5,
    "AKIAIOSFODNN7EXAMPLE",
    "ASIAIOSFODNN7EXAMPLE",
    AWS_SECRET,
    JWT,
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE",
    "-----BEGIN PRIVATE KEY-----",
    "Bearer abcdef123",
    "bearer  abcdef123",
]
HARMLESS = [
    "",
    "tokens",
    "gpt-4o-mini-2026-07-18",
    "lic_abc123",
    "6e0cf3b1-1b1c-4c3e-9f00-aaaaaaaaaaaa",
    "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "arn:aws:lambda:us-east-1:123456789012:function:mine",
    "bearer of bad news",
    "the forbearer",
    "2026-11-22T11:33:00.123Z",
    "akiaiosfodnn7example",
    "a/path/of/lower/case/letters/that/is/long",
    "dk_short",
]


@pytest.mark.parametrize("text", CREDENTIALS)
@pytest.mark.parametrize("around", ["{}", "key={}", "two\nlines\n{}", "\t{}", "…{} ", '"{}"'])
def test_credentials_are_found(text: str, around: str) -> None:
    """A credential is found in plain text, in JSON and in a repr, whatever stands around it."""
    text = around.format(text)
    as_json = json.dumps({"x": text})
    assert (looks_secret(text), looks_secret(as_json), looks_secret(repr(text))) == (True,) * 3


@pytest.mark.parametrize("text", HARMLESS)
def test_ordinary_values_are_left_alone(text: str) -> None:
    """Names, ids, hashes and words are no credentials, nor is the JSON of them."""
    assert (looks_secret(text), looks_secret(json.dumps({text: [text]}))) == (False, False)


def test_long_base64_is_no_aws_secret() -> None:
    """Exactly 40 characters make an AWS secret: an image or a hash in base64 is none."""
    assert not looks_secret(AWS_SECRET + "A")
    assert not looks_secret(AWS_SECRET + "=")
    assert not looks_secret("A" + AWS_SECRET)


def test_scrub_takes_out_what_looks_secret_and_names_it() -> None:
    """Entries of mappings, items of lists and keys go; the rest stays, and the input as it was."""
    value = {
        "a": KEY,
        "b": {"c": [1, JWT, {"d": "fine", "e": AWS_SECRET}], "f": None},
        KEY: "a secret of a key",
        3: (True, "Bearer abcdefgh"),
    }
    before = repr(value)
    removed: list[str] = []
    assert scrub(value, "metadata", removed) == {
        "b": {"c": [1, {"d": "fine"}], "f": None},
        3: [True],
    }
    assert removed == [
        "metadata.a",
        "metadata.b.c[1]",
        "metadata.b.c[2].e",
        "a key of metadata",
        "metadata.3[1]",
    ]
    assert repr(value) == before


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "None"),
        ("a\nb", "'a\\nb'"),
        (KEY, "<str that looks like a credential>"),
        ("\n" + KEY, "<str that looks like a credential>"),
        ([KEY], "<list that looks like a credential>"),
        ("x" * 100, "'" + "x" * 59 + "…"),
    ],
)
def test_show(value: object, shown: str) -> None:
    """A value in a message is short, on one line, and no credential."""
    assert show(value) == shown


def test_show_survives_a_broken_repr() -> None:
    """A value whose repr raises is named by its type."""

    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    assert show(Broken()) == "<Broken>"
    assert show(10**5000) == "<int>"


def test_clean() -> None:
    """Control characters become spaces, ends are trimmed, length is bounded."""
    assert clean("a\r\n\x1b[31mb\u202e ", 200) == "a   [31mb"
    assert clean("abcdef", 3) == "abc"


class Methods:
    """An object whose methods are counted, and raise."""

    called = 0

    def __getattribute__(self, name: str) -> object:
        type(self).called += 1
        raise RuntimeError

    def __repr__(self) -> str:
        type(self).called += 1
        raise RuntimeError


class Metaclass(type):
    __name__ = property(Methods.__repr__)


class Odd(metaclass=Metaclass):
    pass


class Error(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def test_show_calls_no_method_of_the_value() -> None:
    """So it neither raises nor takes long, whatever the value is."""
    moment = datetime(2026, 1, 1, tzinfo=timezone.utc)
    shown: list[tuple[object, str]] = [
        (Methods(), "<Methods>"),
        ([Methods()], "[<Methods>]"),
        ({"a": (Methods(),)}, "{'a': (<Methods>,)}"),
        (Odd(), "<Odd>"),
        (Odd, "<class 'Odd'>"),
        (Error("a", Methods()), "Error('a', <Methods>)"),
        (Unreadable(Methods(), Error("gone")), "<Methods> that raised Error('gone')"),
        (moment, "datetime.datetime(2026, 1, 1, 0, 0, tzinfo=datetime.timezone…"),
        (set(), "set()"),
        (frozenset({1}), "frozenset({1})"),
        (bytearray(b"abc"), "b'abc'"),
        (Decimal(10**1_000), "<Decimal>"),
        ([[[[[1]]]]], "[[[[…]]]]"),
    ]
    Methods.called = 0
    assert [show(value) for value, _ in shown] == [text for _, text in shown]
    assert Methods.called == 0


class Counted(list):  # type: ignore[type-arg]  # of what a repr would visit
    visited = 0

    def __iter__(self) -> Iterator[object]:
        for item in super().__iter__():
            Counted.visited += 1
            yield item


def test_show_looks_at_the_beginning_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is searched for credentials is bounded, however long the value is."""
    searched: list[int] = []

    def search(text: str) -> bool:
        searched.append(len(text))
        return False

    monkeypatch.setattr("doow_serverless._redaction.looks_secret", search)
    for value in ("x" * 1_000_000, b"x" * 1_000_000, ["x" * 1_000_000] * 100, list(range(10**5))):
        assert len(show(value)) == 61
    assert max(searched) <= 4_096
    assert (show(Counted([1])), Counted.visited) == ("<Counted>", 0)
