"""What answers mean, and that nothing a server says does harm."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from doow_serverless._delivery.answers import (
    LONGEST_WAIT_S,
    UNREADABLE,
    Answer,
    Verdict,
    describe,
    judge,
    kind_of,
    rejections,
    wait_asked,
    wait_told,
)

NOW = 1_795_000_000.0  # Wed, 18 Nov 2026 11:06:40 GMT
IDS = ("a", "b", "c")
ALL_UNREADABLE = [(event_id, UNREADABLE) for event_id in IDS]


def answer(status: int = 202, body: Any = None, **headers: str) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(
        status, {name.replace("_", "-"): value for name, value in headers.items()}, content
    )


@pytest.mark.parametrize(
    ("status", "headers", "verdict", "kind"),
    [
        (200, {}, Verdict.ACCEPTED, "TRANSPORT_ERROR"),
        (202, {}, Verdict.ACCEPTED, "TRANSPORT_ERROR"),
        (204, {"retry_after": "5"}, Verdict.ACCEPTED, "TRANSPORT_ERROR"),
        (207, {}, Verdict.PARTIAL, "TRANSPORT_ERROR"),
        (100, {}, Verdict.UNUSABLE, "TRANSPORT_ERROR"),
        (301, {}, Verdict.UNUSABLE, "TRANSPORT_ERROR"),
        (307, {"retry_after": "5"}, Verdict.UNUSABLE, "TRANSPORT_ERROR"),
        (400, {}, Verdict.REJECTED, "TRANSPORT_ERROR"),
        (401, {}, Verdict.KEY_REFUSED, "AUTH_FAILURE"),
        (403, {}, Verdict.REJECTED, "AUTH_FAILURE"),
        (404, {}, Verdict.REJECTED, "TRANSPORT_ERROR"),
        (408, {}, Verdict.RETRY, "TIMEOUT"),
        (413, {}, Verdict.SPLIT, "TRANSPORT_ERROR"),
        (422, {"retry_after": "5"}, Verdict.REJECTED, "TRANSPORT_ERROR"),
        (429, {}, Verdict.HOLD, "RATE_LIMITED"),
        (500, {}, Verdict.RETRY, "TRANSPORT_ERROR"),
        (502, {}, Verdict.RETRY, "TRANSPORT_ERROR"),
        (503, {}, Verdict.RETRY, "TRANSPORT_ERROR"),
        (503, {"retry_after": "5"}, Verdict.HOLD, "RATE_LIMITED"),
        (599, {}, Verdict.RETRY, "TRANSPORT_ERROR"),
        (600, {}, Verdict.UNUSABLE, "TRANSPORT_ERROR"),
        (0, {}, Verdict.UNUSABLE, "TRANSPORT_ERROR"),
    ],
)
def test_the_table(status: int, headers: dict[str, str], verdict: Verdict, kind: str) -> None:
    """Each status has one duty, and one kind to be reported as."""
    given = answer(status, **headers)
    assert (judge(given), kind_of(given)) == (verdict, kind)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"retry_after": "30"}, 30.0),
        ({"retry_after": " 1.5 "}, 1.5),
        ({"retry_after": "0"}, 0.0),
        ({"retry_after": "-5"}, 0.0),
        ({"retry_after": "99999999999"}, LONGEST_WAIT_S),
        ({"retry_after": "9" * 400}, 0.0),
        ({"retry_after": "²"}, 0.0),
        ({"retry_after": "soon"}, 0.0),
        ({"retry_after": "nan"}, 0.0),
        ({"retry_after": "Wed, 18 Nov 2026 11:07:00 GMT"}, 20.0),
        ({"retry_after": "Wed, 18 Nov 2026 12:07:00 +0100"}, 20.0),
        ({"retry_after": "Wed, 18 Nov 2026 11:05:40 GMT"}, 0.0),
        ({"retry_after": "Wed, 18 Nov 9999 11:05:40 GMT"}, LONGEST_WAIT_S),
        ({"retry_after": "Wed, 99 Nov 2026 11:07:40 GMT"}, 0.0),
        ({"x_doow_rate_limits": '{"event_rate": {"limit": 1, "retry_after": 30}}'}, 30.0),
        ({"x_doow_rate_limits": '{"a": {"retry_after": 30}, "b": {"retry_after": 20}}'}, 30.0),
        ({"x_doow_rate_limits": '{"a": {"retry_after": "x"}, "b": 5, "c": null}'}, 0.0),
        ({"x_doow_rate_limits": "{"}, 0.0),
        ({"x_doow_rate_limits": "[1]"}, 0.0),
        ({"retry_after": "10", "x_doow_rate_limits": '{"a": {"retry_after": 30}}'}, 30.0),
        ({"x_ratelimit_reset": "20"}, 20.0),
        ({"x_ratelimit_reset": f"{NOW + 20:.0f}"}, 20.0),
        ({"x_ratelimit_reset": f"{NOW - 20:.0f}"}, 0.0),
        ({"x_ratelimit_reset": "20", "retry_after": "10"}, 10.0),
    ],
)
def test_how_long_to_wait(headers: dict[str, str], seconds: float) -> None:
    """Seconds, dates and categories are understood; anything else asks for nothing."""
    assert wait_asked(answer(429, **headers), NOW) == seconds


MINUTES = 600.0


@pytest.mark.parametrize("ours", [NOW - MINUTES, NOW, NOW + MINUTES])
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "Wed, 18 Nov 2026 11:07:00 GMT"}, 20.0),
        ({"retry_after": "Wednesday, 18-Nov-26 11:07:00 GMT"}, 20.0),
        ({"retry_after": "Wed Nov 18 11:07:00 2026"}, 20.0),
        ({"retry_after": "Wed, 18 Nov 2026 11:06:00 GMT"}, 0.0),
        ({"x_ratelimit_reset": f"{NOW + 20:.0f}"}, 20.0),
        ({"x_ratelimit_reset": f"{NOW - 20:.0f}"}, 0.0),
        ({"retry_after": "20"}, 20.0),
    ],
)
def test_moments_are_compared_with_the_servers_clock(
    headers: dict[str, str], seconds: float, ours: float
) -> None:
    """Ours may be wrong by minutes: the answer's own date says how far off a moment is."""
    date = "Wed, 18 Nov 2026 11:06:40 GMT"
    assert wait_asked(answer(429, date=date, **headers), ours) == seconds


@pytest.mark.parametrize("date", ["", "soon", "Wed, 99 Nov 2026 11:06:40 GMT"])
def test_a_date_that_is_none(date: str) -> None:
    """Then our own clock is the best there is."""
    headers = {"retry_after": "Wed, 18 Nov 2026 11:07:00 GMT", "date": date}
    assert wait_asked(answer(429, **headers), NOW) == 20.0


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="Windows has no tzset")
def test_a_moment_without_a_zone_is_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine's own zone is."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        headers = {"retry_after": "Wed Nov 18 11:07:00 2026"}
        assert wait_asked(answer(429, **headers), NOW) == 20.0
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"accepted": 2, "rejected": 1, "rejections": [{"event_id": "b", "reason": "bad"}]},
         [("b", "bad")]),
        ({"accepted": ["a"], "rejected": [{"event_id": "c", "reason": "x"},
                                          {"event_id": "b", "reason": "y"}]},
         [("b", "y"), ("c", "x")]),
        ({"rejected": 0, "rejections": []}, []),
        ({"rejected": 2}, [("?", "the server did not say which event, nor why")] * 2),
        ({"rejected": 2, "rejections": [{"event_id": "a", "reason": "r"}]},
         [("a", "r"), ("?", "the server did not say which event, nor why")]),
        ({"rejected": 99}, [("?", "the server did not say which event, nor why")] * 3),
        ({"rejected": -1}, ALL_UNREADABLE),
        ({"rejected": -(10**30)}, ALL_UNREADABLE),
        ({"rejected": True}, ALL_UNREADABLE),
        ({"accepted": False}, ALL_UNREADABLE),
        ({}, ALL_UNREADABLE),
        ({"accepted": 3}, []),
        ({"accepted": 99, "rejected": 0}, []),
        ({"accepted": 2}, [("?", "the server did not account for this event")]),
        ({"accepted": 0, "rejected": 1, "rejections": [{"event_id": "c", "reason": "bad"}]},
         [("c", "bad"), *[("?", "the server did not account for this event")] * 2]),
        ({"accepted": 3, "rejected": 1, "rejections": [{"event_id": "c", "reason": "bad"}]},
         [("c", "bad")]),
        ({"rejections": [{"event_id": "zzz", "reason": "of another batch"}]},
         [("?", "the server did not say which event, nor why")]),
        ({"rejections": [{"event_id": "a"}, {"event_id": ["b"]}, "c", None]},
         [("a", "no reason given")]),
        ({"rejections": [{"event_id": "a", "reason": "one\r\n\x1b[31mtwo" + "x" * 300}]},
         [("a", "one   [31mtwo" + "x" * 187)]),
        ({"rejections": [{"event_id": "a", "reason": "1"}, {"event_id": "a", "reason": "2"}]},
         [("a", "2")]),
        ([], ALL_UNREADABLE),
        (b"", ALL_UNREADABLE),
        (b"\xff", ALL_UNREADABLE),
        (b"[" * 100_000, ALL_UNREADABLE),
    ],
)  # fmt: skip
def test_rejections(body: Any, expected: list[tuple[str, str]]) -> None:
    """Both forms are read, in the order of the batch; what is not said is counted all the same."""
    assert rejections(answer(207, body), IDS) == expected


def test_a_207_that_was_cut_is_not_believed() -> None:
    """What was read of it adds up, yet the rest may say otherwise."""
    whole = answer(207, {"accepted": 3, "rejected": 0})
    assert rejections(whole, IDS) == []
    cut = Answer(207, {}, whole.body, is_cut=True)
    assert rejections(cut, IDS) == ALL_UNREADABLE


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "HTTP 400"),
        (b"<html>", "HTTP 400"),
        ({"message": "no such license"}, "HTTP 400 (no such license)"),
        ({"errorClass": "BadRequest", "message": "no"}, "HTTP 400 (BadRequest: no)"),
        ({"errorClass": 5, "message": ["no"]}, "HTTP 400"),
        ({"message": "a\nb\x00"}, "HTTP 400 (a b)"),
        ({"message": "x" * 500}, f"HTTP 400 ({'x' * 200})"),
    ],
)
def test_describe(body: Any, text: str) -> None:
    """What the server says is shown on one line, and not without end."""
    assert describe(answer(400, body)) == text


hostile = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    | st.sampled_from(["a", "b", "retry_after", "event_id", "1e999", "٣"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["rejected", "rejections", "accepted", "event_id", "reason", "message",
                         "errorClass", "retry_after", "x"]), inner, max_size=4),
    max_leaves=15,
)  # fmt: skip
dates = st.builds(
    "{}, {} {} {} {}:{}:{} {}".format,
    st.sampled_from(["Wed", "Xyz", ""]), st.integers(-1, 99), st.sampled_from(["Nov", "Feb", "No"]),
    st.integers(-1, 99_999), st.integers(-1, 99), st.integers(0, 99), st.integers(0, 99),
    st.sampled_from(["GMT", "-0000", "+9999", "EST", "+99999999999", ""]),
)  # fmt: skip
header = st.text() | hostile.map(json.dumps) | dates | st.floats().map(str) | st.integers().map(str)


@given(
    st.integers(-1, 1_000),
    st.dictionaries(
        st.sampled_from(["date", "retry-after", "x-doow-rate-limits", "x-ratelimit-reset"]), header
    ),
    st.binary() | hostile.map(lambda value: json.dumps(value).encode()),
)
@example(207, {}, b'{"accepted": 9223372036854775812}')
def test_hostile_answers_do_no_harm(status: int, headers: dict[str, str], body: bytes) -> None:
    """No answer makes the readers raise, and what they say stays within its bounds."""
    given = Answer(status, headers, body)
    assert isinstance(judge(given), Verdict)
    assert 0.0 <= wait_asked(given, NOW) <= LONGEST_WAIT_S
    found = rejections(given, IDS)
    assert len(found) <= len(IDS)
    assert {event_id for event_id, _ in found} <= {*IDS, "?"}
    said = [describe(given), *(reason for _, reason in found)]
    assert all(len(text) <= 220 and text.isprintable() for text in said)
    assert str.__str__(kind_of(given)).isupper()


# ── what an acceptance tells of the limit ───────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "12"}, 12.0),
        ({"x-ratelimit-remaining": " 000 ", "x-ratelimit-reset": "12"}, 12.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(NOW + 7)}, 7.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(NOW - 7)}, 0.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "900"}, 30.0),
        ({"x-ratelimit-remaining": "0"}, 0.0),
        ({"x-ratelimit-remaining": "1", "x-ratelimit-reset": "12"}, 0.0),
        ({"x-ratelimit-remaining": "-1", "x-ratelimit-reset": "12"}, 0.0),
        ({"x-ratelimit-remaining": "", "x-ratelimit-reset": "12"}, 0.0),
        ({"x-ratelimit-remaining": "none", "x-ratelimit-reset": "12"}, 0.0),
        ({"x-ratelimit-reset": "12"}, 0.0),
        ({}, 0.0),
    ],
)
def test_the_last_that_is_taken(headers: dict[str, str], seconds: float) -> None:
    """Only where nothing is left, and when there will be more, is there something to wait for."""
    assert wait_told(answer(202, **headers), NOW) == seconds
