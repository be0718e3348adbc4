"""The run of a fleet in one way of delivery, with a look into its ledger every ten seconds."""

from __future__ import annotations

import random
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from doow_serverless.local import Ingest

from .clock import Clock
from .ledger import LogBook, Row, Weight, account, weight_of
from .load import LIMIT, Invocation, invocations, uses
from .relay import relaying
from .sandboxes import Sandbox
from .stream import Line, Shard, Subscription

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOOK_EVERY_S = 10.0
BRING_EVERY_S = 2.0
"""Seconds after which CloudWatch brings lines to the stream."""
POLL_EVERY_S = 5.0
"""Seconds after which Lambda hands over what has come."""
TAIL_S = 90.0
"""Seconds after the last invocation, in which a window ends; then all sandboxes are recycled."""
END_S = 30.0
"""Seconds for which is looked after that."""
TWICE = 0.02
"""Part of the stream's records that come twice."""
LOST_ANSWERS = 0.05
"""Part of the relay's invocations whose answers are lost, so that they are done again."""


@dataclass(frozen=True)
class Way:
    """A way of delivery: its name, the options of its trackers, and whether there is a relay."""

    name: str
    options: dict[str, Any]
    relays: bool = False


WAYS = (
    Way("direct", {}),
    Way("direct, folded", {"fold": True}),
    Way("by log and relay, folded", {"delivery": "log", "fold": True}, relays=True),
)


@dataclass
class Story:
    """What became of a run.

    Attributes:
        way: Of which way it is.
        rows: The ledger over time; the last when all sandboxes are gone.
        delays_s: Seconds from a line of the log to Doow, and calls of ``track`` in it.
        lives: Sandboxes that there were.
        events: Events that Doow has, as it counts them.
        posts: Requests to Doow, by the status of the answer.
        relay: What the relay went through, in words.
        took_s: Real seconds.
    """

    way: Way
    rows: list[Row] = field(default_factory=list)
    delays_s: list[tuple[float, int]] = field(default_factory=list)
    lives: int = 0
    relay: str = ""
    events: int = 0
    posts: Counter[int | None] = field(default_factory=Counter)
    took_s: float = 0.0


class Fleet:
    """A hundred places, each with one sandbox after the other.

    Args:
        way: How its sandboxes deliver.
        ingest: Doow.
        clock: Simulated seconds.
        shard: Where the log goes to; None for nowhere.
        dice: By which CloudWatch delivers twice.

    Attributes:
        story: What has become of it so far.
        recorded: Calls of ``track``, by license and metric.
    """

    def __init__(
        self, way: Way, ingest: Ingest, clock: Clock, shard: Shard | None, dice: random.Random
    ) -> None:
        self.story = Story(way)
        self._ingest = ingest
        self._clock = clock
        self._shard = shard
        self._subscription = (
            None if shard is None else Subscription(shard, lambda: dice.random() < TWICE)
        )
        self._log = LogBook()
        self._faults: list[ValueError] = []
        self._done: set[str] = set()
        self.recorded: Counter[tuple[str, str]] = Counter()
        self._places: dict[int, tuple[int, Sandbox]] = {}

    # ── what happens ───────────────────────────────────────────────────────────────────────────

    def invoke(self, invocation: Invocation) -> None:
        """Have a sandbox serve an invocation: the one that is there, or a new one."""
        life, sandbox = self._places.get(invocation.place, (-1, None))
        if sandbox is None or life != invocation.life:
            if sandbox is not None:
                sandbox.kill()
            sandbox = self._start(f"{invocation.place:03}/{invocation.life}")
            self._places[invocation.place] = (invocation.life, sandbox)
        sandbox.invoke(invocation.license_id)
        for metric, calls in uses().items():
            self.recorded[invocation.license_id, metric] += calls

    def _start(self, name: str) -> Sandbox:
        self.story.lives += 1
        return Sandbox(
            self._ingest.url,
            self._clock,
            partial(self._write, name),
            self.story.way.options,
        )

    def _write(self, log_stream: str, text: str) -> None:
        try:
            batch_id = self._log.read(text)
        except ValueError as fault:  # The library would contain it.
            self._faults.append(fault)
            return
        if batch_id is not None and self._subscription is not None:
            self._subscription.take(log_stream, Line(self._clock(), text, batch_id))

    def bring(self) -> None:
        """Have CloudWatch bring to the stream what was written."""
        if self._subscription is not None:
            self._subscription.deliver(self._clock())

    def poll(self) -> None:
        """Have Lambda hand to the relay what has come."""
        for line in self._shard.poll(self._clock()) if self._shard is not None else ():
            if line.batch_id not in self._done:
                self._done.add(line.batch_id)
                delay_s = self._clock() - line.at
                self.story.delays_s.append((delay_s, self._log.batches[line.batch_id].calls))

    def end(self) -> None:
        """Have all sandboxes be gone."""
        for _, sandbox in self._places.values():
            sandbox.kill()
        self._places.clear()
        if self._shard is not None and self._subscription is not None:
            self.story.relay = (
                f"{self._shard.invocations:,} invocations, {self._shard.lost_answers:,} of them "
                f"done again; {self._subscription.twice:,} records came twice"
            )

    # ── the ledger ─────────────────────────────────────────────────────────────────────────────

    def look(self) -> None:
        """Write down where everything is: first what may leave, then where it arrives."""
        if self._faults:
            raise self._faults[0]
        waiting = dict(self._memory())
        log = self._log.without(self._done)
        posts = self._ingest.posts()
        delivered = {
            str(post.batch_id): sum(int(one) for one in post.totals.values())
            for post in posts
            if post.totals
        }
        recorded = self.recorded.total()
        self.story.rows.append(account(self._clock(), recorded, delivered, waiting, log))
        self.story.posts = Counter(post.status for post in posts)

    def _memory(self) -> Iterator[tuple[str, Weight]]:
        for _, sandbox in self._places.values():
            for batch in sandbox.memory():
                yield batch.id, self._log.batches.get(batch.id) or weight_of(batch)


def run(way: Way, minutes: float, seed: int) -> Story:
    """Let a fleet live for so many simulated minutes, and until its last window is over."""
    began = time.monotonic()
    clock = Clock()
    dice = random.Random(seed)
    with ExitStack() as stack:
        ingest = stack.enter_context(Ingest(events_per_minute=LIMIT, clock=clock.unix))
        shard = None
        if way.relays:
            handler = stack.enter_context(relaying(ingest.url))
            shard = Shard(handler, lambda: dice.random() < LOST_ANSWERS)
        fleet = Fleet(way, ingest, clock, shard, dice)
        chores = Chores(clock, fleet)
        for invocation in invocations(minutes, seed):
            chores.until(invocation.at)
            fleet.invoke(invocation)
        chores.until(minutes * 60 + TAIL_S)
        fleet.end()
        chores.until(minutes * 60 + TAIL_S + END_S)
        _check_against(ingest.events(), fleet)
    fleet.story.took_s = time.monotonic() - began
    return fleet.story


class Chores:
    """What comes again and again: looks, subscriptions and polls.

    Args:
        clock: Jumps to each of them.
        fleet: Does them.
    """

    def __init__(self, clock: Clock, fleet: Fleet) -> None:
        self._clock = clock
        self._due: list[tuple[float, float, Callable[[], None]]] = [
            (BRING_EVERY_S, BRING_EVERY_S, fleet.bring),
            (POLL_EVERY_S, POLL_EVERY_S, fleet.poll),
            (LOOK_EVERY_S, LOOK_EVERY_S, fleet.look),
        ]

    def until(self, at: float) -> None:
        """Do what is due until then, each at its time."""
        while (first := min(self._due, key=lambda one: one[0]))[0] <= at:
            due, every_s, chore = first
            self._clock.jump_to(due)
            chore()
            self._due[self._due.index(first)] = (due + every_s, every_s, chore)
        self._clock.jump_to(at)


def _check_against(events: list[dict[str, Any]], fleet: Fleet) -> None:
    """That Doow's own list of events says the same, and of no customer's metric too much."""
    found: Counter[tuple[str, str]] = Counter()
    for event in events:
        for one in event["measurements"]:
            found[event["license_id"], one["metric_name"]] += int(one["quantity"])
    fleet.story.events = len(events)
    if found.total() != fleet.story.rows[-1].delivered or found - fleet.recorded:
        raise ValueError(f"{found.total():,} in the list; too much of {found - fleet.recorded}")
