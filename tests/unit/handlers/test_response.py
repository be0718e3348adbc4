"""Which bytes complete a response."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doow_serverless._handlers.response import ResponseProgress, content_length

Message = tuple[int, bool]


def completing(method: str, status: int, length: int | None, messages: list[Message]) -> int | None:
    """The number of the message that completes the response, by the definition."""
    left = None if length is None else length
    for number, (size, last) in enumerate(messages):
        if left is not None:
            left -= size
        bodiless = method == "HEAD" or status in (204, 304) or length == 0
        if bodiless or last or (left is not None and left <= 0):
            return number
    return None


@given(
    method=st.sampled_from(["GET", "POST", "HEAD"]),
    status=st.sampled_from([200, 204, 206, 304, 404, 500]),
    length=st.none() | st.integers(0, 6),
    messages=st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=6),
)
def test_one_message_completes_a_response(
    method: str, status: int, length: int | None, messages: list[Message]
) -> None:
    """The first with which the client has everything, and none after it."""
    response = ResponseProgress(method)
    response.begin(status, None if length is None else str(length))
    seen = [response.completes(size, last=last) for size, last in messages]
    expected = completing(method, status, length, messages)
    assert [number == expected for number in range(len(messages))] == seen
    assert (expected is not None) == response.is_complete


@pytest.mark.parametrize(
    ("method", "status", "length", "expected"),
    [
        ("GET", 200, None, False),
        ("GET", 200, "1", False),
        ("GET", 200, "0", True),
        ("GET", 200, b"00", True),
        ("GET", 204, None, True),
        ("GET", 304, "10", True),
        ("GET", 205, None, False),
        ("HEAD", 200, "10", True),
        ("HEAD", 500, None, True),
        ("CONNECT", 200, None, False),
    ],
)
def test_where_the_head_is_all(
    method: str, status: int, length: str | bytes | None, expected: bool
) -> None:
    """HEAD, 204, 304 and an empty body, as RFC 9112 has it."""
    response = ResponseProgress(method)
    assert not response.is_bodiless
    response.begin(status, length)
    assert expected == response.is_bodiless
    assert status == response.status


def test_a_head_that_is_replaced() -> None:
    """The last one counts, as where an error page takes the place of what was not sent yet."""
    response = ResponseProgress("GET")
    response.begin(204, None)
    response.begin(500, "5")
    assert not response.is_bodiless
    assert [response.completes(size) for size in (4, 1, 0)] == [False, True, False]


@pytest.mark.parametrize("length", [None, "", "abc", "-1", "+1", "1_0", "1.0", "0x1", "1, 1", "²"])
def test_what_is_no_length_counts_for_nothing(length: str | None) -> None:
    """Only what the application calls its last completes the response."""
    for given_as in (length, None if length is None else length.encode()):
        response = ResponseProgress("GET")
        response.begin(200, given_as)
        assert not response.is_bodiless
        assert [
            response.completes(9), response.completes(9), response.completes(0, last=True)
        ] == [False, False, True]  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], None),
        ([(b"x", b"1")], None),
        ([(b"CONTENT-Length", b"1"), (b"content-length", b"2")], b"1"),
        ([[b"content-length", b"3"]], b"3"),
        ({b"Content-Length": b"4"}.items(), b"4"),
    ],
)
def test_content_length(headers: Any, expected: bytes | None) -> None:
    """The first of that name, in any case; None where there is none."""
    assert expected == content_length(headers, b"content-length")


def test_content_length_of_text() -> None:
    """For WSGI, whose headers are text."""
    assert content_length([("a", "b"), ("Content-Length", "5")], "content-length") == "5"
