"""A transport in memory: it answers as it is told, and says what it was sent."""

from __future__ import annotations

import json
from decimal import Decimal
from threading import Lock
from typing import TYPE_CHECKING, Any

from doow_serverless._delivery.answers import Answer, TransportFault, Verdict, judge, rejections
from doow_serverless._process.log import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import TypeAlias

    from doow_serverless._sealing import Batch

    Scripted: TypeAlias = int | Answer | TransportFault

_MOST_SHOWN = 20


class MemoryTransport:
    """Takes batches instead of Doow, for ``Tracker(transport=…)`` and ``configure(transport=…)``.

    It accepts everything unless told otherwise::

        MemoryTransport()
        MemoryTransport([503, TransportFault(ErrorKind.TIMEOUT, "silent")])  # then accepts
        MemoryTransport([rejecting({"evt_1": "unknown metric"})])
        MemoryTransport(lambda batch: 413 if len(batch) > 10 else 202)

    Args:
        answers: What to answer, POST by POST and 202 from then on, or a function of the batch that
            says so, from whatever thread: an HTTP status, an `Answer`, or a `TransportFault`, which
            stands for a connection on which nothing arrived.

    A test asks it what was recorded, by any field of an event::

        doow_events.total("tokens", license_id="lic_acme") == 1024
        doow_events.find("tokens", attribution={"model": "gpt-4o"})

    Attributes:
        batches: The batch of each POST, in their order, whatever was answered. Its ``event_ids``
            tell which events it holds, its ``json()`` what was sent.
        events: The events that were accepted, decoded, in their order. As at the server, a batch
            that arrives once more counts once.

    Not simulated: time, connections, and whether the key is known.
    """

    def __init__(
        self, answers: Callable[[Batch], Scripted] | Iterable[Scripted] | None = None
    ) -> None:
        self.batches: list[Batch] = []
        self.events: list[dict[str, Any]] = []
        self._lock = Lock()
        self._seen: set[str] = set()
        if callable(answers):
            self._answer = answers
        else:
            self._script = iter(() if answers is None else answers)
            self._answer = self._next

    def __repr__(self) -> str:
        """What was recorded, since pytest shows it where an assertion about it fails."""
        events, batches = len(self.events), len(self.batches)
        in_batches = "1 batch" if batches == 1 else f"{batches} batches"
        said = [f"{counted(events)} in {in_batches}"]
        said += map(_line, self.events[:_MOST_SHOWN])
        if events > _MOST_SHOWN:
            said.append(f"and {events - _MOST_SHOWN} more")
        return f"MemoryTransport({'; '.join(said)})"

    def find(self, metric: str | None = None, **fields: Any) -> list[dict[str, Any]]:
        """The events that were accepted and say this, in their order.

        Args:
            metric: One of their metrics.
            **fields: What their fields are, such as ``license_id="lic_acme"`` or
                ``kind="ADJUSTMENT"``; of ``attribution`` and ``metadata``, entries that are in it.
        """
        with self._lock:
            events = list(self.events)
        return [event for event in events if _says(event, metric, fields)]

    def total(self, metric: str | None = None, **fields: Any) -> int | Decimal:
        """The sum of the quantities of ``metric``, or of all metrics; exact, an int where it is.

        Args:
            metric: The metric.
            **fields: As of :meth:`find`.
        """
        found = [
            Decimal(repr(each["quantity"]))
            for event in self.find(metric, **fields)
            for each in event["measurements"]
            if metric is None or each["metric_name"] == metric
        ]
        total = sum(found, Decimal(0))
        return int(total) if total == total.to_integral_value() else total

    def post(self, batch: Batch, api_key: str, *, fresh: bool = False) -> Answer:  # noqa: ARG002
        """Take ``batch``, and answer as the script says."""
        with self._lock:
            self.batches.append(batch)
        scripted = self._answer(batch)  # Not under the lock: a function may take its time.
        if isinstance(scripted, TransportFault):
            raise scripted
        answer = Answer(scripted, {}, b"{}") if isinstance(scripted, int) else scripted
        if judge(answer) in (Verdict.ACCEPTED, Verdict.PARTIAL):
            with self._lock:
                self._record(batch, answer)
        return answer

    def _next(self, _: Batch) -> Scripted:
        with self._lock:
            return next(self._script, 202)

    def _record(self, batch: Batch, answer: Answer) -> None:
        if batch.id in self._seen:
            return
        self._seen.add(batch.id)
        is_partial = judge(answer) is Verdict.PARTIAL
        refused = rejections(answer, batch.event_ids) if is_partial else []
        rejected = {one for one, _ in refused}
        events = json.loads(batch.json())["events"]
        self.events += (event for event in events if event["event_id"] not in rejected)

    def has_idle(self) -> bool:
        """No connection is kept that might have died."""
        return False

    def abort(self, batch_id: str) -> None:
        """Nothing hangs here."""

    def connect(self, api_key: str) -> None:
        """There is nothing to connect to."""


def rejecting(reasons: Mapping[str, str]) -> Answer:
    """An answer (207) that accepts a batch without the events of these ids, for these reasons."""
    listed = [{"event_id": event_id, "reason": reason} for event_id, reason in reasons.items()]
    said = {"rejected": len(listed), "rejections": listed}
    return Answer(207, {"content-type": "application/json"}, json.dumps(said).encode())


def _says(event: Mapping[str, Any], metric: str | None, fields: Mapping[str, Any]) -> bool:
    if metric is not None and all(each["metric_name"] != metric for each in event["measurements"]):
        return False
    for name, wanted in fields.items():
        found = event.get(name)
        if isinstance(wanted, dict) and isinstance(found, dict):
            if any(entry not in found.items() for entry in wanted.items()):
                return False
        elif found != wanted:
            return False
    return True


def _line(event: Mapping[str, Any]) -> str:
    """An event in a few words."""
    said = [f"{each['metric_name']}={each['quantity']}" for each in event["measurements"]]
    said.append(str(event.get("license_id")))
    said += [f"{name}={value}" for name, value in (event.get("attribution") or {}).items()]
    return " ".join(said)
