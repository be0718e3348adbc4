"""``python -m tests.campaign.fleets``: random fleets of ill servers, on simulated time.

Each run draws instances behind a load balancer, a function, its hooks and its events. After some
minutes all instances are well. Then every event must have been accepted or rejected, once. Only
a batch with a poisonous event, for which every instance answers 500, may be given up: that event
alone, unless an answer was lost, so that the batch must not be taken apart.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import time
from collections import Counter
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING
from unittest import mock

from doow_serverless import Tracker
from doow_serverless._delivery.hooks import HOOKS_WAIT_S
from doow_serverless._delivery.ledger import Ledger
from doow_serverless._handlers.invocation import Invocation
from doow_serverless._handlers.options import TrackedOptions
from tests.campaign.instances import ILLS, Fleet, Instance
from tests.campaign.simulation import World, simulated
from tests.network import KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from doow_serverless import Outcome
    from doow_serverless._delivery.flight import Entry
    from doow_serverless._delivery.results import Failed
    from doow_serverless._recording.buffer import Buffer
    from tests.campaign.simulation import Sleeper

MINUTE_S = 60.0
STUCK_S = 900.0
"""Seconds without a fault in which another event must have arrived, as long as some have not. After
an outage each probe may be a batch with poison, and they are up to a minute apart; after a rate
limit the backlog goes at the pace of the account."""
HOOKS = ("none", "quick", "slow", "raising", "hanging")


class Run:
    """One fleet, one function, and what became of its events.

    Args:
        seed: Draws all of it.

    Attributes:
        fleet: The instances.
        troubles: What must not be.
        healing_s: Seconds without a fault until every event that is not poison had arrived.
    """

    def __init__(self, seed: str) -> None:
        self.troubles: list[str] = []
        self.healing_s = 0.0
        self.world = World()
        self._chance = chance = random.Random(seed)
        self._kinds: list[str] = []
        self._given_up: Counter[int] = Counter()
        self._beside_poison: set[int] = set()
        self._accounted = 0
        self._over = 0
        self.fleet = _fleet(self.world, chance)
        self._drawn = repr(self.fleet.instances)
        self._poison_part = chance.choice([0.0, 0.0, 0.01, 0.05])
        self._hook, self._hangs_from = chance.choice(HOOKS), chance.randrange(8)
        self._hung: list[Sleeper] = []
        self._budget_s = chance.choice([0.05, 0.3, 1.0, 2.0])
        self._pause_s = chance.choice([0.01, 0.5, 5.0, 20.0, 60.0])
        self._flush_at = chance.choice([3, 10, 100, 500])
        self._handlers = chance.choice([1, 1, 1, 2, 4])
        self._invocations = chance.randint(3, 40) // self._handlers + 2
        self._freezes = self._handlers == 1 and chance.random() < 0.5

    def run(self) -> None:
        """All of it."""
        with (
            simulated(self.world, self._chance),
            mock.patch.object(Ledger, "abandon", self._noting(Ledger.abandon)),
            _told_to(self.troubles),
        ):
            self._tracker = tracker = Tracker(
                KEY,
                transport=self.fleet,
                clock=self.world,
                license_id="lic_1",
                environ={},
                warm_up=False,
                dead_letter="off",
                budget=self._budget_s,
                timeout=self.fleet.timeout_s,
                flush_at=self._flush_at,
                on_error=None if self._hook == "none" else self._call_hook,
                on_flush=None if self._hook == "none" else self._call_hook,
            )
            flush = tracker.engine.flush
            tracker.engine.flush = partial(self._flush, flush)  # type: ignore[method-assign]
            self._fall_ill()
            self._heal()
            self._cure()
            self._check()

    # ── what happens ───────────────────────────────────────────────────────────────────────────

    def _fall_ill(self) -> None:
        for _ in range(self._handlers):
            self.world.run(partial(self._serve, self._invocations))
        self._go_on()

    def _heal(self) -> None:
        """All instances are well: invocations go on until every event has arrived."""
        began = self.world.now
        for instance in self.fleet.instances:
            instance.ill = ""
        self._freezes = False
        self._handlers, self._pause_s, self._poison_part = 1, 1.0, 0.0
        left, changed_at = self._left(), began
        while self._undelivered() and self.world.now - changed_at < STUCK_S:
            self.world.run(partial(self._serve, 1))
            self._go_on()
            before, left = left, self._left()
            changed_at = self.world.now if left < before else changed_at
        self.healing_s = self.world.now - began
        if late := self._undelivered():
            self.troubles.append(f"not delivered in {self.healing_s:.0f} s without a fault: {late}")

    def _cure(self) -> None:
        """Poison is accepted, too, as far as it is still sent; and no hook hangs any more."""
        self.fleet.is_cured, self._hook = True, "quick"
        for sleeper in self._hung:
            self.world.wake(sleeper)
        for _ in range(100):
            self.world.now += MINUTE_S
            self._tracker.engine.outbox.look()
            while self.world.step():
                pass
            if not self._tracker.engine.outbox.state.kept:
                return

    def _go_on(self) -> None:
        """Until all handlers are over."""
        while self._over < self._handlers:
            if not self.world.step():
                self.troubles.append("a handler waits for ever")
                break
        self._over = 0

    def _serve(self, invocations: int) -> None:
        """One handler after the other."""
        for _ in range(invocations):
            self._handle()
            pause_s = self._chance.expovariate(1 / self._pause_s)
            if self._freezes:
                self.world.now += pause_s
            else:
                self.world.sleep(pause_s)
        self._over += 1

    def _handle(self) -> None:
        with Invocation(self._tracker.engine, TrackedOptions()):
            for _ in range(self._chance.choice([0, 1, 1, 2, 3, 8, 20])):
                self._record()
            if self._chance.random() < 0.2:
                self.world.sleep(self._chance.uniform(0.0, 0.3))
            if self._chance.random() < 0.1:
                self._tracker.flush()
                self._record()

    def _record(self) -> None:
        drawn = self._chance.random()
        kind = "poison" if drawn < self._poison_part else "refused" if drawn > 0.98 else "tokens"
        self._tracker.track(kind, 1, event_id=str(len(self._kinds)))
        self._kinds.append(kind)

    def _flush(
        self, flush: Callable[..., Outcome], buffer: Buffer, limit_s: float, *, last: bool = False
    ) -> Outcome:
        began = self.world.now
        outcome = flush(buffer, limit_s, last=last)
        took_s = self.world.now - began
        if took_s > limit_s + HOOKS_WAIT_S + 0.001:
            self.troubles.append(f"a flush of {limit_s:.3f} s took {took_s:.3f} s")
        self._accounted += outcome.accepted + len(outcome.rejected) + sum(outcome.unsent.values())
        return outcome

    def _noting(
        self, abandon: Callable[[Ledger, Entry, Failed], None]
    ) -> Callable[[Ledger, Entry, Failed], None]:
        """Note each event that is given up."""

        def noting(ledger: Ledger, entry: Entry, failure: Failed) -> None:
            numbers = list(map(int, entry.batch.event_ids))
            self._given_up.update(numbers)
            if all(self._kinds[number] != "poison" for number in numbers):
                self.troubles.append(f"given up without poison: {entry!r}")
            elif entry.is_ambiguous:
                self._beside_poison.update(numbers)
            abandon(ledger, entry, failure)

        return noting

    def _call_hook(self, _: object) -> None:
        if self._hook == "raising":
            raise ValueError("a hook")
        self._hangs_from -= 1
        if self._hook == "slow":
            self.world.sleep(self._chance.choice([0.01, 0.2, 3.0]))
        elif self._hook == "hanging" and self._hangs_from < 0:
            self._hung.append([])
            self.world.wait(self._hung[-1])

    # ── what must hold ─────────────────────────────────────────────────────────────────────────

    def _left(self) -> int:
        """How many events have not arrived, poison and all."""
        return len(self._kinds) - self.fleet.accepted.total() - self.fleet.rejected.total()

    def _undelivered(self) -> list[int]:
        """Events that have not arrived, though a server that is well would take them."""
        lost = set(self._beside_poison)
        for entry in self._tracker.engine.outbox.state.kept:
            numbers = list(map(int, entry.batch.event_ids))
            if entry.is_ambiguous and any(self._kinds[one] == "poison" for one in numbers):
                lost.update(numbers)
        arrived = self.fleet.accepted.keys() | self.fleet.rejected.keys() | lost
        kinds = enumerate(self._kinds)
        return [one for one, kind in kinds if kind != "poison" and one not in arrived]

    def _check(self) -> None:
        for number, kind in enumerate(self._kinds):
            places = (
                self.fleet.accepted[number],
                self.fleet.rejected[number],
                self._given_up[number],
            )
            may_be_given_up = kind == "poison" or number in self._beside_poison
            right = (0, 1, 0) if kind == "refused" else (1, 0, 0)
            if places != right and not (may_be_given_up and places == (0, 0, 1)):
                self.troubles.append(f"event {number} ({kind}): {places}")
        if self._accounted != len(self._kinds):
            self.troubles.append(f"outcomes of {self._accounted} of {len(self._kinds)} events")
        if self._tracker.engine.outbox.state.kept:
            self.troubles.append(f"kept for ever: {self._tracker.engine.outbox!r}")

    @property
    def events(self) -> int:
        """How many were recorded."""
        return len(self._kinds)

    @property
    def poison(self) -> int:
        """How many of them were poisonous."""
        return self._kinds.count("poison")

    @property
    def given_up(self) -> int:
        """How many were given up."""
        return self._given_up.total()

    def __repr__(self) -> str:
        return (
            f"{self._drawn}, by request: {self.fleet.is_by_request}, budget "
            f"{self._budget_s}, hook {self._hook}, freezes: {self._freezes}, {self.events} events"
        )


@contextmanager
def _told_to(troubles: list[str]) -> Iterator[None]:
    """Add the faults that the library contains to ``troubles``, and keep its warnings quiet."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "a fault of doow-serverless itself" in record.getMessage():
                troubles.append(record.getMessage())

    logger, handler = logging.getLogger("doow_serverless"), Handler()
    before, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


def _fleet(world: World, chance: random.Random) -> Fleet:
    count = chance.randint(1, 5)
    ill = chance.randint(0, count)
    one_ill = chance.choice(ILLS)
    are_alike = chance.random() < 0.5
    instances = [
        Instance(
            ill=(one_ill if are_alike else chance.choice(ILLS)) if number < ill else "",
            period_s=chance.choice([0.1, 1.0, 10.0, 60.0, 600.0, 3_600.0]),
            part=chance.choice([1.0, 1.0, 0.5, 0.1, 0.9]),
            phase_s=chance.uniform(0.0, 3_600.0),
            hold_s=chance.choice([1.0, 5.0, 30.0]),
            delay_s=chance.choice([0.2, 1.0, 3.0, 20.0]),
        )
        for number in range(count)
    ]
    return Fleet(
        world,
        chance,
        instances,
        timeout_s=chance.choice([1.0, 5.0, 10.0]),
        largest=chance.choice([500, 500, 500, 7, 3]),
        is_by_request=chance.random() < 0.3,
    )


def main() -> int:
    """Make so many runs; 1 if one of them goes wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign.fleets", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--only", type=int, help="this run alone")
    chosen = parser.parse_args()
    say = sys.stdout.write
    say(f"seed {chosen.seed}, {chosen.runs:,} runs\n")
    began = time.monotonic()
    runs = range(chosen.runs) if chosen.only is None else [chosen.only]
    figures: Counter[str] = Counter()
    wrong = 0
    longest_s = 0.0
    for number in runs:
        run = Run(f"{chosen.seed}/{number}")
        run.run()
        if run.troubles:
            wrong += 1
            say(f"run {number}: {run.troubles[:5]}\n  {run!r}\n")
            if wrong == 20:
                break
        figures.update(
            events=run.events,
            posts=run.fleet.posts,
            poison=run.poison,
            given_up=run.given_up,
            late=run.healing_s > MINUTE_S,
        )
        longest_s = max(longest_s, run.healing_s)
        if number % 1_000 == 999:
            say(f"{number + 1:,} runs, {time.monotonic() - began:.0f} s\n")
    say(f"{figures}, longest healing {longest_s:.0f} s, {time.monotonic() - began:.0f} s\n")
    say(f"{wrong} wrong\n" if wrong else "all went well\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
