"""What the server's answers mean: a table, and lenient readers of what they carry.

Everything here is pure, and trusts nothing that a server says.
"""

from __future__ import annotations

import json
from enum import Enum

from doow_serverless._redaction import clean
from doow_serverless.errors import ErrorKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

LONGEST_WAIT_S = 30.0
"""Seconds: the longest wait that a server can ask for, as Doow's own SDKs have it."""
UNREADABLE = "Doow took a part of the batch, and which part cannot be read from its answer"
_LISTS = ("rejections", "rejected")
_MAX_REASON = 200


class Answer:
    """An HTTP answer: status, headers with names in lower case, and body.

    Attributes:
        is_cut: Whether the body was longer than what is read.
    """

    __slots__ = ("body", "headers", "is_cut", "status")

    def __init__(
        self, status: int, headers: Mapping[str, str], body: bytes, *, is_cut: bool = False
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.is_cut = is_cut

    def __repr__(self) -> str:
        return f"Answer({self.status}, {len(self.body)} bytes{', cut' if self.is_cut else ''})"


class TransportFault(Exception):
    """No whole answer came: why, as an error kind and in words that are safe to log.

    Attributes:
        kind: Why.
        is_stale: Whether a kept connection turned out to be dead, which says nothing of the server.
        is_unsent: Whether no connection came about, so that nothing can have arrived.
    """

    def __init__(
        self, kind: ErrorKind, reason: str, *, is_stale: bool = False, is_unsent: bool = False
    ) -> None:
        super().__init__(reason)
        self.kind = kind
        self.is_stale = is_stale
        self.is_unsent = is_unsent


class Verdict(Enum):
    """What the sender owes after an answer."""

    ACCEPTED = "done"
    PARTIAL = "done; report the rejected events, never resend"
    REJECTED = "report every event; never resend"
    SPLIT = "send both halves"
    RETRY = "send again, after a while"
    HOLD = "send again, not before the time that the server named"
    KEY_REFUSED = "stop sending with this key"
    UNUSABLE = "no answer of Doow: keep, and hold off"


_BY_STATUS = {
    207: Verdict.PARTIAL,
    401: Verdict.KEY_REFUSED,
    408: Verdict.RETRY,
    413: Verdict.SPLIT,
    429: Verdict.HOLD,
}
_BY_CLASS = {
    2: Verdict.ACCEPTED,
    3: Verdict.UNUSABLE,  # a redirect would carry the key elsewhere
    4: Verdict.REJECTED,
    5: Verdict.RETRY,
}
LOST_BY_A_GATEWAY = frozenset({502, 504, 520, 524})
"""Statuses by which a gateway says that it got no answer of the server's, which may have taken the
batch all the same: RFC 9110, 15.6.3 and 15.6.5; 520 and 524 are Cloudflare's."""
_KIND_BY_STATUS = {
    401: ErrorKind.AUTH_FAILURE,
    403: ErrorKind.AUTH_FAILURE,
    408: ErrorKind.TIMEOUT,
    429: ErrorKind.RATE_LIMITED,
}


def judge(answer: Answer) -> Verdict:
    """What the sender owes after ``answer``."""
    verdict = _BY_STATUS.get(answer.status)
    if verdict is None:
        verdict = _BY_CLASS.get(answer.status // 100, Verdict.UNUSABLE)
    if verdict is Verdict.RETRY and answer.headers.get("retry-after"):
        return Verdict.HOLD
    return verdict


def kind_of(answer: Answer) -> ErrorKind:
    """The error kind under which an answer that is no acceptance is reported."""
    if answer.status == 503 and answer.headers.get("retry-after"):
        return ErrorKind.RATE_LIMITED
    return _KIND_BY_STATUS.get(answer.status, ErrorKind.TRANSPORT_ERROR)


def describe(answer: Answer) -> str:
    """An answer that is no acceptance, in a line that is safe to log."""
    said = _object(answer.body)
    words = [said.get(name) for name in ("errorClass", "message")]
    text = clean(": ".join(word for word in words if isinstance(word, str) and word), _MAX_REASON)
    return f"HTTP {answer.status}" + (f" ({text})" if text else "")


def wait_asked(answer: Answer, now_unix_s: float) -> float:
    """Seconds for which the server asked not to be called; 0.0 where it did not say.

    The longest of ``Retry-After`` (seconds or an HTTP date) and of the ``retry_after`` of each
    category in ``X-Doow-Rate-Limits``; only without them ``X-RateLimit-Reset`` (seconds, or Unix
    seconds). At most :data:`LONGEST_WAIT_S`.

    Args:
        answer: The answer. Where it has a ``Date``, the moments that it names are compared with
            that one, since both are of the server's clock
            (https://www.rfc-editor.org/rfc/rfc9110#section-6.6.1).
        now_unix_s: What our own clock says, which may be wrong by minutes, where it has none.
    """
    headers = answer.headers
    now_unix_s = _moment(headers.get("date", "")) or now_unix_s
    categories = _object(headers.get("x-doow-rate-limits", "")).values()
    waits = [
        _retry_after(headers.get("retry-after", ""), now_unix_s),
        *(_seconds(each.get("retry_after")) for each in categories if isinstance(each, dict)),
    ]
    if not any(waits):
        waits.append(_reset_s(answer, now_unix_s))
    return min(max(0.0, *waits), LONGEST_WAIT_S)


def wait_told(answer: Answer, now_unix_s: float) -> float:
    """Seconds until more may be sent, where an acceptance says that it was the last; else 0.0.

    So says ``X-RateLimit-Remaining: 0``, with ``X-RateLimit-Reset``: the next batch would be
    answered 429. The arguments and the bound are those of :func:`wait_asked`.
    """
    remaining = answer.headers.get("x-ratelimit-remaining", "").strip()
    if not remaining or remaining.strip("0"):
        return 0.0
    now_unix_s = _moment(answer.headers.get("date", "")) or now_unix_s
    return min(max(0.0, _reset_s(answer, now_unix_s)), LONGEST_WAIT_S)


def rejections(answer: Answer, event_ids: Sequence[str]) -> list[tuple[str, str]]:
    """The events of a 207 that were not accepted, as far as can be told, each with its reason.

    Reads both forms: the server's ``rejections`` and the Node SDK's ``rejected`` list, both with a
    count or a list of the accepted. An answer is believed as far as it adds up: where the server
    counts more rejections than it names, the rest has the id ``"?"``; where it accounts for fewer
    events than were sent, or cannot be read, whatever it does not account for counts as rejected.
    """
    said = {} if answer.is_cut else _object(answer.body)
    accepted, rejected = _count(said.get("accepted")), _count(said.get("rejected"))
    if accepted is rejected is None and not isinstance(said.get("rejections"), list):
        return [(event_id, UNREADABLE) for event_id in event_ids]
    listed: list[Any] = next((said[key] for key in _LISTS if isinstance(said.get(key), list)), [])
    reasons = {
        item["event_id"]: _reason(item.get("reason"))
        for item in listed
        if isinstance(item, dict) and isinstance(item.get("event_id"), str)
    }
    found = [(event_id, reasons[event_id]) for event_id in event_ids if event_id in reasons]
    missing = min(max(rejected or 0, len(reasons)), len(event_ids)) - len(found)
    found += [("?", "the server did not say which event, nor why")] * missing
    if accepted is not None:
        # A list cannot be repeated so seldom as some numbers say.
        missing = max(0, len(event_ids) - accepted - len(found))
        found += [("?", "the server did not account for this event")] * missing
    return found


def _count(said: object) -> int | None:
    """How many events the server speaks of: it sends a number, or a list of them."""
    if isinstance(said, list):
        return len(said)
    is_count = isinstance(said, int) and not isinstance(said, bool) and said >= 0
    return said if is_count else None  # type: ignore[return-value]  # an int, as just seen


def _reason(said: object) -> str:
    text = clean(said, _MAX_REASON) if isinstance(said, str) else ""
    return text or "no reason given"


def _reset_s(answer: Answer, now_unix_s: float) -> float:
    """Seconds until the moment of ``X-RateLimit-Reset``, which is one, or so many seconds."""
    reset = _seconds(answer.headers.get("x-ratelimit-reset"))
    return reset - now_unix_s if reset > 1e9 else reset


def _retry_after(value: str, now_unix_s: float) -> float:
    if not value or value.strip().replace(".", "", 1).isdigit():
        return _seconds(value)
    moment = _moment(value)
    return 0.0 if moment is None else moment - now_unix_s


def _moment(date: str) -> float | None:
    """An HTTP date in Unix seconds; None where it is none."""
    if not date:
        return None
    from datetime import timezone  # Dear at import; whoever has an answer has both.
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(date)
        # Without a zone it is UTC, as all HTTP dates are; the module would take it for local time.
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def _seconds(value: object) -> float:
    try:
        seconds = float(value)  # type: ignore[arg-type]  # what cannot be read is caught below
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return seconds if 0 < seconds < float("inf") else 0.0


def _object(text: str | bytes) -> dict[str, Any]:
    """A JSON object, or an empty one where ``text`` is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
