"""The promises of the README, on every adapter: answers, exceptions, delivery, isolation, time."""

from __future__ import annotations

import contextvars
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless.errors import ConfigurationError
from doow_serverless.local import Fault
from tests.metering import (
    Trace,
    accepted,
    configure,
    configure_endpoint,
    metrics,
    owners,
    per_post,
    unmetered,
)
from tests.network import Metronome, Server, silent
from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from doow_serverless.local import Ingest
    from tests.conformance.adapters import Adapter

BUDGET_S = 0.3
SLACK_S = 0.1


class Client:
    """Writes down what it gets, and how many events had been accepted by then."""

    def __init__(self, ingest: Ingest | None = None) -> None:
        self._ingest = ingest
        self.pieces: list[tuple[str, int]] = []
        self.accepted_when_over: int | None = None

    def got(self, piece: str) -> None:
        self.pieces.append((piece, self._accepted()))

    def over(self) -> None:
        self.accepted_when_over = self._accepted()

    @property
    def answer(self) -> str:
        return "".join(piece for piece, _ in self.pieces)

    def _accepted(self) -> int:
        return 0 if self._ingest is None else len(self._ingest.events())


def work(name: str) -> Iterator[str]:
    """Record two events in the name of the request, and answer with it in two pieces."""
    doow.track("begun", attribution={"request": name})
    yield "the answer "
    doow.track("ended", attribution={"request": name})
    yield f"to {name}"


class Trouble(Exception):
    """What handlers raise here."""


def failing(problem: BaseException) -> Callable[[str], Iterator[str]]:
    """Work that records and then raises, after a piece of its answer."""

    def fails(name: str) -> Iterator[str]:
        doow.track("tokens")
        yield "some "
        deep_inside()

    def deep_inside() -> None:
        raise problem

    return fails


def test_the_answer_is_that_of_the_bare_handler(adapter: Adapter, ingest: Ingest) -> None:
    """Metered or not, the client gets the same pieces."""
    configure(ingest)
    metered, bare = Client(), Client()
    with adapter.wrap(work) as call:
        call("/1", metered)
        with unmetered():
            call("/1", bare)
    assert metered.pieces == bare.pieces
    assert metered.answer == "the answer to /1"


def test_all_is_delivered_before_the_answer_is_complete(adapter: Adapter, ingest: Ingest) -> None:
    """In one POST, which a slow ingest has answered when the client learns that it has all."""
    Trace(ingest)
    client = Client(ingest)
    with adapter.wrap(work) as call:
        call("/1", client)
    assert client.accepted_when_over == 2
    assert per_post(ingest) == [["begun", "ended"]]


def test_no_events_cost_no_post(adapter: Adapter, ingest: Ingest) -> None:
    """A handler that records nothing sends nothing."""
    configure(ingest)
    client = Client()
    with adapter.wrap(lambda name: iter([name])) as call:
        call("/1", client)
    assert (client.answer, ingest.posts()) == ("/1", [])


def test_pieces_are_not_delayed(streaming_adapter: Adapter, ingest: Ingest) -> None:
    """A piece that does not complete the answer is with the client before the handler goes on."""
    Trace(ingest)
    client, seen = Client(ingest), []

    def streaming(name: str) -> Iterator[str]:
        for number in range(3):
            doow.track("tokens")
            yield f"{number} "
            seen.append(len(client.pieces))

    with streaming_adapter.wrap(streaming) as call:
        call("/1", client)
    assert client.pieces == [("0 ", 0), ("1 ", 0), ("2 ", 0)]
    assert seen == [1, 2, 3]
    assert per_post(ingest) == [["tokens"] * 3]


@pytest.mark.parametrize("kind", [Trouble, KeyboardInterrupt, SystemExit])
def test_an_exception_is_the_very_same_once_all_is_delivered(
    adapter: Adapter, kind: type[BaseException], ingest: Ingest
) -> None:
    """Not chained, with the user's frames at its end, and after the events are accepted."""
    Trace(ingest)
    problem, client = kind("at /1"), Client(ingest)
    with adapter.wrap(failing(problem)) as call, pytest.raises(kind) as raised:
        call("/1", client)
    assert raised.value is problem
    assert (problem.__context__, problem.__cause__) == (None, None)
    assert [entry.name for entry in raised.traceback][-2:] == ["fails", "deep_inside"]
    assert client.accepted_when_over == 1
    assert accepted(ingest) == ["tokens"]


@pytest.mark.parametrize("fault", [Fault(status=400, times=None), Fault(hang=True, times=None)])
def test_an_exception_is_not_masked_by_a_failed_flush(
    adapter: Adapter, fault: Fault, ingest: Ingest
) -> None:
    """Whether events are refused or stay unsent, it comes out of the handler as it went in."""
    configure(ingest, dead_letter="off", budget=BUDGET_S)
    ingest.fault(fault)
    problem = Trouble("at /1")
    with adapter.wrap(failing(problem)) as call, pytest.raises(Trouble) as raised:
        call("/1", Client())
    assert (raised.value, problem.__context__, problem.__cause__) == (problem, None, None)


def test_discard_forgets_what_failed(adapter: Adapter, ingest: Ingest) -> None:
    """Its own metric too; what succeeds afterwards counts."""
    configure(ingest)
    problem = Trouble("at /1")

    def sometimes(name: str) -> Iterator[str]:
        return failing(problem)(name) if name == "/1" else work(name)

    with adapter.wrap(sometimes, on_exception="discard", metric="calls") as call:
        with pytest.raises(Trouble):
            call("/1", Client())
        call("/2", Client())
    assert accepted(ingest) == ["calls", "begun", "ended"]


def test_invocations_at_once_do_not_mix(adapter: Adapter, ingest: Ingest) -> None:
    """Each POST is of one request, none is lost, and no answer is another's."""
    names = [f"/{number}" for number in range(20)]
    configure(ingest)
    all_are_in = threading.Barrier(len(names))

    def together(name: str) -> Iterator[str]:
        all_are_in.wait(30)
        yield from work(name)

    clients = {name: Client() for name in names}
    with adapter.wrap(together) as call:
        threads = [threading.Thread(target=call, args=each) for each in clients.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert [clients[name].answer for name in names] == [f"the answer to {name}" for name in names]
    assert sorted(owners(ingest), key=str) == sorted([{name} for name in names], key=str)
    assert len(ingest.events()) == 2 * len(names)


def test_one_invocation_after_another_keeps_its_own(adapter: Adapter, ingest: Ingest) -> None:
    """On one thread; and what is recorded in between is nobody's, and leaves with the next."""
    configure(ingest)
    with adapter.wrap(work, attribution={"inside": "yes"}) as call:
        call("/1", Client())
        doow.track("between")
        call("/2", Client())
    inside = [
        (event["measurements"][0]["metric_name"], event.get("attribution", {}).get("inside"))
        for event in ingest.events()
    ]
    assert sorted(inside, key=str) == sorted(
        [("begun", "yes"), ("ended", "yes"), ("between", None), ("begun", "yes"), ("ended", "yes")],
        key=str,
    )
    assert sorted(per_post(ingest)[0]) == ["begun", "ended"]


def test_what_comes_late_leaves_with_the_next_flush(adapter: Adapter, ingest: Ingest) -> None:
    """A thread that outlives its invocation records in its name, and no event is lost."""
    configure(ingest)
    may_record, threads = threading.Event(), []

    def leaving_a_thread(name: str) -> Iterator[str]:
        def late() -> None:
            may_record.wait(30)
            doow.track("late", attribution={"request": name})

        threads.append(threading.Thread(target=contextvars.copy_context().run, args=[late]))
        threads[-1].start()
        yield from work(name)

    with adapter.wrap(leaving_a_thread) as call:
        call("/1", Client())
        may_record.set()
        threads[0].join(30)
        assert per_post(ingest) == [["begun", "ended"]]
        call("/2", Client())
        threads[1].join(30)
        doow.flush()
    late = [event for event in ingest.events() if event["attribution"]["request"] == "/1"]
    assert len(late) == 3
    assert sorted(accepted(ingest)) == ["begun"] * 2 + ["ended"] * 2 + ["late"] * 2


def test_the_tracker_is_asked_for_at_each_call(adapter: Adapter, ingest: Ingest) -> None:
    """A handler may be wrapped before its module calls ``configure``, and that again."""
    with adapter.wrap(work) as call:
        for license_id in ("lic_a", "lic_b"):
            configure(ingest, license_id=license_id)
            call("/1", Client())
    assert [event["license_id"] for event in ingest.events()] == ["lic_a"] * 2 + ["lic_b"] * 2


def test_the_options_of_tracked(adapter: Adapter, ingest: Ingest) -> None:
    """License, attribution, and one event of the metric for each invocation."""
    configure(ingest, attribution={"team": "core"})
    options: dict[str, Any] = {"metric": "calls", "license_id": "lic_2", "attribution": {"a": "b"}}
    with adapter.wrap(lambda name: iter([name]), **options) as call:
        call("/1", Client())
        call("/2", Client())
    assert [
        (metrics([event]), event["license_id"], event["attribution"]) for event in ingest.events()
    ] == [(["calls"], "lic_2", {"team": "core", "a": "b"})] * 2


@pytest.mark.parametrize("option", [{"buget": 1}, {"budget": -1}, {"on_exception": "ignore"}])
def test_a_wrong_option_is_refused_at_once(adapter: Adapter, option: dict[str, Any]) -> None:
    """Where the handler is wrapped, by its name."""
    wrapping = adapter.wrap(work, **option)
    with pytest.raises(ConfigurationError, match=next(iter(option))):
        wrapping.__enter__()


def test_a_tracker_of_its_own(
    adapter: Adapter, ingest: Ingest, new_tracker: Callable[..., doow.Tracker]
) -> None:
    """``tracker=`` delivers there, also what the functions of the package record inside."""
    configure(ingest, license_id="lic_default")
    own = new_tracker(ingest.url, license_id="lic_own")
    with adapter.wrap(work, tracker=own) as call:
        call("/1", Client())
    assert [event["license_id"] for event in ingest.events()] == ["lic_own"] * 2


@pytest.mark.parametrize("fails", [False, True])
def test_disabled_it_is_not_there(adapter: Adapter, fails: bool, ingest: Ingest) -> None:
    """No POST, no check of what is recorded; answer and exception as ever."""
    configure(ingest, enabled=False, strict=True)
    problem, client = Trouble("at /1"), Client()

    def carefree(name: str) -> Iterator[str]:
        doow.track("", -1)
        yield from failing(problem)(name) if fails else work(name)

    with adapter.wrap(carefree, metric="calls") as call:
        if fails:
            with pytest.raises(Trouble) as raised:
                call("/1", client)
            assert raised.value is problem
        else:
            call("/1", client)
            assert client.answer == "the answer to /1"
    assert ingest.posts() == []


@pytest.mark.parametrize("given", ["configure", "tracked"])
def test_a_silent_server_costs_the_budget_once(adapter: Adapter, given: str) -> None:
    """However the budget is given, the answer is whole, and no later than that."""
    with Server(silent) as server, Metronome() as noise:
        configure_endpoint(
            server.url, budget=BUDGET_S if given == "configure" else 9.0, dead_letter="off"
        )
        client = Client()
        with adapter.wrap(work, budget=None if given == "configure" else BUDGET_S) as call:
            began = time.monotonic()
            call("/1", client)
            took_s = time.monotonic() - began
    within(took_s, BUDGET_S + SLACK_S + noise.worst_s, at_least_s=BUDGET_S - SLACK_S)
    assert client.answer == "the answer to /1"
