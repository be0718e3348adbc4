"""What shall go wrong with the next requests, and in which order."""

from __future__ import annotations

import json
import math
from collections import deque
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from doow_serverless.local._protocol import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_RESETS = (None, "before_answer", "mid_answer", "mid_body", "close")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong with a POST. Fields combine; those left alone change nothing.

    A batch is recorded and answered as ever where a fault only delays, drips, rejects, or replaces
    the body or headers. Where the fault takes the answer away (``status``, ``rate_limit_s``,
    ``hang``, ``reset``) nothing is recorded, unless ``record_first`` says that only the answer was
    lost.

    Attributes:
        times: How many POSTs it hits; ``None`` for all to come.
        status: Answer this status.
        body: The body of the answer: a dict as JSON, text, or raw bytes.
        headers: Headers of the answer, added to the usual ones.
        delay_s: Seconds to wait before the batch is handled, also when the client has gone.
        record_first: Handle the batch as ever before the answer is taken away.
        hang: Never answer, with the connection held open.
        drip_headers_s: Seconds between single bytes of the answer's head.
        drip_body_s: Seconds between single bytes of the answer's body.
        reset: Break the connection: ``"before_answer"`` without a byte, ``"mid_answer"`` within the
            head or ``"mid_body"`` within the body by a TCP reset; ``"close"`` by an orderly end
            without an answer.
        reject: Answer 207 and reject some events: those of the metric with this name, those with
            one of these event ids, or those for which a function of the event says so (``True``, or
            a reason).
        rate_limit_s: Answer 429 with ``Retry-After`` (whole seconds, rounded up) and
            ``X-Doow-Rate-Limits``.
    """

    times: int | None = 1
    status: int | None = None
    body: Mapping[str, Any] | str | bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    record_first: bool = False
    hang: bool = False
    drip_headers_s: float | None = None
    drip_body_s: float | None = None
    reset: str | None = None
    reject: str | Iterable[str] | Callable[[dict[str, Any]], bool | str] | None = None
    rate_limit_s: float | None = None

    def __post_init__(self) -> None:
        if self.times is not None and self.times < 1:
            raise ValueError(f"times must be 1 or more, or None: {self.times!r}")
        if self.status is not None and not 200 <= self.status <= 599:
            raise ValueError(f"status must be the status of an answer: {self.status!r}")
        if self.reset not in _RESETS:
            raise ValueError(f"reset must be one of {_RESETS}: {self.reset!r}")
        for name in ("delay_s", "drip_headers_s", "drip_body_s", "rate_limit_s"):
            seconds = getattr(self, name)
            if seconds is not None and not 0 <= seconds < math.inf:
                raise ValueError(f"{name} must be seconds, 0 or more: {seconds!r}")
        if not (self.reject is None or isinstance(self.reject, str) or callable(self.reject)):
            # An iterator would be used up by the first of several POSTs.
            object.__setattr__(self, "reject", frozenset(self.reject))

    @property
    def takes_answer(self) -> bool:
        """Whether the client does not get the answer of the batch."""
        return self.never_answers or self.status is not None or self.rate_limit_s is not None

    @property
    def never_answers(self) -> bool:
        """Whether the client does not get any whole answer."""
        return self.hang or self.reset is not None

    def answer(self, handled: Answer | None) -> Answer:
        """The answer to send instead of ``handled``, which is ``None`` if nothing was handled."""
        answer = handled or _injected(503)
        if self.rate_limit_s is not None:
            answer = _rate_limited(self.rate_limit_s)
        if self.status is not None:
            answer = replace(_injected(self.status), headers=answer.headers)
        if self.body is not None:
            answer = replace(answer, body=_bytes(self.body))
        return replace(answer, headers={**answer.headers, **self.headers})

    def rejects(self, event: dict[str, Any]) -> str | None:
        """The reason for which this fault rejects a valid event, or ``None``."""
        if self.reject is None:
            return None
        if callable(self.reject):
            verdict = self.reject(event)
            return verdict if isinstance(verdict, str) else _REASON if verdict else None
        if isinstance(self.reject, str):
            names = [measurement["metric_name"] for measurement in event["measurements"]]
            return _REASON if self.reject in names else None
        return _REASON if event["event_id"] in self.reject else None


#: What a POST meets when nothing was asked for.
NONE = Fault()
_REASON = "rejected on request"


class FaultQueue:
    """Faults in the order in which the POSTs to come take them."""

    def __init__(self) -> None:
        self._faults: deque[Fault] = deque()

    def append(self, *faults: Fault) -> None:
        """Add faults behind those that wait."""
        self._faults.extend(faults)

    def take(self) -> Fault:
        """The fault of the next POST."""
        if not self._faults:
            return NONE
        fault = self._faults[0]
        if fault.times == 1:
            self._faults.popleft()
        elif fault.times is not None:
            self._faults[0] = replace(fault, times=fault.times - 1)
        return fault

    def clear(self) -> None:
        """Drop all that wait."""
        self._faults.clear()


def _injected(status: int) -> Answer:
    if status < 300:
        return Answer(status)
    message = f"{_phrase(status)}, on request"
    return Answer.of(status, {"message": message, "errorClass": "InjectedFault"})


def _rate_limited(seconds: float) -> Answer:
    limits = {"event_rate": {"limit": 1000, "current": 1050, "retry_after": seconds}}
    return replace(
        _injected(429),
        headers={
            "Retry-After": str(math.ceil(seconds)),
            "X-Doow-Rate-Limits": json.dumps(limits),
        },
    )


def _bytes(body: Mapping[str, Any] | str | bytes) -> bytes:
    if isinstance(body, bytes):
        return body
    return (body if isinstance(body, str) else json.dumps(body)).encode()


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return str(status)
