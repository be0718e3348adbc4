"""No event is lost and none counts twice, in whatever order things happen.

Threads are replaced by a stand-in that runs jobs at the very moment of their submission, or, while
the network is slow, when the machine says so. So each run is one deterministic interleaving, of
which Hypothesis looks for the bad ones. A second machine runs on real threads, where the invariants
hold at any interleaving that the system brings forth.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from doow_serverless import Tracker
from doow_serverless._delivery import hooks, outbox
from doow_serverless._handlers.invocation import Invocation
from doow_serverless._handlers.options import TrackedOptions
from doow_serverless._process import forks
from doow_serverless._process.workers import Workers
from doow_serverless._recording.scope import current
from tests.clock import Clock
from tests.network import KEY
from tests.unit.scripted_server import ANSWERS, FLUSH_S, Alarms, Jobs, Server, tag, tags

if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless import Outcome
    from doow_serverless._sealing import Batch
    from doow_serverless.errors import DoowError

TICK_S = FLUSH_S / 50
"""How far time moves on each look, without which a flush would wait for ever."""


class Machine(RuleBasedStateMachine):
    """One process that records, flushes, fails and forks."""

    workers: Callable[..., Any] = Jobs
    hooks_wait_s = 0.0  # Jobs run at once, or when the machine says so.

    @initialize(flush_at=st.sampled_from([2, 5, 500]), bound=st.sampled_from([12, 10_000]))
    def start(self, flush_at: int, bound: int) -> None:
        self.lock = threading.Lock()
        self.alarms = Alarms()
        self.patches: list[Any] = [
            mock.patch.object(outbox, "Workers", type(self).workers),
            mock.patch.object(outbox, "timers", self.alarms),
            mock.patch.object(hooks, "Workers", type(self).workers),
            mock.patch.object(hooks, "HOOKS_WAIT_S", type(self).hooks_wait_s),
        ]
        for patch in self.patches:
            patch.start()
        self.clock = Clock()
        self.clock.tick = TICK_S
        self.server = Server(self.clock)
        self.tracker = Tracker(
            KEY,
            transport=self.server,
            clock=self.clock,
            license_id="lic_1",
            environ={},
            warm_up=False,
            budget=FLUSH_S,
            timeout=1.0,
            flush_at=flush_at,
            max_queue_size=bound,
            on_error=self.on_error,
            on_flush=self.on_flush,
        )
        self.stack: list[tuple[Any, bool, list[int]]] = []
        self.next_tag = 1
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """A process begins, the first or a child: it answers for what it records itself."""
        self.recorded: set[int] = set()
        self.discarded: set[int] = set()
        self.refused: set[int] = set()
        self.outcomes: list[Outcome] = []
        self.errors: list[DoowError] = []
        self.batches_before = len(self.server.batches)
        self.first_tag = self.next_tag

    def on_error(self, error: DoowError) -> None:
        with self.lock:
            self.errors.append(error)

    def on_flush(self, outcome: Outcome) -> None:
        with self.lock:
            self.outcomes.append(outcome)

    # ── what the application does ──────────────────────────────────────────────────────────────

    def record(self, track: Callable[[int], None]) -> None:
        number, self.next_tag = self.next_tag, self.next_tag + 1
        scope = current.get()
        root = self.tracker.engine.unattended if scope is None else scope.buffer.root
        refused = root.refused
        track(number)
        self.recorded.add(number)
        if root.refused > refused:
            self.refused.add(number)
        elif self.stack:
            self.stack[-1][2].append(number)

    @rule(times=st.integers(1, 7))
    def track(self, times: int) -> None:
        for _ in range(times):
            self.record(lambda tag: self.tracker.track("tokens", tag, event_id=str(tag)))

    @rule()
    def track_all(self) -> None:
        self.record(lambda tag: self.tracker.track_all({"a": tag, "b": 1}, event_id=str(tag)))

    @rule(
        answer=st.sampled_from(ANSWERS),
        events=st.integers(0, 7),
        kind=st.sampled_from(["flush", "discard", "transaction"]),
        fails=st.booleans(),
    )
    def invocation(self, answer: int | str, events: int, kind: str, fails: bool) -> None:
        self.server.mood = answer
        self.enter(kind)
        self.track(events)
        self.leave(fails)

    @precondition(lambda self: len(self.stack) < 5)
    @rule(kind=st.sampled_from(["flush", "discard", "transaction"]))
    def enter(self, kind: Any) -> None:
        block: Any
        if kind == "transaction":
            block = self.tracker.transaction()
        else:
            block = Invocation(self.tracker.engine, TrackedOptions(on_exception=kind))
        block.__enter__()
        self.stack.append((block, kind != "flush", []))

    @precondition(lambda self: self.stack)
    @rule(fails=st.booleans())
    def leave(self, fails: bool) -> None:
        block, is_transaction, inside = self.stack.pop()
        block.__exit__(ValueError if fails else None, None, None)
        if is_transaction and fails:
            self.discarded |= set(inside)
        elif self.stack:
            self.stack[-1][2].extend(inside)

    @rule(budget=st.sampled_from([0.0, FLUSH_S]))
    def flush(self, budget: float) -> None:
        self.tracker.flush(budget)

    # ── what the world does ────────────────────────────────────────────────────────────────────

    @rule(script=st.lists(st.sampled_from(ANSWERS), min_size=1, max_size=4))
    def the_server_will_say(self, script: list[int | str]) -> None:
        self.server.script.extend(script)

    @rule(seconds=st.sampled_from([0.5, 2.0, 61.0, 1_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds
        self.alarms.ring()

    @rule()
    def the_network_is_slow(self) -> None:
        self.tracker.engine.outbox.workers.is_slow = True  # type: ignore[attr-defined]  # a Jobs
        self.clock.tick = FLUSH_S / 3

    @rule()
    def the_network_catches_up(self) -> None:
        self.clock.tick = TICK_S
        self.tracker.engine.outbox.workers.is_slow = False  # type: ignore[attr-defined]  # a Jobs
        self.tracker.engine.outbox.workers.catch_up()  # type: ignore[attr-defined]  # a Jobs

    @rule(really=st.integers(0, 3).map(lambda chance: chance == 3))
    def fork(self, really: bool) -> None:
        if not really:  # It ends so much that it must be rare.
            return
        self.clock.tick = TICK_S
        self.check_each_once()
        forks.before_fork()
        forks.after_fork_in_child()
        self.tracker.engine._leaves_soon = True  # No time passes by itself here.
        self.stack = [(block, transacts, []) for block, transacts, _ in self.stack]
        self.begin_epoch()

    # ── what must hold ─────────────────────────────────────────────────────────────────────────

    def check_each_once(self) -> None:
        """Whatever the server has, it has once, and it never has what it refused."""
        accepted = Counter(map(tag, self.server.events))
        assert [number for number, times in accepted.items() if times > 1] == []
        assert Counter(self.server.rejected) & accepted == Counter()

    def check_all_accounted(self) -> None:
        """Each event of this process is in exactly one place."""
        accepted = {number for number in map(tag, self.server.events) if number >= self.first_tag}
        rejected = {number for number in self.server.rejected if number >= self.first_tag}
        unsent = {number for batch in self.backlog() for number in tags(batch)}
        dropped = self.reported(lambda error: error.kind == "DROPPED_EVENTS")
        # What fails again while others get through stands in the log, and is left alone.
        left = self.reported(lambda error: "it cannot be delivered" in str(error))
        for doubtful in (unsent, dropped, left):
            doubtful -= self.answered_late(accepted)
        places = [accepted, rejected, unsent, self.discarded, self.refused, dropped, left]
        assert Counter(number for place in places for number in place) == Counter(self.recorded)
        # What the server refused, it was reported to have refused.
        assert rejected <= self.reported(lambda error: "Doow rejected" in str(error))
        # Nothing of the parent's has been sent.
        sent = self.server.batches[self.batches_before :]
        assert all(number >= self.first_tag for batch in sent for number in tags(batch))

    def check_outcomes(self) -> None:
        """The outcomes count each event that was flushed once."""
        unsent: Counter[str] = Counter()
        for outcome in self.outcomes:
            unsent.update(outcome.unsent)
        assert unsent.pop("DROPPED_EVENTS", 0) == len(self.refused)
        settled = sum(outcome.accepted + len(outcome.rejected) for outcome in self.outcomes)
        flushed = self.recorded - self.discarded - self.refused
        assert settled + sum(unsent.values()) == len(flushed)
        assert self.tracker.engine.unattended.in_hand == 0

    def answered_late(self, accepted: set[int]) -> set[int]:
        """Those of ``accepted`` of which the sender may not know, since no answer came in time."""
        return self.server.lost

    def backlog(self) -> list[Batch]:
        return [entry.batch for entry in self.tracker.engine.outbox.state.kept]

    def reported(self, wanted: Callable[[DoowError], bool]) -> set[int]:
        wanted_errors = [error for error in self.errors if wanted(error)]
        return {int(one) for error in wanted_errors for one in error.event_ids}

    def teardown(self) -> None:
        if not hasattr(self, "patches"):
            return
        try:
            while self.stack:
                self.leave(fails=False)
            self.the_network_catches_up()
            self.tracker.flush(FLUSH_S)
            self.check_at_the_end()
            self.recover()
            assert self.backlog() == []
            self.check_each_once()
            self.check_outcomes()
            self.check_all_accounted()
        finally:
            for patch in self.patches:
                patch.stop()

    def check_at_the_end(self) -> None:
        """Also with a backlog each event is in one place."""
        self.check_each_once()
        self.check_outcomes()
        self.check_all_accounted()

    def recover(self) -> None:
        """The server is well again, and the backlog drains by itself."""
        self.server.script.clear()
        self.server.mood = 202
        for _ in range(200):  # After a rate limit it goes at the pace of the account.
            self.clock.now += 2_000
            self.tracker.engine.outbox.redeliver()
            if not self.backlog():
                break


TestDeterministic = Machine.TestCase
TestDeterministic.settings = settings(
    max_examples=250,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


class Threads(Workers):
    """The real ones, under the controls of `Jobs`, which do nothing here."""

    is_slow = False

    def catch_up(self) -> None:
        """Threads need nobody to tell them."""


class ThreadedMachine(Machine):
    """The same on real threads: what leaves in the background does so meanwhile."""

    workers = Threads
    hooks_wait_s = hooks.HOOKS_WAIT_S

    def the_network_is_slow(self) -> None:
        """Its slowness is that of the threads."""

    def fork(self, really: bool = False) -> None:
        """What the parent's threads do in the child's memory could happen in no process."""

    def check_at_the_end(self) -> None:
        """An answer may come just while its batch goes to the backlog: it is known at recovery."""

    def answered_late(self, accepted: set[int]) -> set[int]:
        """Any, since a budget may end while an answer is on its way."""
        return accepted

    def recover(self) -> None:
        for _ in range(1_000):
            super().recover()
            if not self.backlog() and self.is_at_rest():
                return
            threading.Event().wait(0.001)
        raise AssertionError("the threads go on and on")

    def is_at_rest(self) -> bool:
        """Whether all threads have done their jobs, those that call the hooks as well."""
        outbox = self.tracker.engine.outbox
        return not any(
            pool._busy for pool in (outbox.workers, outbox.rescuers, outbox.reporter._thread)
        )


TestThreaded = ThreadedMachine.TestCase
TestThreaded.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
