"""Manners while the server refuses, limits or is away: who waits, and what is sent and reported."""

from __future__ import annotations

import gzip
import json
import time
from email.utils import formatdate
from functools import partial
from typing import TYPE_CHECKING

import pytest

from doow_serverless import Outcome
from doow_serverless._sealing import Batch
from doow_serverless.errors import ErrorKind
from doow_serverless.local import Fault, Ingest
from tests.integration.services import Service, ids, statuses
from tests.network import KEY, Peer, Server, silent
from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from doow_serverless import Tracker


# ── the server is away ─────────────────────────────────────────────────────────────────────────


def test_fifty_invocations_pay_one_budget(
    ingest: Ingest, new_tracker: Callable[..., Tracker]
) -> None:
    """While nobody listens one invocation of 50 waits; later all arrives by itself, each once."""
    service = Service(new_tracker, ingest.url, budget=0.3)
    ingest.stop()
    took_s = [service.invoke(f"evt_{number}") for number in range(50)]
    within(took_s[0], 0.35, at_least_s=0.15)  # No longer than another attempt could follow.
    within(sum(took_s), 0.3 + 0.2)
    requests = service.outcomes[0].requests
    assert requests > 1
    assert service.outcomes == [
        Outcome(unsent={ErrorKind.NETWORK_ERROR: 1}, requests=requests if first else 0)
        for first in [True] + [False] * 49
    ]
    assert service.reports() == [
        ("NETWORK_ERROR", (f"evt_{number}",), None) for number in range(50)
    ]

    ingest.start()
    began = time.monotonic()
    expected = {f"evt_{number}" for number in range(50)}
    warm = 0
    while not expected <= set(ids(ingest)) and time.monotonic() - began < 5:
        within(service.invoke(f"warm_{warm}"), 0.35)
        warm += 1
        time.sleep(0.05)
    print(f"drained after {time.monotonic() - began:.2f} s")  # noqa: T201 - pytest -s shows it
    assert service.has_settled()
    assert sorted(ids(ingest)) == sorted([*expected, *(f"warm_{each}" for each in range(warm))])
    assert {post.duplicate for post in ingest.posts()} == {False}
    service.invoke("evt_50")
    assert service.outcomes[-1] == Outcome(1, requests=1)


def test_silent_server_costs_one_budget(new_tracker: Callable[..., Tracker]) -> None:
    """Silence is paid for once, and once more by all that wait for probes together."""
    with Server(silent) as server:
        service = Service(new_tracker, server.url, budget=0.5)
        took_s = [service.invoke("evt_1")]
        for number in range(30):
            took_s.append(service.invoke(f"evt_{2 + number}"))
            time.sleep(0.05)
    within(took_s[0], 0.75, at_least_s=0.5)
    within(sum(took_s[1:]), 0.5 + 0.45)  # One probe, and what an invocation takes anyway.


def test_unavailable_twice(ingest: Ingest, service: Service) -> None:
    """Two 503 are overcome within the flush, by the same batch in the same bytes."""
    ingest.fault(Fault(status=503, times=2))
    within(service.invoke("evt_1"), 1.0)
    assert statuses(ingest) == [503, 503, 202]
    assert len({(post.batch_id, post.body) for post in ingest.posts()}) == 1
    assert service.outcomes == [Outcome(1, requests=3)]
    assert service.reports() == []


def test_late_answer(ingest: Ingest, new_tracker: Callable[..., Tracker]) -> None:
    """An answer that comes after the budget takes the batch from the backlog: no second POST."""
    service = Service(new_tracker, ingest.url, budget=0.1)
    ingest.fault(Fault(delay_s=0.3))
    within(service.invoke("evt_1"), 0.15)
    assert service.outcomes == [Outcome(unsent={ErrorKind.TIMEOUT: 1}, requests=1)]
    assert len(service.tracker.engine.outbox.state.kept) == 1
    ingest.wait_for(1)
    assert service.has_settled(1.0)
    # The next does not wait out the hold-off either.
    service.invoke("evt_2")
    time.sleep(1.2)  # Past the hold-off, when a probe would be due.
    service.invoke()
    time.sleep(0.1)
    assert [post.event_ids for post in ingest.posts()] == [("evt_1",), ("evt_2",)]
    assert service.outcomes[1:] == [Outcome(1, requests=1)]


def test_lost_answer_is_not_counted_twice(ingest: Ingest, service: Service) -> None:
    """A batch whose answer was cut off goes again under the same id, and counts once."""
    ingest.fault(Fault(reset="mid_answer", record_first=True))
    service.invoke("evt_1", "evt_2")
    assert [post.duplicate for post in ingest.posts()] == [False, True]
    assert ids(ingest) == ["evt_1", "evt_2"]
    assert ingest.conflicts == []
    assert service.outcomes == [Outcome(2, requests=2)]


def test_nothing_is_sent_twice_without_a_budget(
    ingest: Ingest, new_tracker: Callable[..., Tracker]
) -> None:
    """Where there is no time to wait, the events leave in the background, in one POST."""
    service = Service(new_tracker, ingest.url, budget=0.0)
    for number in range(20):
        ingest.fault(Fault(delay_s=0.03))
        within(service.invoke(f"evt_{number}"), 0.05)
        time.sleep(0.06)
    assert service.has_settled()
    assert sorted(ids(ingest)) == sorted(f"evt_{number}" for number in range(20))
    assert [post.batch_id for post in ingest.posts() if post.duplicate] == []


# ── the server asks to wait ────────────────────────────────────────────────────────────────────


def http_date(seconds_from_now: float) -> str:
    return formatdate(time.time() + seconds_from_now, usegmt=True)


LIMITS = '{"event_rate": {"limit": 1000, "current": 1050, "retry_after": 25}}'


@pytest.mark.parametrize(
    ("status", "headers", "expected_s", "within_s"),
    [
        (429, lambda: {"Retry-After": "30"}, 30.0, 0.0),
        (503, lambda: {"Retry-After": "30"}, 30.0, 0.0),
        (429, lambda: {"Retry-After": http_date(30)}, 29.5, 1.0),
        (429, lambda: {"X-Doow-Rate-Limits": LIMITS}, 25.0, 0.0),
        (429, lambda: {"Retry-After": "20", "X-Doow-Rate-Limits": LIMITS}, 25.0, 0.0),
        (429, lambda: {"X-RateLimit-Reset": "20"}, 20.0, 0.0),
        (429, lambda: {"Retry-After": "3600"}, 30.0, 0.0),
    ],
    ids=["seconds", "503", "date", "categories", "both", "reset", "an hour"],
)
def test_rate_limited(
    status: int,
    headers: Callable[[], Mapping[str, str]],
    expected_s: float,
    within_s: float,
    ingest: Ingest,
    new_tracker: Callable[..., Tracker],
) -> None:
    """Nobody waits, nothing is sent until the server's time has come, and then everything is."""
    passed_s = 0.0
    service = Service(new_tracker, ingest.url, clock=lambda: time.monotonic() + passed_s)
    ingest.fault(Fault(status=status, headers=headers()))
    within(service.invoke("evt_1"), 1.0)  # Of a budget of 2.
    for number in range(10):
        within(service.invoke(f"evt_{2 + number}"), 0.05)
        time.sleep(0.01)
    assert statuses(ingest) == [status]
    unsent = Outcome(unsent={ErrorKind.RATE_LIMITED: 1})
    assert service.outcomes == [Outcome(unsent=unsent.unsent, requests=1), *([unsent] * 10)]
    kind, event_ids, retry_after_s = service.reports()[0]
    assert (kind, event_ids) == ("RATE_LIMITED", ("evt_1",))
    assert retry_after_s == pytest.approx(expected_s, abs=within_s)

    passed_s = expected_s - within_s - 2.0
    service.invoke()
    time.sleep(0.05)
    assert statuses(ingest) == [status]
    passed_s = expected_s + within_s + max(expected_s / 10, 1.0)  # By then for each of a fleet.
    assert service.has_settled()
    assert ids(ingest) == [f"evt_{1 + number}" for number in range(11)]
    service.invoke("evt_12")
    assert service.outcomes[-1] == Outcome(1, requests=1)


# ── the server refuses ─────────────────────────────────────────────────────────────────────────


def test_key_refused(ingest: Ingest, new_tracker: Callable[..., Tracker]) -> None:
    """After a 401 nothing is sent and nobody waits, for a long while; no event is lost."""
    passed_s = 0.0
    service = Service(new_tracker, ingest.url, clock=lambda: time.monotonic() + passed_s)
    ingest.revoke(KEY)
    for number in range(10):
        within(service.invoke(f"evt_{number}"), 0.2)
    passed_s = 600.0
    service.invoke()
    time.sleep(0.05)
    assert statuses(ingest) == [401]
    assert [outcome.unsent for outcome in service.outcomes] == [{ErrorKind.AUTH_FAILURE: 1}] * 10
    assert [error.kind for error in service.errors] == [ErrorKind.AUTH_FAILURE] * 10

    ingest.add_key(KEY)
    passed_s = 1_000.0
    assert service.has_settled()
    assert ids(ingest) == [f"evt_{number}" for number in range(10)]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "TRANSPORT_ERROR"), (403, "AUTH_FAILURE"), (422, "TRANSPORT_ERROR")],
)
def test_permanent_refusal(status: int, kind: str, ingest: Ingest, service: Service) -> None:
    """A permanent 4xx is reported with the server's reason, and never sent again."""
    said = {"message": "no such license\r\nforged: line", "errorClass": "ValidationError"}
    ingest.fault(Fault(status=status, body=said))
    service.invoke("evt_1", "evt_2")
    reason = f"HTTP {status} (ValidationError: no such license  forged: line)"
    rejected = Outcome(rejected=[("evt_1", reason), ("evt_2", reason)], requests=1)
    assert service.outcomes == [rejected]
    assert service.reports() == [(kind, ("evt_1", "evt_2"), None)]
    assert reason in str(service.errors[0])
    # The server answers, so that what follows is sent as ever.
    service.invoke("evt_3")
    assert statuses(ingest) == [status, 202]
    assert len(service.tracker.engine.outbox.state.kept) == 0


def test_part_accepted(ingest: Ingest, service: Service) -> None:
    """Of a 207 each rejected event is reported with its reason, and nothing is sent again."""
    reasons = {"evt_2": "unknown license", "evt_3": "unknown license", "evt_5": "too old"}
    ingest.fault(Fault(reject=lambda event: reasons.get(event["event_id"], False)))
    service.invoke("evt_1", "evt_2", "evt_3", "evt_4", "evt_5")
    assert service.outcomes == [Outcome(2, rejected=list(reasons.items()), requests=1)]
    assert [
        (*report, str(error))
        for report, error in zip(service.reports(), service.errors, strict=True)
    ] == [
        (
            "PARTIAL_ACCEPT",
            ("evt_2", "evt_3"),
            None,
            "Doow rejected 2 events: unknown license",
        ),
        ("PARTIAL_ACCEPT", ("evt_5",), None, "Doow rejected 1 event: too old"),
    ]
    service.invoke("evt_6")
    assert ids(ingest) == ["evt_1", "evt_4", "evt_6"]
    assert statuses(ingest) == [207, 202]


def test_too_large(new_tracker: Callable[..., Tracker]) -> None:
    """A batch that is too large goes in halves, in the same way each time that it is split."""
    with Ingest(max_json_bytes=1_000) as ingest:
        service = Service(new_tracker, ingest.url)
        names = tuple(f"evt_{number}" for number in range(8))
        service.invoke(*names)
        posts = ingest.posts()
        outcome = service.outcomes[0]
        assert (outcome.accepted, outcome.rejected, outcome.unsent) == (8, [], {})
        assert sorted(ids(ingest)) == [*names]
        assert outcome.requests == len(posts)

        # The same batch again, as a replay would have it: every part is known already.
        sealed = json.loads(gzip.decompress(posts[0].body))
        batch = Batch(sealed["batch_id"], names, posts[0].body, True, sealed["sdk_version"])
        outbox = service.tracker.engine.outbox
        outbox._note(partial(outbox.state.keep, is_written=True), batch)
        assert service.has_settled()
        again = ingest.posts()[len(posts) :]
        assert [post.duplicate for post in again if post.status == 202] == [True] * sum(
            post.status == 202 for post in posts
        )
        assert sorted(ids(ingest)) == [*names]
        assert ingest.conflicts == []


def test_single_event_too_large(ingest: Ingest, service: Service) -> None:
    """A single event that the server finds too large is rejected."""
    ingest.fault(Fault(status=413, body={"message": "too large"}))
    service.invoke("evt_1")
    service.invoke()
    assert service.outcomes == [Outcome(rejected=[("evt_1", "HTTP 413 (too large)")], requests=1)]
    assert statuses(ingest) == [413]
    assert len(service.tracker.engine.outbox.state.kept) == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect(status: int, new_tracker: Callable[..., Tracker]) -> None:
    """A redirect is not followed: the key goes nowhere else, and the events are kept."""
    with Server(silent) as elsewhere:
        head = f"HTTP/1.1 {status} Moved\r\nLocation: {elsewhere.url}/telemetry/events\r\n"

        def redirect(peer: Peer) -> None:
            while peer.request():
                peer.send(f"{head}Content-Length: 0\r\n\r\n".encode())

        with Server(redirect) as server:
            service = Service(new_tracker, server.url)
            service.invoke("evt_1")
            service.invoke("evt_2")
            assert len(server.requests) == 1
        assert elsewhere.requests == []
    assert [outcome.unsent for outcome in service.outcomes] == [{ErrorKind.TRANSPORT_ERROR: 1}] * 2
    assert len(service.tracker.engine.outbox.state.kept) == 2
