"""Documents are cut out of a text exactly where they begin and end, however it comes in pieces."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doow_serverless.cli import export_documents
from doow_serverless.cli.export_bytes import Unreadable
from doow_serverless.cli.export_documents import Documents, NoDocument, values_in

_VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
_DOCUMENT = st.lists(_VALUE, max_size=3) | st.dictionaries(st.text(), _VALUE, max_size=3)


def cut(text: str, size: int) -> tuple[list[Any], bool]:
    """The documents of a text that comes in pieces, and whether one has not ended."""
    documents = Documents()
    found = [
        json.loads(source)
        for at in range(0, len(text), size)
        for source in documents.feed(text[at : at + size])
    ]
    return found, documents.is_open


@settings(max_examples=150, deadline=None)
@given(
    values=st.lists(_DOCUMENT, max_size=4),
    indent=st.none() | st.integers(0, 3),
    is_ascii=st.booleans(),
    between=st.sampled_from(["", "\n", " \r\n\t"]),
    size=st.integers(1, 40),
)
def test_documents_in_pieces(
    values: list[Any], indent: int | None, is_ascii: bool, between: str, size: int
) -> None:
    """Side by side or apart, pretty or not, every document comes out as it went in."""
    text = "".join(
        json.dumps(value, indent=indent, ensure_ascii=is_ascii) + between for value in values
    )

    assert cut(text, size) == (values, False)
    if values:
        assert cut(text.rstrip()[:-1], size) == (values[:-1], True)


@settings(max_examples=300, deadline=None)
@given(st.text('{}[]",:\\ \n1ntrue', max_size=40), st.integers(1, 5))
def test_any_text(text: str, size: int) -> None:
    """Whatever is JSON is no less for the automaton; the size of the pieces changes nothing."""
    try:
        whole = Documents().feed(text + "\n")
    except NoDocument:
        with pytest.raises(NoDocument):
            cut_sources(text + "\n", size)
        values = values_in(text.strip())
        assert values is None or not all(isinstance(one, (dict, list)) for one, _ in values)
    else:
        assert cut_sources(text + "\n", size) == [source.strip() for source in whole]


def cut_sources(text: str, size: int) -> list[str]:
    documents = Documents()
    return [
        source.strip()
        for at in range(0, len(text), size)
        for source in documents.feed(text[at : at + size])
    ]


@pytest.mark.parametrize(
    "text",
    [
        "START", "1", '"a"', "}", "[INFO] x", "[1] started", "{'a': 1}", "[INFO", '{"a": "b',
        '{"a": "\\', "{a: 1", '[{"a":1}\n{"b":2}', "[,", "[:", '{"a"}}', "[}", '{"a":]', "{{",
        '{"a":1}x', "[" * 501, "[1 2", '{"a":1,{',
    ],
)  # fmt: skip
def test_text_that_is_no_document(text: str) -> None:
    """It is given up at once, so that the lines of an ordinary log are not collected."""
    with pytest.raises(NoDocument):
        Documents().feed(f"{text}\n")


def test_what_was_held_is_left_as_it_was() -> None:
    """The lines of what was no document are read one by one."""
    documents = Documents()
    documents.feed('{"a":\n')
    with pytest.raises(NoDocument):
        documents.feed("1} START\n")

    assert documents.held() == '{"a":\n'


def test_a_document_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is held in memory as a whole."""
    monkeypatch.setattr(export_documents, "LONGEST_DOCUMENT", 2 * 1024 * 1024)
    documents = Documents()

    with pytest.raises(Unreadable, match="more than 2 MB: export in smaller files"):
        documents.feed('["' + "a" * 3 * 1024 * 1024)


def test_values_in_a_line() -> None:
    """With their text; and none if anything else stands there."""
    assert values_in('{"a":1} [2]{}') == [({"a": 1}, '{"a":1}'), ([2], "[2]"), ({}, "{}")]
    for text in ("{} x", '{"a":', "[" * 100_000, '{"a":' + "1" * 100_000 + "}"):
        assert values_in(text) is None
