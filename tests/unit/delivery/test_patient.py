"""What waits for what where no response does: pauses, holds, paces, and the end of the patience."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless._delivery.patient import PatientSender, Undeliverable
from doow_serverless._delivery.results import Failed, Settled, Split
from doow_serverless._sealing import split
from doow_serverless.errors import ErrorKind
from tests.batches import batch

if TYPE_CHECKING:
    from doow_serverless._delivery.flight import Entry
    from doow_serverless._delivery.patient import Delivery
    from doow_serverless._delivery.results import Result
    from doow_serverless._sealing import Batch

DOWN = Failed(ErrorKind.NETWORK_ERROR, "refused", is_unsent=True)
ERROR = Failed(ErrorKind.TRANSPORT_ERROR, "HTTP 500")
LIMITED = Failed(ErrorKind.RATE_LIMITED, "HTTP 429", 3_600.0)
STALE = Failed(ErrorKind.NETWORK_ERROR, "reset", is_ambiguous=True, is_stale=True)


def accepted(one: Batch, hold_s: float = 0.0) -> Settled:
    return Settled(one, ErrorKind.TRANSPORT_ERROR, "", [], hold_s)


class World:
    """Doow, whose answers are written, the time, and all that a sender reports.

    Args:
        *results: The results of attempts, in order; None, and after the last: accepted.
        post_s: Seconds that each attempt takes.
        fails: The ids of batches that always fail, with spaces between them.
        **options: Of the sender.
    """

    def __init__(
        self,
        *results: Failed | Settled | Split | None,
        post_s: float = 0.0,
        fails: str = "",
        **options: Any,
    ) -> None:
        self._results = list(results)
        self.fails, self.failure = fails, ERROR
        self._post_s = post_s
        self.now = 0.0
        self.posts: list[tuple[float, str]] = []
        self.slept: list[float] = []
        self.settled: list[tuple[str, int, list[tuple[str, str]]]] = []
        self.given_up: list[tuple[str, str]] = []
        self.said: list[str] = []
        self.patient = PatientSender(
            self,  # type: ignore[arg-type]  # all that is asked of it
            self._settled,
            lambda one, why: self.given_up.append((one.id, why)),
            self.said.append,
            sleep=self._sleep,
            clock=lambda: self.now,
            **options,
        )

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def _settled(self, delivery: Delivery) -> None:
        self.settled.append((delivery.batch.id, delivery.accepted, delivery.rejected))

    def send(self, one: Batch) -> Result:
        self.posts.append((self.now, one.id))
        self.now += self._post_s
        if one.id in self.fails.split():
            return self.failure
        return (self._results.pop(0) if self._results else None) or accepted(one)

    def stopped(self, *batches: Batch) -> tuple[str, bool, list[str]]:
        """Send and finish; why it was no use to go on, whether for all, and the batches left."""
        problem = self.trouble(*batches)
        return str(problem), problem.ends_all, [one.id for one in self.patient.leave()]

    def trouble(self, *batches: Batch) -> Undeliverable:
        try:
            for one in batches:
                self.patient.send(one)
            self.patient.finish()
        except Undeliverable as problem:
            return problem
        raise AssertionError("all was delivered")


def named(name: str, events: int = 1) -> Batch:
    return batch(events, batch_id=name)


def test_no_more_events_a_minute_than_told() -> None:
    """Each batch waits until those before it have had their time, and failures cost none."""
    world = World(None, DOWN, None, None, rate=600.0)
    for name, events in (("a", 500), ("b", 10), ("c", 1)):
        world.patient.send(named(name, events))
    world.patient.finish()
    assert world.posts == [(0.0, "a"), (50.0, "b"), (50.0, "c"), (50.5, "b")]


def test_pauses_grow_and_patience_is_anew_after_a_hold() -> None:
    """Faults are retried more and more slowly; what the server asks for is no failure."""
    world = World(DOWN, DOWN, LIMITED, *[DOWN] * 30)
    assert world.stopped(named("a")) == ("refused", False, ["a"])
    assert world.slept == [0.5, 1.0, 3_600.0, 4.0, 8.0, 8.0]
    assert world.said == [
        "refused: trying again for 20 s",
        "HTTP 429: waiting 3,600 s, as the server asks",
    ]


def test_an_acceptance_may_be_the_last_for_a_while() -> None:
    world = World(accepted(named("a"), hold_s=9.0))
    world.patient.send(named("a"))
    world.patient.send(named("b"))
    assert world.posts == [(0.0, "a"), (9.0, "b")]


def test_two_that_fail_are_an_outage() -> None:
    """Nothing else is tried until one of them gets through, or the patience is over."""
    world = World(*[ERROR] * 4)
    for name in "abc":
        world.patient.send(named(name))
    world.patient.finish()
    assert world.posts == [
        (0.0, "a"), (0.0, "b"), (0.5, "a"), (0.5, "b"), (1.5, "a"), (1.5, "b"), (1.5, "c"),
    ]  # fmt: skip
    world = World(*[ERROR] * 30, patience_s=1.0)
    assert world.stopped(named("a"), named("b"), named("c")) == ("HTTP 500", True, ["a", "b"])
    assert {name for _, name in world.posts} == {"a", "b"}


def test_one_that_fails_goes_behind_others() -> None:
    """Whatever the patience; it has its turn between them once its pause is over."""
    world = World(post_s=0.2, patience_s=0.0, fails="a")
    for name in "abcdef":
        world.patient.send(named(name))
    assert [name for _, name in world.posts] == [*"abcd", "a", *"ef"]
    assert world.stopped() == ("HTTP 500", False, ["a"])
    assert world.settled == [(name, 1, []) for name in "bcdef"]


def test_nothing_is_begun_when_the_time_is_over() -> None:
    world = World(post_s=6.0, ends_at=10.0)
    assert world.stopped(named("a"), named("b"), named("c")) == (
        "the pace that is to be kept",
        True,
        ["c"],
    )
    assert world.settled == [("a", 1, []), ("b", 1, [])]


def test_a_kept_connection_that_had_died() -> None:
    """The batch goes again at once, on a new one, and that counts for nothing."""
    world = World(STALE, STALE)
    world.patient.send(named("a"))
    assert (world.posts, world.said) == ([(0.0, "a")] * 3, [])


@pytest.mark.parametrize(
    ("answer", "is_refused", "posts"),
    [
        (Failed(ErrorKind.AUTH_FAILURE, "HTTP 401", 900.0), True, 1),
        (Settled(named("a"), ErrorKind.AUTH_FAILURE, "HTTP 403", [("a-0", "scope")]), True, 1),
        (Failed(ErrorKind.AUTH_FAILURE, "no answer of the store", 0.0, is_unsent=True), False, 3),
    ],
)
def test_a_key_that_is_refused_ends_all(
    answer: Failed | Settled, is_refused: bool, posts: int
) -> None:
    """But a store of keys that cannot be reached is an outage like any other."""
    world = World(*[answer] * posts, patience_s=1.0)
    problem = world.trouble(named("a"))
    assert (str(problem), problem.key_refused) == (answer.message, is_refused)
    assert (len(world.posts), world.settled) == (posts, [])
    assert [one.id for one in world.patient.leave()] == ["a"]


def test_too_large_a_batch() -> None:
    """Its halves go instead, and are one delivery; one that is not decided on takes it back."""
    whole = named("a", 5)
    first, second = split(whole)
    too_large = Split((first, second), ErrorKind.TRANSPORT_ERROR, "HTTP 413")
    refused = Settled(second, ErrorKind.PARTIAL_ACCEPT, "", [(second.event_ids[0], "odd")])
    world = World(too_large, None, refused)
    world.patient.send(whole)
    assert world.settled == [("a", 4, [(second.event_ids[0], "odd")])]
    world = World(too_large, None, *[ERROR] * 30)
    assert world.stopped(whole) == ("HTTP 500", False, ["a"])
    assert (world.settled, world.given_up) == ([], [])


@pytest.mark.parametrize("may_halve", [False, True])
def test_what_was_sent_by_halves_before(may_halve: bool) -> None:
    """It goes by halves again; in an outage it is handed back, since its frames say so again."""
    whole = named("a", 2)
    first, second = split(whole)
    world = World(halved={"a"}, may_halve=may_halve)
    world.patient.send(whole)
    assert (world.posts, world.settled) == ([(0.0, first.id), (0.0, second.id)], [("a", 2, [])])
    world = World(None, *[DOWN] * 30, halved={"a"}, may_halve=may_halve)
    assert world.stopped(whole) == ("refused", False, ["a"])
    assert (world.settled, world.given_up) == ([], [])


def test_a_batch_at_fault_is_given_up_whole() -> None:
    """By those that keep the batch themselves, as `replay`: nobody could know of its halves."""
    bad = named("bad", 4)
    world = World(fails="bad", patience_s=1e6)
    world.patient.send(bad)
    for number in range(100):
        world.patient.send(named(f"other {number}"))
        world.now += 2.0
    world.patient.finish()
    assert world.given_up == [("bad", "HTTP 500")]
    assert len(world.settled) == 100


def test_a_half_that_arrived_has_the_other_sent_at_once() -> None:
    """The server may be up for a moment only; but lost answers are followed by a pause."""
    whole = named("a", 2)
    first, second = split(whole)
    options: dict[str, Any] = {"fails": "a", "patience_s": 120.0, "may_halve": True}
    world = World(ERROR, **options, halved=set())
    world.patient.send(whole)
    world.patient.finish()
    assert world.posts[-3:] == [(world.now, one.id) for one in (first, second, first)]
    assert world.patient._halved == {"a"}
    assert (world.settled, world.given_up) == ([("a", 2, [])], [])
    lost = Failed(ErrorKind.TRANSPORT_ERROR, "HTTP 504", is_ambiguous=True)
    world = World(*[lost] * 1_000, **options, halved=set(), ends_at=200.0)
    assert world.stopped(whole) == ("HTTP 504", True, [])
    assert world.given_up == [(first.id, "HTTP 504"), (second.id, "HTTP 504")]
    assert len(world.posts) < 50


def test_the_rest_of_a_batch_is_tried_to_the_end() -> None:
    """As it cannot be handed back, patience is no reason to stop."""
    whole = named("a", 2)
    _, second = split(whole)
    options: dict[str, Any] = {"patience_s": 120.0, "may_halve": True, "halved": set()}
    world = World(fails=f"a {second.id}", ends_at=1_000.0, **options)
    assert world.trouble(whole).ends_all
    assert world.now > 990.0
    assert (world.patient.leave(), world.given_up) == ([], [(second.id, "HTTP 500")])
    assert world.settled == [("a", 1, [])]


def test_an_outage_in_which_a_batch_is_halved() -> None:
    """As long as no half arrives it is halved on, and is handed back whole; it stays suspicious."""
    whole = named("a", 4)
    memory: dict[str, Entry] = {}
    world = World(*[ERROR] * 1_000, patience_s=120.0, may_halve=True, halved=set(), memory=memory)
    assert world.stopped(whole) == ("HTTP 500", True, ["a"])
    assert {one.id for half in split(whole) for one in split(half)} < {
        name for _, name in world.posts
    }
    assert (world.given_up, world.patient._halved) == ([], set())
    assert memory["a"].failing_since == 0.0
    assert world.now >= 3 * 120.0  # The halves are tried for as long as the whole.


def test_earlier_failures_are_known_and_cost_no_pause() -> None:
    """Each sender begins with short pauses, and says anew what it waits for."""
    memory: dict[str, Entry] = {}
    for failures in (2, 4):
        world = World(*[ERROR] * 9, patience_s=0.4, memory=memory)
        world.stopped(named("a"))
        assert (memory["a"].failures, world.slept, len(world.said)) == (failures, [0.5], 1)


def test_a_failure_by_which_nothing_was_sent_ends_nothing() -> None:
    """Also of a batch that chance speaks against already."""
    world = World(fails="bad", patience_s=1e6)
    world.patient.send(named("bad"))
    for number in range(200):
        world.patient.send(named(f"other {number}"))
        world.now += 1.0
        if number == 100:
            world.failure = DOWN
    assert world.given_up == []
    world.failure = ERROR
    for number in range(200):
        world.patient.send(named(f"another {number}"))
        world.now += 1.0
    assert world.given_up == [("bad", "HTTP 500")]
