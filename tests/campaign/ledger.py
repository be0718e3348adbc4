"""The ledger of a campaign: what the function noted against what the ingest has."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from doow_serverless.local._posts import Post

GUARD_LEAD_S = 0.25
WHOLE_HANDLER = "handler"
IN_A_SIGNAL = "signal"


class End(Enum):
    """How an invocation ended; on a busy machine the guard may not have come in time."""

    RETURNED = "returned"
    RAISED = "raised"
    DEADLINE = "killed at the deadline"
    SPOILT = "killed at the deadline, on a busy machine"
    KILLED = "killed from outside"
    TERMINATED = "ended by SIGTERM"
    ALARMED = "interrupted by an exception"


CAN_DELIVER = (End.RETURNED, End.RAISED, End.TERMINATED, End.ALARMED)
"""The ends that leave time for a flush."""


class Duty(Enum):
    """What is owed to an event that was noted."""

    DUE = "exactly once"
    OPEN = "at most once"
    DISCARDED = "never"


@dataclass(frozen=True)
class Noted:
    """An event that the function had recorded: how many seconds were left, and in what scope."""

    serial: str
    number: int
    left_s: float
    scope: str


class Notes:
    """The lines that the function has written; one that SIGKILL has cut short counts for nothing.

    Attributes:
        events: Events that were recorded.
        announced: Serial numbers of all events that may have been: an end may come in between.
    """

    def __init__(self, text: str) -> None:
        self.events: list[Noted] = []
        self.announced: set[str] = set()
        self._noted: set[str] = set()
        self._succeeded: dict[tuple[int, str], float] = {}
        self._discarded: set[tuple[int, str]] = set()
        for line in text.splitlines(keepends=True):
            if line.endswith("\n"):
                number, left_s, what, *rest = line.split()
                self._take(int(number), float(left_s), what, rest)

    def _take(self, number: int, left_s: float, what: str, rest: list[str]) -> None:
        if what == "t":
            self.announced.add(rest[0])
        elif what == "e":
            self.events.append(Noted(rest[0], number, left_s, rest[1]))
            self._noted.add(rest[0])
        elif what == "+":
            self._succeeded[number, rest[0]] = left_s
        elif what == "x":
            self._discarded.add((number, rest[0]))

    def not_noted(self, arrived: Mapping[str, int]) -> list[str]:
        """What is wrong with events that arrived and were not noted, by serial number.

        Each was announced and arrived once: the process ended before it could note it.
        """
        return [
            f"{serial} arrived {times} times, and was never noted"
            for serial, times in arrived.items()
            if serial not in self._noted and (times > 1 or serial not in self.announced)
        ]

    def duty(self, event: Noted, end: End, *, has_journal: bool) -> Duty:
        """What is owed to ``event`` of an invocation with this end."""
        left_s = event.left_s
        # A signal's handler may record when the last flush of its invocation is over.
        is_open = event.scope == IN_A_SIGNAL and not has_journal
        for scope in _around(event.scope):
            key = (event.number, scope)
            if key in self._discarded or (scope == WHOLE_HANDLER and end is End.RAISED):
                return Duty.DISCARDED
            if key in self._succeeded:
                left_s = min(left_s, self._succeeded[key])
            elif scope != WHOLE_HANDLER or end is not End.RETURNED:
                is_open = True
        if is_open:
            return Duty.OPEN
        if has_journal or end in CAN_DELIVER:
            return Duty.DUE
        return Duty.DUE if end is End.DEADLINE and left_s > GUARD_LEAD_S else Duty.OPEN


def _around(scope: str) -> list[str]:
    """``scope`` and those around it, outermost first."""
    if scope in ("-", IN_A_SIGNAL):
        return []
    names = scope.split("/")
    return ["/".join(names[: depth + 1]) for depth in range(len(names))]


def serial_of(event: Mapping[str, Any]) -> str:
    """The serial number that the function gave an event."""
    return str(event["attribution"]["serial"])


def rejected_serials(posts: Iterable[Post]) -> set[str]:
    """The events that an answer of the ingest has refused for good, with its reason."""
    return {serial for post in posts for serial in _rejected_by(post)}


def _rejected_by(post: Post) -> set[str]:
    status = post.status or 0
    if status in (401, 408, 429) or not (status == 207 or 400 <= status < 500):
        return set()
    events = post.json()["events"]
    if status == 207:
        named = {one["event_id"] for one in json.loads(post.answer)["rejections"]}
        events = [event for event in events if event["event_id"] in named]
    elif status == 413 and len(events) > 1:
        return set()  # Its halves follow.
    return {serial_of(event) for event in events}


@dataclass
class Ledger:
    """The figures of a campaign, in events unless said otherwise, and what does not fit.

    Attributes:
        invocations: By their end.
        recycled: Sandboxes killed between invocations.
        posts: Requests by the status of their answer; 0 for none.
        recorded: What the function has noted.
        accepted: Of what is due: in the ingest before the replay.
        recovered: Of what is due: in the ingest by the replay of the log.
        rejected: Of what is due: refused with a reason, and nowhere else.
        discarded: With a transaction or a handler that failed.
        open: Owed nothing: recorded in what was killed before it could count.
        open_arrived: Of these, how many arrived.
        contradicted: Accepted by one answer, and refused by another to the same batch.
        damaged: Records of the log that were cut off.
        missing: Due, and nowhere; and in what invocation.
        twice: Accepted more than once; and in what invocation.
        undead: Discarded, and accepted; and in what invocation.
        troubles: Anything else that must not be.
    """

    invocations: Counter[str] = field(default_factory=Counter)
    recycled: int = 0
    posts: Counter[int] = field(default_factory=Counter)
    recorded: int = 0
    accepted: int = 0
    recovered: int = 0
    rejected: int = 0
    discarded: int = 0
    open: int = 0
    open_arrived: int = 0
    contradicted: int = 0
    damaged: int = 0
    missing: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    undead: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)

    @property
    def due(self) -> int:
        """Events that must be found exactly once."""
        return self.recorded - self.discarded - self.open

    @property
    def is_right(self) -> bool:
        """Whether everything is where it must be."""
        balances = self.due == self.accepted + self.recovered + self.rejected
        return balances and not (self.missing or self.twice or self.undead or self.troubles)

    def add(self, other: Ledger) -> None:
        """Add up with the ledger of another lane."""
        for each in fields(self):
            mine, theirs = getattr(self, each.name), getattr(other, each.name)
            setattr(self, each.name, mine + theirs)

    def enter(
        self, event: Noted, duty: Duty, before: int, after: int, refused: bool, where: str
    ) -> None:
        """Account for an event that the ingest had so often before and after the replay."""
        self.recorded += 1
        if after > 1:
            self.twice.append(f"{event.serial} ({after} times) of {where}")
        if after and refused:
            self.contradicted += 1
        if duty is Duty.DISCARDED:
            self.discarded += 1
            if after:
                self.undead.append(f"{event.serial} of {where}")
        elif duty is Duty.OPEN:
            self.open += 1
            self.open_arrived += bool(after)
        elif before:
            self.accepted += 1
        elif after:
            self.recovered += 1
        elif refused:
            self.rejected += 1
        else:
            self.missing.append(f"{event.serial} of {where}")
