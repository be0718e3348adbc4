"""The world of the state machine: a server with moods, and threads that run when they are told."""

from __future__ import annotations

import json
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from doow_serverless.errors import ErrorKind
from doow_serverless.testing import Answer, MemoryTransport, TransportFault, rejecting

if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless._sealing import Batch
    from tests.clock import Clock

POST_S = 0.2
FLUSH_S = 0.002
LOST = "accepted, and the answer lost"
LOST_BY_A_GATEWAY = "accepted, and the answer lost by a gateway, which says 504"
STATUSES = [202, 202, 207, 207, 400, 401, 413, 429, 500, 503, 301]
ANSWERS: list[int | str] = [*STATUSES, "fault", LOST, LOST_BY_A_GATEWAY]


class Jobs:
    """In the place of `Workers`: runs jobs at once, or later."""

    def __init__(self, _: int = 64) -> None:
        self.is_slow = False
        self.waiting: deque[Callable[[], None]] = deque()

    def submit(self, job: Callable[[], None]) -> bool:
        if self.is_slow:
            self.waiting.append(job)
        else:
            job()
        return True

    def run(self, job: Callable[[], None]) -> None:
        self.submit(job)

    def offer(self, job: Callable[[], None]) -> bool:
        return not self.is_slow and self.submit(job)

    def catch_up(self) -> None:
        while self.waiting:
            self.waiting.popleft()()


class Alarms:
    """In the place of the timers: their calls are made when a test says so.

    Attributes:
        at: When the last of them is due.
    """

    def __init__(self) -> None:
        self.at = 0.0
        self.calls: list[Callable[[], object]] = []

    def call_at(self, at: float, call: Callable[[], object]) -> None:
        self.at = at
        self.calls.append(call)

    def ring(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class Server(MemoryTransport):
    """A server in whatever mood, consistent as the real one: it decides on a batch once.

    Attributes:
        rejected: The tags of events that it refused for good.
        decided: What it answered, by batch id, where that settles a batch; it goes on saying so.
        lost: The tags of events that it took without the sender hearing of it at first.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__(self.decide)
        self.clock = clock
        self.mood: int | str = 202
        self.script: deque[int | str] = deque()
        self.deciding = threading.Lock()
        self.under_way: dict[int, str | None] = {}
        self.rejected: list[int] = []
        self.decided: dict[str, int | Answer] = {}
        self.lost: set[int] = set()

    def post(self, batch: Batch, api_key: str, *, fresh: bool = False) -> Answer:
        self.clock.now += POST_S
        with self.deciding:
            self.under_way[threading.get_ident()] = batch.id
        answer = super().post(batch, api_key, fresh=fresh)
        lost = answer.headers.get("lost")
        if lost:
            self.lost |= set(tags(batch))
        if lost == LOST:
            raise TransportFault(ErrorKind.NETWORK_ERROR, "reset")
        return Answer(504, {}, b"") if lost else answer

    def abort(self, batch_id: str) -> None:
        """What has been cut off before it arrived never does, however late its thread may run."""
        with self.deciding:
            for thread, under_way in self.under_way.items():
                if under_way == batch_id:
                    self.under_way[thread] = None

    def decide(self, batch: Batch) -> int | Answer | TransportFault:
        with self.deciding:
            if self.under_way[threading.get_ident()] is None:
                return TransportFault(ErrorKind.NETWORK_ERROR, "cut off")
            say = self.script.popleft() if self.script else self.mood
            if say == "fault":
                return TransportFault(ErrorKind.NETWORK_ERROR, "refused")
            if say in (401, 429, 500, 503, 301):
                return int(say)
            if batch.id not in self.decided:
                self.decided[batch.id] = self.decision(batch, say)
                if say in (LOST, LOST_BY_A_GATEWAY):
                    return Answer(202, {"lost": str(say)}, b"{}")
            return self.decided[batch.id]

    def decision(self, batch: Batch, say: int | str) -> int | Answer:
        if say == 413 and len(batch) > 1:
            return 413
        if say in (400, 413):
            self.rejected += tags(batch)
            return int(say)
        if say == 207:
            third = [e for e in json.loads(batch.json())["events"] if tag(e) % 3 == 0]
            self.rejected += map(tag, third)
            return rejecting({event["event_id"]: "a third" for event in third})
        return 202


def tag(event: dict[str, Any]) -> int:
    """The number by which the machine knows an event: its quantity, and in digits its id."""
    number: int = event["measurements"][0]["quantity"]
    assert event["event_id"] == str(number)
    return number


def tags(batch: Batch) -> list[int]:
    found = [tag(event) for event in json.loads(batch.json())["events"]]
    assert batch.event_ids == tuple(map(str, found))
    return found
