"""What a relay delivers, hands back and gives up, if Doow or the way to it fails; by a clock."""

from __future__ import annotations

import random
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doow_serverless._config import Config
from doow_serverless._delivery import blame
from doow_serverless._delivery.patient import PatientSender
from doow_serverless._delivery.results import Failed, Settled
from doow_serverless._sealing import split
from doow_serverless.errors import ErrorKind
from doow_serverless.relay import _relay
from doow_serverless.relay._relay import Relay, Undelivered
from tests.batches import batch
from tests.network import KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from doow_serverless._sealing import Batch

    Faults = Callable[["Stream", Batch], Failed | None]

LIMIT_S = 297.0
"""Seconds that an invocation of `relay.yaml` may take."""
POST_S = 0.05
AGAIN_S = 5.0
"""Seconds after which a platform brings again what was handed back."""
ERROR = Failed(ErrorKind.TRANSPORT_ERROR, "HTTP 500")
LOST = Failed(ErrorKind.TRANSPORT_ERROR, "HTTP 504", is_ambiguous=True)
REFUSED = Failed(ErrorKind.NETWORK_ERROR, "refused", is_unsent=True)


class Stream:
    """Brings batches to a relay until it is done with them, and is Doow as well; time is simulated.

    Args:
        fails: Returns why a POST fails at this moment; None: Doow takes the batch. It takes it as
            well if only the answer is lost.

    Attributes:
        now: The time.
        counted: The ids of the batches under which each event was taken.
        given_up: The same, for events that the relay has written down; with the time.
        posts: The ids of all that was sent, in order.
    """

    def __init__(self, fails: Faults) -> None:
        self._fails = fails
        self.now = 1_000.0
        self.counted: dict[str, set[str]] = {}
        self.given_up: dict[str, dict[str, float]] = {}
        self.posts: list[str] = []
        self.restart()

    def restart(self) -> None:
        """The relay's process is replaced."""
        self._relay = Relay(Config(KEY, environ={}), "http://127.0.0.1:1")
        self._relay._set_aside = self._write  # type: ignore[method-assign,assignment]

    def _write(self, one: Batch, _why: str) -> None:
        self._relay._note_delivered(one.id)
        for event_id in one.event_ids:
            self.given_up.setdefault(event_id, {})[one.id] = self.now

    @contextmanager
    def sending(self, *_: object) -> Iterator[Stream]:
        yield self

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def send(self, one: Batch) -> Settled | Failed:
        """One POST."""
        self.now += POST_S
        self.posts.append(one.id)
        failure = self._fails(self, one)
        if failure is None or failure.is_ambiguous:
            for event_id in one.event_ids:
                self.counted.setdefault(event_id, set()).add(one.id)
        return failure or Settled(one, ErrorKind.TRANSPORT_ERROR, "", [])

    def bring(self, batches: Iterable[Batch], limit_s: float = LIMIT_S) -> list[Batch]:
        """One invocation; return the batches that are handed back."""
        lot = list(batches)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(_relay, "sending", self.sending)
            clock = SimpleNamespace(monotonic=lambda: self.now, time=lambda: self.now)
            patched.setattr(_relay, "time", clock)
            sender = partial(PatientSender, sleep=self.sleep, clock=lambda: self.now)
            patched.setattr(_relay, "PatientSender", sender)
            try:
                self._relay.deliver(lot, limit_s)
            except Undelivered as problem:
                self.now += AGAIN_S
                return [one for one in lot if one.id in problem.batch_ids]
        return []

    def run(self, batches: Iterable[Batch], at_once: int = 10, limit_s: float = LIMIT_S) -> None:
        """Bring all, ``at_once`` in an invocation, until the relay is done with them."""
        todo = list(batches)
        for _ in range(100 + 10 * len(todo)):
            lot, todo = todo[:at_once], todo[at_once:]
            todo = self.bring(lot, limit_s) + todo
            if not todo:
                return
        pytest.fail(f"{len(todo)} batches hold up the stream for ever")

    def ends(self) -> dict[str, int]:
        """How often each event counts, or was written down."""
        counted, given_up = self.counted, self.given_up
        return {
            event_id: len({*counted.get(event_id, ()), *given_up.get(event_id, ())})
            for event_id in {*counted, *given_up}
        }


def once(batches: Iterable[Batch]) -> dict[str, int]:
    return {event_id: 1 for one in batches for event_id in one.event_ids}


def digesting(*bad: str, failure: Failed = ERROR) -> Faults:
    """Doow cannot digest any batch that holds one of these events."""
    return lambda _, one: failure if {*bad}.intersection(one.event_ids) else None


def flapping(up_s: float, down_s: float, failure: Failed, dice: random.Random) -> Faults:
    """Doow is up for a while, and down for a while, at random."""
    changes_at, is_up = 0.0, False

    def fails(stream: Stream, _: Batch) -> Failed | None:
        nonlocal changes_at, is_up
        while changes_at <= stream.now:
            is_up = not is_up
            changes_at = stream.now + dice.expovariate(1 / (up_s if is_up else down_s))
        return None if is_up else failure

    return fails


# ── good batches, and a server in trouble ───────────────────────────────────────────────────────


@pytest.mark.parametrize("at_once", [1, 10, 100])
@pytest.mark.parametrize("events", [1, 4])
@pytest.mark.parametrize("bad_instances", [1, 2])
def test_one_of_three_instances_is_bad(at_once: int, events: int, bad_instances: int) -> None:
    """It fails with whatever it gets: nothing is given up, and everything counts once."""
    dice = random.Random(at_once + events)
    stream = Stream(lambda *_: ERROR if dice.random() < bad_instances / 3 else None)
    batches = [batch(events) for _ in range(1_000)]
    stream.run(batches, at_once)
    assert (stream.ends(), stream.given_up) == (once(batches), {})


@pytest.mark.parametrize("failure", [ERROR, REFUSED], ids=["500", "refused"])
@pytest.mark.parametrize(("up_s", "down_s"), [(0.5, 60.0), (1.0, 10.0), (20.0, 20.0), (5.0, 300.0)])
def test_a_server_that_flaps(up_s: float, down_s: float, failure: Failed) -> None:
    """However seldom it is up: nothing is given up, and everything counts once."""
    stream = Stream(flapping(up_s, down_s, failure, random.Random(26)))
    batches = [batch(events) for events in (1, 4) * 100]
    stream.run(batches)
    assert (stream.ends(), stream.given_up) == (once(batches), {})


def test_new_connections_are_refused() -> None:
    """Whatever gets through in between: a failure by which nothing was sent counts for nothing."""
    one, others = batch(4), [batch() for _ in range(100)]
    stream = Stream(digesting(*one.event_ids, failure=REFUSED))
    for other in others:
        assert stream.bring([one, other]) == [one]
    stream._fails = digesting()
    assert stream.bring([one]) == []
    assert (stream.ends(), stream.given_up) == (once([one, *others]), {})


@pytest.mark.parametrize("events", [1, 4])
def test_an_outage(events: int) -> None:
    """Where nothing gets through nothing is given up, however long it lasts."""
    stream = Stream(lambda *_: ERROR)
    batches = [batch(events) for _ in range(3)]
    for _ in range(50):
        assert stream.bring(batches) == batches
    stream._fails = digesting()
    assert stream.bring(batches) == []
    assert (stream.ends(), stream.given_up) == (once(batches), {})


# ── an event that cannot be delivered ───────────────────────────────────────────────────────────


@pytest.mark.parametrize("events", [1, 2, 9, 100])
def test_one_event_among_others(events: int) -> None:
    """It alone is given up, after two minutes at least; a stream brings other batches besides."""
    one = batch(events)
    bad = one.event_ids[events // 2]
    stream = Stream(digesting(bad))
    batches = [one, *(batch(4) for _ in range(200))]
    began = stream.now
    stream.run(batches)
    [given_up_at] = stream.given_up[bad].values()
    assert (stream.ends(), [*stream.given_up]) == (once(batches), [bad])
    assert blame.PATIENCE_S <= given_up_at - began < 5 * blame.PATIENCE_S


def test_a_batch_that_is_alone() -> None:
    """After two minutes its own halves are what it is compared with: the bad events are found."""
    one = batch(100)
    bad = {one.event_ids[3], one.event_ids[70]}
    stream = Stream(digesting(*bad))
    began = stream.now
    stream.run([one])
    assert (stream.ends(), {*stream.given_up}) == (once([one]), bad)
    given_up_at = [at for ids in stream.given_up.values() for at in ids.values()]
    assert min(given_up_at) - began >= blame.PATIENCE_S


def test_an_event_that_is_alone() -> None:
    """Nobody can tell whether it or Doow is at fault, until another batch comes along."""
    one = batch()
    stream = Stream(digesting(*one.event_ids))
    for _ in range(50):
        assert stream.bring([one]) == [one]
    stream.run([one, *(batch() for _ in range(20))], at_once=2)
    assert [*stream.given_up] == list(one.event_ids)


def test_an_answer_that_is_always_lost() -> None:
    """Doow may have the batch: it stays whole, also if other errors follow, and is given up so."""
    one = batch(4)
    stream = Stream(digesting(*one.event_ids, failure=LOST))
    others = [batch() for _ in range(100)]
    assert stream.bring([one, others[0]]) == [one]
    stream._fails = digesting(*one.event_ids)
    stream.run([one, *others], at_once=2)
    assert stream.ends() == once([one, *others])
    assert {*stream.given_up} == {*one.event_ids}


def test_an_outage_that_begins_amid_the_halves() -> None:
    """Half of a batch has got through: the rest is written down under its own id.

    If the batch came again as a whole, another process would not know of the half.
    """
    one = batch(8)
    first, second = split(one)
    is_down = False

    def fails(_: Stream, sent: Batch) -> Failed | None:
        nonlocal is_down
        failure = ERROR if is_down or sent.id == one.id else None
        is_down = is_down or sent.id == first.id
        return failure

    stream = Stream(fails)
    stream.run([one])
    given_up = {event_id: {*ids} for event_id, ids in stream.given_up.items()}
    assert stream.counted == {event_id: {first.id} for event_id in first.event_ids}
    assert {*given_up} == {*second.event_ids}
    assert one.id not in {batch_id for ids in given_up.values() for batch_id in ids}
    assert stream.bring([one]) == []
    assert stream.posts.count(one.id) == len(stream.posts[: stream.posts.index(first.id)])


@given(
    st.sets(st.integers(0, 15)),
    st.sets(st.integers(0, 15), max_size=2),
    st.integers(1, 16),
    st.integers(0, 2**32),
)
def test_each_event_has_one_end(errors: set[int], losses: set[int], events: int, seed: int) -> None:
    """Counted under one id, or written down under one, even if processes are replaced meanwhile."""
    dice = random.Random(seed)
    one = batch(events)
    bad = {one.event_ids[at] for at in errors if at < events}
    lost = {one.event_ids[at] for at in losses if at < events}

    def fails(_: Stream, sent: Batch) -> Failed | None:
        if bad.intersection(sent.event_ids) or dice.random() < 0.1:
            return ERROR
        return LOST if lost.intersection(sent.event_ids) else None

    stream = Stream(fails)
    others = []
    todo = [one]
    for _ in range(100):
        others.append(batch())
        todo = stream.bring([*todo, others[-1]], dice.choice((5.0, LIMIT_S)))
        if not todo:
            break
        if dice.random() < 0.05:
            stream.restart()
    assert (todo, stream.ends()) == ([], once([one, *others]))
    assert bad <= stream.given_up.keys()


def test_only_so_many_failures_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the bytes of the batches, which come again."""
    monkeypatch.setattr(_relay, "MAX_FAILED", 3)
    stream = Stream(lambda *_: ERROR)
    batches = [batch(4) for _ in range(4)]
    for one in batches:
        stream.bring([one])
    kept = stream._relay._failed
    assert [(name, len(entry.batch.body)) for name, entry in kept.items()] == [
        (one.id, 0) for one in batches[1:]
    ]
