"""Servers behind a load balancer, some of them ill: what each answers, and the ledger they share.

As the wire protocol has it, a batch is decided once, whichever instance it meets, and counts once.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from doow_serverless.errors import ErrorKind
from doow_serverless.testing import Answer, TransportFault, rejecting

if TYPE_CHECKING:
    import random

    from doow_serverless._sealing import Batch
    from tests.campaign.simulation import Sleeper, World

ILLS = (
    "broken",  # 500 to everything
    "busy",  # 503 with Retry-After
    "limited",  # 429 with Retry-After
    "used up",  # 202, and no more than that for a while
    "refusing",  # no new connections, while kept ones work
    "unreachable",  # the same, and it takes a second to find out
    "slow",  # the answer comes late
    "dripping",  # an answer that never ends, of a batch that is taken or not
    "losing",  # the batch is taken, and the answer lost
    "resetting",  # the connection breaks before the batch is taken
    "closing",  # kept connections are dead
    "gateway",  # 502, without the batch
)
UNSENT = ("refusing", "unreachable")
CONNECT_S = 1.0


@dataclass
class Instance:
    """One server: well, ill, or both in turns.

    Attributes:
        ill: One of :data:`ILLS`, or "" if it is well.
        period_s: Seconds after which a flapping one is ill again.
        part: The part of them in which it is.
        phase_s: Seconds by which it is ahead of others.
        hold_s: Seconds for which it asks to be left alone.
        delay_s: Seconds that it needs if it is slow.
    """

    ill: str = ""
    period_s: float = 1.0
    part: float = 1.0
    phase_s: float = 0.0
    hold_s: float = 1.0
    delay_s: float = 0.0

    def ill_at(self, now: float) -> str:
        """How it is at that moment."""
        return self.ill if (now + self.phase_s) % self.period_s < self.part * self.period_s else ""


@dataclass
class _Connection:
    instance: Instance
    is_kept: bool = False


class Fleet:
    """The transport: the way to the instances.

    Args:
        timeout_s: Seconds of silence after which a POST is cut off.
        largest: Events beyond which a batch is answered 413.
        is_by_request: Whether each request meets another instance, or each connection.

    Attributes:
        accepted, rejected: How often each event was, by its number.
        is_cured: Whether poison is accepted.
        most_idle: Connections that are kept.
        posts: How many there were.
    """

    def __init__(
        self,
        world: World,
        chance: random.Random,
        instances: list[Instance],
        timeout_s: float,
        largest: int,
        *,
        is_by_request: bool,
    ) -> None:
        self.world, self.chance, self.instances = world, chance, instances
        self.timeout_s, self.largest = timeout_s, largest
        self.is_by_request = is_by_request
        self.accepted: Counter[int] = Counter()
        self.rejected: Counter[int] = Counter()
        self.is_cured = False
        self.most_idle = chance.choice([1, 8])
        self.posts = 0
        self._idle: list[_Connection] = []
        self._decided: dict[str, int | Answer] = {}
        self._at_work: dict[str, float] = {}
        self._waiting: list[tuple[str, float, Sleeper]] = []

    # ── what the tracker asks for ──────────────────────────────────────────────────────────────

    def has_idle(self) -> bool:
        return bool(self._idle)

    def connect(self, api_key: str) -> None:
        """Nothing is opened before the first POST."""

    def abort(self, batch_id: str) -> None:
        for one, began, sleeper in self._waiting:
            if one == batch_id and self.world.now - began >= self.timeout_s:
                self.world.wake(sleeper)

    def post(self, batch: Batch, api_key: str, *, fresh: bool = False) -> Answer:
        self.posts += 1
        connection = self._idle.pop() if self._idle and not fresh else self._connected()
        if self.is_by_request:
            connection.instance = self.chance.choice(self.instances)
        answer = self._answer(batch, connection)
        connection.is_kept = True
        self._idle = [*self._idle, connection][-self.most_idle :]
        return answer

    def _connected(self) -> _Connection:
        instance = self.chance.choice(self.instances)
        ill = instance.ill_at(self.world.now)
        self.world.sleep(CONNECT_S if ill == "unreachable" else 0.002)
        if ill in UNSENT:
            raise TransportFault(ErrorKind.NETWORK_ERROR, ill, is_unsent=True)
        return _Connection(instance)

    def _answer(self, batch: Batch, connection: _Connection) -> Answer:
        instance = connection.instance
        ill = instance.ill_at(self.world.now)
        took_s = self.chance.uniform(0.001, 0.03)
        if ill in UNSENT and self.is_by_request:
            ill = "gateway"  # The balancer's own connection is refused.
        if ill == "closing" and connection.is_kept:
            self.world.sleep(took_s)
            raise TransportFault(ErrorKind.NETWORK_ERROR, "closed", is_stale=True)
        if ill == "resetting":
            self.world.sleep(took_s)
            raise TransportFault(ErrorKind.NETWORK_ERROR, "reset")
        if ill in ("broken", "busy", "limited", "gateway"):
            return self._refusal(ill, instance, took_s)
        if ill == "dripping" and self.chance.random() < 0.5:
            self._be_silent(batch, float("inf"))
        work_s = instance.delay_s if ill == "slow" else 0.0
        answer = self._decide(batch, work_s)
        if ill == "dripping":
            self._be_silent(batch, float("inf"))
        if ill == "losing":
            self._lose(batch)
        self._be_silent(batch, min(took_s + work_s, self.timeout_s))
        if took_s + work_s >= self.timeout_s:
            raise TransportFault(ErrorKind.TIMEOUT, "silent")
        if ill == "used up" and answer.status in (202, 207):
            seconds = str(instance.hold_s)
            headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": seconds}
            return Answer(answer.status, headers, answer.body)
        return answer

    def _refusal(self, ill: str, instance: Instance, took_s: float) -> Answer:
        self.world.sleep(took_s)
        if ill == "broken":
            return Answer(500, {}, b"")
        if ill == "gateway":
            return Answer(502, {}, b"")
        headers = {"retry-after": str(instance.hold_s)}
        return Answer(503 if ill == "busy" else 429, headers, b"")

    def _be_silent(self, batch: Batch, seconds: float) -> None:
        """Let so much time pass until the answer; TransportFault if that is too long."""
        sleeper: Sleeper = []
        entry = (batch.id, self.world.now, sleeper)
        self._waiting.append(entry)
        is_cut = self.world.wait(sleeper, seconds)
        self._waiting.remove(entry)
        if is_cut:
            raise TransportFault(ErrorKind.TIMEOUT, "silent")

    def _lose(self, batch: Batch) -> None:
        """The answer does not come through."""
        if self.chance.random() < 0.5:
            self._be_silent(batch, self.timeout_s)
            raise TransportFault(ErrorKind.TIMEOUT, "silent")
        self.world.sleep(0.01)
        raise TransportFault(ErrorKind.NETWORK_ERROR, "reset")

    # ── what the instances share ───────────────────────────────────────────────────────────────

    def _decide(self, batch: Batch, work_s: float) -> Answer:
        """Decide on a batch, once and for all."""
        now = self.world.now
        if self._at_work.get(batch.id, now) > now:
            return Answer(503, {"retry-after": "1"}, b"")  # Another POST of it is at work.
        decided = self._decided.get(batch.id)
        if decided is None:
            decided = self._decision(batch)
            if decided in (413, 500):
                return Answer(decided, {}, b"")
            self._decided[batch.id] = decided
            self._at_work[batch.id] = now + work_s
        return decided if isinstance(decided, Answer) else Answer(decided, {}, b"{}")

    def _decision(self, batch: Batch) -> int | Answer:
        if len(batch) > self.largest:
            return 413
        kinds: dict[str, str] = {}
        for event in json.loads(batch.json())["events"]:
            kinds[event["event_id"]] = event["measurements"][0]["metric_name"]
        if "poison" in kinds.values() and not self.is_cured:
            return 500
        refused = {one: "unknown metric" for one, kind in kinds.items() if kind == "refused"}
        self.rejected.update(int(one) for one in refused)
        self.accepted.update(int(one) for one in kinds.keys() - refused.keys())
        return rejecting(refused) if refused else 202
