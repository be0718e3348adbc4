"""What shall go wrong with the next requests, and in which order."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from doow_serverless.local._protocol import Answer, fault_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

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
        only: Hit only batches that hold such an event, named as for ``reject``, whatever other
            faults wait: a batch that this server cannot digest.
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
    only: str | Iterable[str] | Callable[[dict[str, Any]], bool | str] | None = None
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
        for name in ("only", "reject"):
            chosen = getattr(self, name)
            if not (chosen is None or isinstance(chosen, str) or callable(chosen)):
                # An iterator would be used up by the first of several POSTs.
                object.__setattr__(self, name, frozenset(chosen))

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

    def hits(self, events: Iterable[dict[str, Any]]) -> bool:
        """Whether a batch of these events meets this fault."""
        return self.only is None or any(
            fault_of(event) is None and bool(_names(self.only, event)) for event in events
        )

    def rejects(self, event: dict[str, Any]) -> str | None:
        """The reason for which this fault rejects a valid event, or ``None``."""
        verdict = self.reject is not None and _names(self.reject, event)
        return verdict if isinstance(verdict, str) else _REASON if verdict else None


def _names(chosen: Any, event: dict[str, Any]) -> bool | str:
    """Whether ``chosen`` is an event's metric, has its id, or is a function that says so."""
    if callable(chosen):
        return bool(verdict) if not isinstance(verdict := chosen(event), str) else verdict
    if isinstance(chosen, str):
        return any(chosen == measurement["metric_name"] for measurement in event["measurements"])
    return event["event_id"] in chosen


#: What a POST meets when nothing was asked for.
NONE = Fault()
_REASON = "rejected on request"


class FaultQueue:
    """Faults in the order in which the POSTs to come take them; those for some batches apart."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def append(self, *faults: Fault) -> None:
        """Add faults behind those that wait."""
        self._faults.extend(faults)

    def take(self) -> Fault:
        """The fault of the next POST."""
        return self._first(lambda fault: fault.only is None) or NONE

    def take_for(self, events: Sequence[dict[str, Any]]) -> Fault | None:
        """The fault that a batch of these events meets on account of one of them."""
        return self._first(lambda fault: fault.only is not None and fault.hits(events))

    @property
    def waiting(self) -> bool:
        """Whether there are any."""
        return bool(self._faults)

    def clear(self) -> None:
        """Drop all that wait."""
        self._faults.clear()

    def _first(self, fits: Callable[[Fault], bool]) -> Fault | None:
        for place, fault in enumerate(self._faults):
            if fits(fault):
                if fault.times == 1:
                    del self._faults[place]
                elif fault.times is not None:
                    self._faults[place] = replace(fault, times=fault.times - 1)
                return fault
        return None


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
