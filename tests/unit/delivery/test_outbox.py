"""The driver of the state: facts in, orders out, each in its turn, and none of them lost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless import Outcome
from doow_serverless._delivery.credentials import Credentials
from doow_serverless._delivery.flight import Flight
from doow_serverless._delivery.log_sender import LogSender
from doow_serverless._delivery.outbox import Outbox
from doow_serverless._delivery.results import Settled
from doow_serverless._delivery.sender import Sender
from doow_serverless._process.clock import Budget
from doow_serverless.errors import ErrorKind
from tests.batches import batch
from tests.frames import letters_in
from tests.network import KEY
from tests.unit.delivery.driver import NEVER
from tests.unit.delivery.facts import ERROR_500, accepted

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.delivery.driver import World
    from tests.unit.delivery.turns import Turns

    NewWorld = Callable[..., World]


def new_flight(world: World, released: list[int] | None = None, budget_s: float = 2.0) -> Flight:
    """One that a flush waits for, from now on."""
    now = world.turns.clock.now
    release = (lambda _: None) if released is None else released.append
    return Flight(release, world.outbox, now, now + budget_s)


def send(world: World, flight: Flight, *ids: str, events: int = 1) -> None:
    """Batches of these ids are sealed, and sent by workers."""
    for one in ids:
        world.outbox.submit_all(world.outbox.add(flight, batch(events, batch_id=one)))


def close(world: World, flight: Flight) -> Outcome:
    outcome = Outcome()
    world.errors += world.outbox.close(flight, outcome)
    return outcome


# ── in which order ──────────────────────────────────────────────────────────────────────────────


def test_a_batch_is_settled_before_who_waits_is_woken(new_world: NewWorld) -> None:
    """The journal knows of it, and its buffer has room again."""
    world = new_world(journal=True)
    flight = new_flight(world)
    flight.release = lambda events: world.diary.append(f"released {events}")
    flight.wake = lambda: world.diary.append("woken")
    send(world, flight, "a", events=2)
    assert world.take() == []
    world.turns.rest()
    assert world.take() == ["woken", "post a-0+a-1", "settled a", "released 2", "woken"]
    assert close(world, flight) == Outcome(accepted=2, requests=1)
    assert (world.errors, world.outbox.has_in_hand, flight.is_closed) == ([], False, True)


def test_what_is_given_up_is_written_down_first(new_world: NewWorld) -> None:
    """Before its buffer has room again; the flush waits until it is written."""
    world = new_world(journal=True)
    world.wire.answers.append((NEVER, 202))
    flight = new_flight(world)
    flight.release = lambda events: world.diary.append(f"released {events}")
    send(world, flight, "a")
    world.turns.sleep(2.0)
    world.turns.rest()
    assert close(world, flight) == Outcome(unsent={"TIMEOUT": 1}, requests=1, backlog=1)
    assert world.take() == ["post a-0", "log a-0 TIMEOUT", "released 1", "written"]
    assert world.outbox.kept_events == 1
    assert close(world, flight) == Outcome(unsent={"TIMEOUT": 1}, requests=1, backlog=1)
    assert world.take() == ["written"]


def test_halves_are_noted_before_they_are_sent(new_world: NewWorld) -> None:
    """In the journal; in the log as well, if the whole stands there."""
    world = new_world(journal=True)
    world.wire.answers.append((0.0, 413))
    flight = new_flight(world)
    send(world, flight, "a", events=2)
    world.turns.rest()
    assert world.take() == [
        "post a-0+a-1", "split a-0+a-1", "post a-0", "settled a-0", "post a-1", "settled a-1",
    ]  # fmt: skip
    assert close(world, flight) == Outcome(accepted=2, requests=3)
    world.wire.answers += [(NEVER, 202), (0.0, 413)]
    other = new_flight(world)
    send(world, other, "b", events=2)
    world.outbox.look()
    world.turns.sleep(2.0)
    world.turns.rest()
    close(world, other)
    world.turns.sleep(4.0)
    happened = world.take()
    again = happened.index("post b-0+b-1 anew")
    assert happened[again : again + 3] == [
        "post b-0+b-1 anew", "log b-0+b-1 SPLIT", "split b-0+b-1",
    ]  # fmt: skip


def test_a_rejected_batch_that_nobody_waits_for_is_told_of(new_world: NewWorld) -> None:
    """By the hook, whose thread the outbox does not wait for."""
    world = new_world(journal=True)
    world.wire.answers.append((0.0, 400))
    world.outbox.keep(batch(batch_id="a"), ErrorKind.TIMEOUT)
    world.outbox.redeliver()
    world.turns.rest()
    assert world.take() == ["log a-0 TIMEOUT", "post a-0", "settled a"]
    assert [error.event_ids for error in world.errors] == [("a-0",)]


def test_what_is_not_to_be_written_down_keeps_its_reason(new_world: NewWorld) -> None:
    """Without dead letters there is nothing to gather, and nothing to be logged as."""
    world = new_world(dead_letter="off")
    world.outbox.keep(batch(batch_id="a"), ErrorKind.TIMEOUT)
    world.outbox.redeliver()
    world.turns.rest()
    assert world.take() == ["log a-0 TIMEOUT", "post a-0"]


def test_what_had_no_room_in_the_log_is_written_down_later(new_world: NewWorld) -> None:
    """It is not taken for written."""
    world = new_world()
    world.wire.otherwise = (0.0, 500)
    letters: Any = world.outbox._dead_letters
    letters.has_room = False
    world.outbox.keep(batch(batch_id="a"), ErrorKind.TIMEOUT)
    letters.has_room = True
    world.outbox.write_down_all(1.5)
    world.outbox.write_down_all(1.5)
    assert [one for one in world.take() if "post" not in one] == [
        "log a-0 TIMEOUT", "log a-0 TIMEOUT", "written within 1.5", "written within 1.5",
    ]  # fmt: skip


def test_what_a_process_gives_up_stays_in_its_journal(new_world: NewWorld) -> None:
    """For the next process to try; that it is settled is not noted."""
    world = new_world(journal=True)
    flight = new_flight(world, budget_s=1_000.0)
    send(world, flight, "bad")
    world.wire.otherwise = (0.0, lambda one: 500 if one.id == "bad" else 202)
    for number in range(40):
        send(world, flight, f"well{number}")
        world.turns.sleep(10.0)
        world.outbox.look()
    world.turns.rest()
    assert "settled bad" not in world.diary
    assert "log bad-0 TRANSPORT_ERROR" in world.diary
    assert "settled well1" in world.diary
    outcome = close(world, flight)
    assert (outcome.accepted, outcome.unsent) == (40, {"TRANSPORT_ERROR": 1})
    assert str(world.errors[-1]).startswith("1 event not delivered: it cannot be delivered")
    assert not world.outbox.has_in_hand


# ── sending ─────────────────────────────────────────────────────────────────────────────────────


def test_one_thread_sends_one_batch_after_the_other(world: World) -> None:
    """As long as there are more than travel at once."""
    world.wire.otherwise = (0.25, 202)
    flight = new_flight(world)
    send(world, flight, *"abcdefgh")
    world.turns.sleep(0.25)
    world.turns.rest()
    assert world.take() == [f"post {one}-0" for one in "abcdefgh"]
    world.turns.sleep(0.25)
    world.turns.rest()
    assert (close(world, flight), world.turns.started) == (Outcome(accepted=8, requests=8), 4)


def test_no_thread_can_be_had(world: World, turns: Turns) -> None:
    """The batch is kept at once, and who waits for it is woken."""
    flight = new_flight(world)
    woken: list[float] = []
    flight.wake = lambda: woken.append(turns.clock.now)
    turns.can_start = False
    send(world, flight, "a")
    assert (world.take(), woken) == (["log a-0 TIMEOUT"], [1_000.0])
    assert close(world, flight) == Outcome(unsent={"TIMEOUT": 1}, backlog=1)
    assert str(world.errors[0]).endswith("the system starts no more threads")
    turns.can_start = True
    turns.clock.now += 2.0
    world.outbox.redeliver()
    turns.rest()
    assert (world.take()[-1], world.outbox.kept_events) == ("post a-0", 0)


def test_a_batch_that_is_settled_is_not_sent_again(world: World) -> None:
    """An attempt that was ordered beside another finds that nobody wants it."""
    flight = new_flight(world)
    (attempt,) = world.outbox.add(flight, batch(batch_id="a"))
    state = world.outbox.state
    world.outbox.send(attempt, state)
    world.outbox.send(attempt, state)
    assert world.take() == ["post a-0"]


def test_what_was_ordered_before_a_restore_is_not_sent_after_it(world: World) -> None:
    """It is another process's; an answer that comes after it changes nothing here."""
    flight = new_flight(world)
    state = world.outbox.state
    attempts = world.outbox.add(flight, batch(batch_id="a"))
    world.wire.answers.append((0.5, 202))
    send(world, flight, "b")
    world.turns.sleep(0.25)
    world.turns.rest()
    world.outbox.begin_anew()
    world.outbox.send(attempts[0], state)
    world.turns.sleep(0.5)
    world.turns.rest()
    assert world.take() == ["post b-0", "close"]
    assert (list(flight.pending), world.outbox.has_in_hand) == (["a", "b"], False)
    assert world.outbox.state is not state


def test_a_silent_kept_connection_is_doubted(world: World) -> None:
    """Someone looks: a second POST goes out on a new connection, and the first answer counts."""
    world.wire.is_reused = True
    world.wire.answers += [(NEVER, 202), (0.25, 202)]
    flight = new_flight(world)
    woken: list[float] = []
    flight.wake = lambda: woken.append(world.turns.clock.now)
    send(world, flight, "a")
    world.turns.rest()
    assert (world.outbox.pause_s(flight), woken) == (0.5, [1_000.0])
    world.turns.sleep(0.5)
    world.turns.rest()
    world.outbox.look()
    world.turns.sleep(0.25)
    world.turns.rest()
    assert world.take() == ["post a-0", "post a-0 anew"]
    assert world.outbox.pause_s(flight) is None
    assert close(world, flight) == Outcome(accepted=1, requests=2)


def test_what_hangs_is_cut_off(new_world: NewWorld) -> None:
    """After the timeout, by whoever looks."""
    world = new_world(timeout=4.0)
    world.wire.answers.append((NEVER, 202))
    flight = new_flight(world, budget_s=8.0)
    send(world, flight, "a")
    world.turns.rest()
    for _ in range(5):
        world.turns.sleep(1.0)
        world.outbox.look()
    world.turns.rest()
    assert world.take()[:2] == ["post a-0", "cut off"]
    world.turns.sleep(1.0)
    world.turns.rest()
    world.outbox.look()
    world.turns.rest()
    assert close(world, flight) == Outcome(accepted=1, requests=2)


def test_trouble_with_the_key_is_not_the_servers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told by the flush, and nothing is sent."""
    from doow_serverless._delivery.results import Failed

    trouble = Failed(ErrorKind.AUTH_FAILURE, "the store is away", 5.0, is_unsent=True)
    asked: list[bool] = []

    def prepare() -> Failed | None:
        asked.append(world.outbox.sender.is_ready)
        return trouble if len(asked) == 1 else None

    monkeypatch.setattr(world.outbox.sender, "prepare", prepare)
    flight = new_flight(world)
    send(world, flight, "a")
    world.turns.rest()
    assert (world.take(), world.outbox.pause_s(flight), asked) == ([], None, [False])
    outcome = close(world, flight)
    assert outcome == Outcome(unsent={"AUTH_FAILURE": 1}, requests=1, backlog=1)


def test_what_is_ready_stays_ready(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key and the transport are asked for once; a log key elsewhere, each time, aside."""
    fetched: list[int] = []
    flight = new_flight(world)
    send(world, flight, "a")
    world.turns.rest()
    monkeypatch.setattr(world.outbox.sender, "prepare", lambda: 1 / 0)
    monkeypatch.setattr(world.outbox.log_key, "fetch_aside", lambda: fetched.append(1))
    send(world, flight, "b")
    world.turns.rest()
    assert (world.take(), fetched) == (["post a-0", "post b-0"], [])
    monkeypatch.setattr(world.outbox.log_key, "kept", object())
    send(world, flight, "c")
    world.turns.rest()
    assert (close(world, flight).accepted, fetched) == (3, [1])


@pytest.mark.contains
def test_a_fault_while_sending_is_contained(
    world: World, contained_faults: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits learns of it at once; the batch is kept."""

    def fail() -> bool:
        raise MemoryError

    flight = new_flight(world)
    monkeypatch.setattr(world.outbox.sender, "reuses_connection", fail)
    send(world, flight, "a")
    world.turns.rest()
    assert world.outbox.pause_s(flight) is None
    assert contained_faults == ["a fault of doow-serverless itself in sending: MemoryError()"]
    assert close(world, flight) == Outcome(unsent={"TIMEOUT": 1}, backlog=1)
    assert world.kinds() == ["TIMEOUT 1 event not delivered: a fault of doow-serverless"]
    assert [entry.is_ambiguous for entry in world.outbox.state.kept] == [False]


def test_events_that_could_not_be_sealed_are_on_account(world: World) -> None:
    """And off the hands of their buffer."""
    released: list[int] = []
    flight = new_flight(world, released)
    world.outbox.note_late(flight, 3)
    assert close(world, flight) == Outcome(unsent={"TIMEOUT": 3})
    assert (released, [error.kind for error in world.errors]) == ([3], [ErrorKind.TIMEOUT])


def test_one_flight_accounts_for_another(world: World) -> None:
    """For what left before anyone waited; what follows from that is to be sent."""
    early = Flight(lambda _: None, world.outbox)
    world.wire.answers.append((0.5, 202))
    send(world, early, "a")
    world.turns.sleep(0.25)
    world.turns.rest()
    flight = new_flight(world)
    assert world.outbox.join(flight, early) == []
    assert (early.is_closed, list(flight.pending)) == (True, ["a"])
    world.turns.sleep(0.25)
    world.turns.rest()
    assert close(world, flight) == Outcome(accepted=1, requests=1)


# ── time ────────────────────────────────────────────────────────────────────────────────────────


def test_time_for_which_the_process_was_frozen_is_nobodys(world: World) -> None:
    """A gap between two facts shows it: what is waited for ends so much later."""
    world.wire.answers.append((NEVER, 202))
    flight = new_flight(world)
    send(world, flight, "a")
    world.turns.rest()
    world.turns.freeze(60.0)
    for _ in range(3):
        world.outbox.look()
    assert flight.ends_at == 1_062.0
    world.turns.sleep(1.0)
    world.outbox.look()
    assert flight.ends_at == 1_062.0
    world.turns.sleep(0.25)
    world.turns.freeze(30.0)
    world.outbox.look()
    assert flight.ends_at == 1_092.25


def test_what_is_under_way_is_watched(world: World) -> None:
    """Each half second, so that nobody takes it for frozen; what is not watched, for that alone."""
    world.wire.answers += [(4.0, 202)] * 2
    flight = new_flight(world, budget_s=8.0)
    send(world, flight, "a")
    world.outbox.look()
    started = world.turns.started
    world.turns.sleep(4.0)
    world.turns.rest()
    assert world.turns.started - started == 8
    assert (flight.ends_at, close(world, flight).accepted) == (1_008.0, 1)
    assert repr(world.outbox.state._pace).startswith("Pace(4.0,")
    early = Flight(lambda _: None, world.outbox)
    send(world, early, "b")
    world.turns.sleep(4.0)
    world.turns.rest()
    # 4 s that were none: an eighth of the way from what was before.
    assert repr(world.outbox.state._pace).startswith("Pace(3.5,")


def test_it_is_watched_once(world: World) -> None:
    """However many look, and again after a restore; where nothing is under way, not at all."""
    calls: list[float] = []
    world.turns.call_at = lambda at, call: calls.append(at)  # type: ignore[method-assign]
    world.outbox.look()
    world.outbox.watch()
    assert calls == []
    world.wire.otherwise = (NEVER, 202)
    for one in "ab":
        send(world, new_flight(world), one)
        for _ in range(3):
            world.outbox.watch()
            world.outbox.look()
    assert calls == [1_000.5]
    world.outbox.begin_anew()
    send(world, new_flight(world), "c")
    world.outbox.watch()
    assert calls == [1_000.5] * 2


def test_waiting_ends_with_the_budget(world: World) -> None:
    """And looks when it is time to: what has failed goes out again meanwhile."""
    world.wire.answers += [(0.25, 500), (NEVER, 202)]
    flight = Flight(lambda _: None, world.outbox)
    send(world, flight, "a")
    world.outbox.wait(flight, Budget(2.0, world.turns.clock))
    assert world.turns.clock.now == 1_002.0
    assert world.take() == ["post a-0", "post a-0 anew"]
    assert close(world, flight).unsent == {"TRANSPORT_ERROR": 1}


def test_waiting_ends_with_the_answer(world: World) -> None:
    """At once."""
    world.wire.answers.append((0.25, 202))
    flight = Flight(lambda _: None, world.outbox)
    send(world, flight, "a")
    world.outbox.wait(flight, Budget(2.0, world.turns.clock))
    assert (world.turns.clock.now, close(world, flight).accepted) == (1_000.25, 1)


@pytest.mark.parametrize(("frozen_s", "gap_s"), [(0.5, 0.0), (0.625, 1.125), (60.0, 60.5)])
def test_waiting_goes_on_after_a_freeze(world: World, frozen_s: float, gap_s: float) -> None:
    """What is missing is added to the budget, if it is more than a second."""
    world.wire.answers.append((NEVER, 202))
    flight = Flight(lambda _: None, world.outbox)
    send(world, flight, "a")
    budget = Budget(2.0, world.turns.clock)
    world.turns.at(1.25, lambda: world.turns.freeze(0.25 + frozen_s))
    world.outbox.wait(flight, budget)
    ends_at = 1_002.0 + gap_s
    assert (budget.ends_at, flight.ends_at, world.turns.clock.now) == (ends_at,) * 3


# ── what nobody waits for ───────────────────────────────────────────────────────────────────────


def test_the_backlog_is_sent_by_rescuers(world: World) -> None:
    """They look, since no flush does; where there is nothing, no thread is asked."""
    world.outbox.redeliver()
    assert world.turns.started == 0
    world.wire.answers.append((0.0, 500))
    world.outbox.keep(batch(batch_id="a"), ErrorKind.TIMEOUT)
    world.outbox.redeliver()
    world.turns.rest()
    world.turns.sleep(90.0)
    world.turns.rest()
    assert world.take() == ["log a-0 TIMEOUT", "post a-0"]
    world.outbox.redeliver()
    world.turns.rest()
    assert world.take() == ["post a-0 anew"]


def test_what_crashed_processes_have_left(new_world: NewWorld) -> None:
    """It is taken over and sent; when it is gone, there may be more."""
    options = {"max_payload_bytes": 5_000, "disable_compression": True, "delivery": "log"}
    world = new_world(journal=True, **options)
    world.journal.left += [[batch(batch_id="a"), batch(batch_id="b")], [batch(batch_id="c")]]
    send(world, new_flight(world), "before")
    world.turns.rest()
    assert (world.take(), world.journal.asked) == (["post before-0", "settled before"], {})
    world.outbox.recover()
    assert world.journal.asked == {"max_bytes": 5_000, "max_packed": 2_650, "compress": False}
    world.turns.rest()
    assert world.take() == [
        "post a-0", "settled a", "post b-0", "settled b", "post c-0", "settled c",
    ]  # fmt: skip
    world.journal.left.append([batch(batch_id="d")])
    flight = new_flight(world)
    send(world, flight, "e")
    world.turns.rest()
    assert world.take() == ["post e-0", "settled e"]


def test_who_has_no_journal_recovers_nothing(world: World) -> None:
    """No thread is asked."""
    world.outbox.recover()
    assert (world.turns.started, world.take()) == (0, [])


def test_what_a_crash_has_left_may_stand_in_its_log(new_world: NewWorld) -> None:
    """It is written down when it is given up, and said to be halved when it is."""
    world = new_world(journal=True)
    world.journal.left.append([batch(2, batch_id="a")])
    world.wire.answers.append((0.0, 413))
    world.outbox.recover()
    world.turns.rest()
    assert world.take()[:3] == ["post a-0+a-1", "log a-0+a-1 SPLIT", "split a-0+a-1"]


# ── successors ──────────────────────────────────────────────────────────────────────────────────


def test_a_successor_delivers_what_is_kept(new_world: NewWorld) -> None:
    """Its journal has it before the other's forgets it; it is not written down again."""
    first = new_world(journal=True)
    second = new_world(journal=True, diary=first.diary)
    first.wire.otherwise = (0.0, 500)
    flight = new_flight(first)
    send(first, flight, "a")
    first.turns.rest()
    first.turns.sleep(2.0)
    first.turns.rest()
    close(first, flight)
    first.take()
    second.outbox.take_over(first.outbox)
    second.outbox.redeliver()
    first.turns.rest()
    assert first.take() == ["sealed a-0", "settled a", "close", "post a-0", "settled a-0"]
    assert (first.outbox.has_in_hand, second.outbox.has_in_hand) == (False, False)
    assert (len(first.wire.events), len(second.wire.events)) == (0, 1)


def test_a_successor_writes_down_what_is_not(new_world: NewWorld) -> None:
    """What stands in no log, as that had no room, is written by the successor."""
    first = new_world()
    second = new_world(diary=first.diary)
    for world in (first, second):
        world.wire.otherwise = (NEVER, 202)
    letters: Any = first.outbox._dead_letters
    letters.has_room = False
    flight = new_flight(first)
    first.turns.can_start = False
    send(first, flight, "a")
    second.outbox.take_over(first.outbox)
    first.take()
    second.outbox.write_down_all(1.0)
    assert first.take() == ["log a-0 TIMEOUT", "written within 1.0"]


def test_a_successor_writes_down_nothing_twice(new_world: NewWorld) -> None:
    """What stands in the log already, as what it stands there for."""
    first = new_world(delivery="log")
    second = new_world(delivery="log", diary=first.diary)
    first.outbox.keep(batch(batch_id="a"), ErrorKind.NOT_READY)
    second.outbox.take_over(first.outbox)
    second.outbox.write_down_all(1.0)
    assert first.take() == ["log a-0 NOT_READY", "close", "written within 1.0"]
    (entry,) = second.outbox.state.kept
    assert (entry.is_written, entry.logged_as) == (True, ErrorKind.NOT_READY)


def test_all_frames_of_a_batch_are_for_the_log_or_none_is(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay may gather the events of a frame for the log, and then another counts again."""
    world = new_world(delivery="log")
    reasons: list[object] = []
    answers = iter([ERROR_500, None, None])

    def write(one: Any, *, fresh: bool, reason: object) -> Any:
        reasons.append((one.id, fresh, reason))
        return next(answers) or accepted(one)

    monkeypatch.setattr(world.outbox.sender, "send", write)
    flight = new_flight(world)
    send(world, flight, "a")
    world.turns.rest()
    close(world, flight)
    world.outbox.keep(batch(batch_id="b"), ErrorKind.NOT_READY)
    world.turns.sleep(90.0)
    for _ in range(2):
        world.outbox.look()
        world.turns.rest()
    assert reasons == [("a", False, "LOG"), ("b", True, "NOT_READY"), ("a", True, "LOG")]
    assert [one for one in world.take() if "log" in one] == ["log a-0 LOG", "log b-0 NOT_READY"]
    without = new_world(delivery="log", dead_letter="off")
    monkeypatch.setattr(without.outbox.sender, "send", write)
    without.outbox.keep(batch(batch_id="c"), ErrorKind.NOT_READY)
    answers = iter([None])
    without.outbox.look()
    world.turns.rest()
    assert reasons[3:] == [("c", False, "LOG")]


def test_what_is_under_way_stays_until_it_has_come_back(new_world: NewWorld) -> None:
    """Then what failed is the successor's; the last of them forgets who was before."""
    first, second, third = new_world(), new_world(), new_world()
    first.wire.answers.append((0.375, 500))
    first.outbox.keep(batch(batch_id="a"), ErrorKind.TIMEOUT)
    first.outbox.redeliver()
    first.turns.sleep(0.25)
    first.turns.rest()
    second.outbox.take_over(first.outbox)
    assert (second.outbox.kept_events, second.outbox.has_in_hand) == (0, True)
    third.outbox.take_over(second.outbox)
    first.turns.sleep(0.1875)
    assert third.outbox.kept_events == 1
    first.turns.sleep(0.5)
    first.turns.rest()
    third.outbox.redeliver()
    first.turns.sleep(60.0)
    first.turns.rest()
    assert [len(one.wire.events) for one in (first, second, third)] == [0, 0, 1]
    assert [one.outbox.has_in_hand for one in (first, second, third)] == [False] * 3


def test_a_flush_that_gives_up_leaves_to_the_successor(new_world: NewWorld) -> None:
    """As does whoever keeps a batch with an outbox that is replaced."""
    first, second = new_world(), new_world()
    first.wire.answers.append((NEVER, 202))
    flight = new_flight(first)
    send(first, flight, "a")
    first.turns.rest()
    second.outbox.take_over(first.outbox)
    first.outbox.keep(batch(batch_id="b"), ErrorKind.TIMEOUT)
    second.outbox.redeliver()
    first.turns.sleep(1.0)
    first.turns.rest()
    assert [event["event_id"] for event in second.wire.events] == ["b-0"]
    assert second.outbox.has_in_hand
    first.turns.sleep(1.0)
    first.turns.rest()
    assert close(first, flight).unsent == {"TIMEOUT": 1}


# ── the end of the process ──────────────────────────────────────────────────────────────────────


def test_the_last_words_of_a_process(new_world: NewWorld) -> None:
    """All is sent once more, whoever waits; a part of the budget is left for writing the rest."""
    world = new_world()
    world.wire.answers += [(0.0, 500), (NEVER, 202)]
    world.outbox.keep(batch(batch_id="a"), None)  # type: ignore[arg-type]  # it is in no log
    world.outbox.redeliver()
    world.turns.rest()
    world.take()
    budget = Budget(2.0, world.turns.clock)
    world.outbox.deliver_last(budget, 1.0)
    assert world.turns.clock.now == pytest.approx(1_001.97, abs=0.001)
    assert budget.ends_at == 1_002.0
    happened = world.take()
    assert happened[:2] == ["post a-0 anew", "log a-0 TRANSPORT_ERROR"]
    assert float(happened[2].rpartition(" ")[2]) == pytest.approx(1.03, abs=0.001)


def test_most_of_a_small_budget_is_for_sending(world: World) -> None:
    """Half of it, where writing would take more."""
    world.wire.otherwise = (NEVER, 202)
    world.outbox.keep(batch(batch_id="a"), ErrorKind.TIMEOUT)
    world.outbox.deliver_last(Budget(0.03125, world.turns.clock))
    assert world.turns.clock.now == 1_000.015625
    assert world.take()[-1] == "written within 0.015625"


def test_the_time_for_writing_grows_with_what_there_is(world: World) -> None:
    """A tenth of a second for each 400 kB."""
    world.wire.otherwise = (NEVER, 202)
    large = batch(batch_id="a", noise=400_000, compress=False)
    world.outbox.submit_all(world.outbox.add(new_flight(world), large))
    world.outbox.deliver_last(Budget(2.0, world.turns.clock))
    assert world.turns.clock.now == pytest.approx(1_001.87, abs=0.001)


def test_a_predecessor_writes_down_as_well(new_world: NewWorld) -> None:
    """What it has under way, and nobody will hear of."""
    first = new_world()
    second = new_world(diary=first.diary)
    first.wire.answers.append((NEVER, 202))
    send(first, new_flight(first), "a")
    first.turns.rest()
    second.outbox.take_over(first.outbox)
    first.take()
    second.outbox.deliver_last(Budget(2.0, first.turns.clock), 1.0)
    assert first.take() == [
        "written within 3.0", "log a-0 TIMEOUT", "close", "written within 3.0",
    ]  # fmt: skip
    assert first.turns.clock.now == 1_000.0


@pytest.mark.parametrize("options", [{"environ": {"DOOW_TRACK_ENDPOINT": "wrong"}}])
def test_what_cannot_be_sent_is_written_down_at_once(
    new_world: NewWorld, options: dict[str, Any]
) -> None:
    """The last flush does not try, either."""
    world = new_world(**options)
    flight = new_flight(world)
    send(world, flight, "a")
    world.turns.rest()
    assert world.outbox.pause_s(flight) is None
    outcome = close(world, flight)
    assert (outcome.unsent, outcome.backlog) == ({"TRANSPORT_ERROR": 1}, 1)
    world.outbox.deliver_last(Budget(2.0, world.turns.clock))
    assert [one for one in world.take() if "post" in one] == []
    assert world.turns.clock.now == 1_000.0


def test_an_outbox_begins_anew_with_nothing(world: World) -> None:
    """In a child of a fork, and in a restored process; connections are not its own, either."""
    world.wire.otherwise = (NEVER, 202)
    flight = new_flight(world)
    send(world, flight, "a")
    workers, lock = world.outbox.workers, world.outbox._lock
    world.outbox.begin_anew()
    assert (world.outbox.has_in_hand, world.outbox.workers is workers) == (False, True)
    world.outbox.reset_after_fork()
    assert (world.outbox.workers is workers, world.outbox._lock is lock) == (False, False)
    assert world.outbox.rescuers is not workers
    assert world.take().count("close") == 2
    assert world.outbox.is_loaded is False


def test_dead_letters_are_written_as_the_configuration_says(new_world: NewWorld) -> None:
    """Where, how long a line may be, of which level, and with which key."""
    environ = {"VERCEL": "1", "AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "WARN"}
    world = new_world(dead_letter="/tmp/letters", environ=environ)
    letters: Any = world.outbox._dead_letters
    how = {"limit": 3_800, "least_level": "WARN", "log_key": world.outbox.log_key}
    assert letters.asked == ("/tmp/letters", how)


@pytest.mark.parametrize(
    ("delivery", "is_given", "expected"),
    [
        ("direct", False, Sender),
        ("log", False, LogSender),
        ("direct", True, Sender),
        ("log", True, Sender),
    ],
)
def test_who_sends(new_world: NewWorld, delivery: str, is_given: bool, expected: type) -> None:
    """The log's sender where the log is all there is, and no transport was given."""
    world = new_world(delivery=delivery)
    given = world.wire if is_given else None
    made = Outbox(world.config, Credentials(KEY), None, given, world.turns.clock)
    assert type(made.sender) is expected


def test_a_sender_to_the_log_writes_there(
    new_world: NewWorld, capfd: pytest.CaptureFixture[str]
) -> None:
    """Signed with the key of the configuration."""
    world = new_world(delivery="log", log_key="lk_" + "0" * 64)
    made = Outbox(world.config, Credentials(KEY), None, None, world.turns.clock)
    made.load()
    assert isinstance(made.sender.send(batch(batch_id="a")), Settled)
    (letter,) = letters_in(capfd.readouterr().out)
    assert letter.batch.id == "a"


def test_nothing_is_sent_to_a_wrong_endpoint(new_world: NewWorld) -> None:
    """Whoever asks all the same hears why."""
    world = new_world(environ={"DOOW_TRACK_ENDPOINT": "wrong"})
    made = Outbox(world.config, Credentials(KEY), None, None, world.turns.clock)
    trouble = made.sender.prepare()
    assert trouble is not None
    assert trouble.message == "DOOW_TRACK_ENDPOINT is wrong"


def test_who_debugs_sees_what_is_under_way(world: World) -> None:
    """In the repr."""
    assert repr(world.outbox) == f"Outbox({world.outbox.state!r}, {world.outbox.workers!r})"


# ── imports and forks ───────────────────────────────────────────────────────────────────────────


def test_a_fork_waits_for_imports(world: World) -> None:
    """And keeps others from it until it is over."""
    loading = world.outbox._transport.loading
    world.outbox.before_fork()
    assert not loading.acquire(blocking=False)
    world.outbox.after_fork_in_parent()
    assert loading.acquire(blocking=False)
    loading.release()


@pytest.mark.parametrize(("imported_s", "waits_s"), [(2.0, 2.0), (60.0, 5.0)])
def test_a_fork_does_not_wait_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch, imported_s: float, waits_s: float
) -> None:
    """Five seconds; a lock that another thread holds by then stays what it is."""
    turns = world.turns
    loading = turns.lock()
    fetching = turns.lock()
    monkeypatch.setattr(world.outbox._transport, "loading", loading)
    monkeypatch.setattr(world.outbox.log_key, "kept", SimpleNamespace(importing=fetching))
    assert loading.acquire()
    if imported_s > waits_s:
        assert fetching.acquire()
    turns.at(imported_s, loading.release)
    world.outbox.before_fork()
    assert turns.clock.now == 1_000.0 + waits_s
    world.outbox.after_fork_in_parent()
    assert loading.is_set() is (waits_s == imported_s)


def test_what_cannot_be_imported_is_told_with_the_events(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By debugging before that; the next flush tries again."""
    world = new_world(debug=True)
    assert not world.outbox.is_loaded
    with monkeypatch.context() as patch:

        def fail() -> None:
            raise ImportError("no requests")

        patch.setattr(world.outbox._transport, "load", fail)
        world.outbox.load()
        world.config.debug = False
        world.outbox.load()
    assert not world.outbox.is_loaded
    assert caplog.messages == ["sending is not ready: ImportError('no requests')"]
    with monkeypatch.context() as patch:

        def interrupt() -> None:
            raise KeyboardInterrupt

        patch.setattr(world.outbox._transport, "load", interrupt)
        with pytest.raises(KeyboardInterrupt):
            world.outbox.load()
    world.outbox.load()
    assert world.outbox.is_loaded
