"""Manners while the server refuses, limits or is away: who waits, and what is sent and reported."""

from __future__ import annotations

import gzip
import json
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless import Outcome
from doow_serverless._sealing import Batch
from doow_serverless.errors import DoowError, ErrorKind
from doow_serverless.local import Fault, Ingest
from tests.network import KEY, Peer, Server, accepting, refused_port, silent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from doow_serverless import Tracker


class Service:
    """A function that meters, and everything that it is told about its events.

    Args:
        tracker: Makes its tracker.
        **options: Those of the tracker.
    """

    def __init__(self, tracker: Callable[..., Tracker], endpoint: str, **options: Any) -> None:
        self.outcomes: list[Outcome] = []
        self.errors: list[DoowError] = []
        self.tracker = tracker(
            endpoint,
            **{"on_flush": self._flushed, "on_error": self.errors.append, "budget": 2.0, **options},
        )
        self.elapsed_s: list[float] = []

    def _flushed(self, outcome: Outcome) -> None:
        # Apart, so that outcomes can be compared as a whole.
        self.elapsed_s.append(outcome.elapsed_s)
        outcome.elapsed_s, outcome.backlog = 0.0, 0
        self.outcomes.append(outcome)

    def invoke(self, *event_ids: str) -> float:
        """Record these events in one invocation; the seconds that the whole took."""

        @self.tracker.tracked
        def handler() -> None:
            for event_id in event_ids:
                self.tracker.track("tokens", 3, event_id=event_id)

        began = time.perf_counter()
        handler()
        return time.perf_counter() - began

    def reports(self) -> list[tuple[str, tuple[str, ...], float | None]]:
        """What on_error received: kind, events, and the wait that was asked for."""
        return [(error.kind.value, error.event_ids, error.retry_after_s) for error in self.errors]

    def has_settled(self, within_s: float = 5.0) -> bool:
        """Invoke without events, as warm traffic does, until the backlog is empty."""
        ends_at = time.monotonic() + within_s
        while len(self.tracker.engine.outbox.backlog) and time.monotonic() < ends_at:
            self.invoke()
            time.sleep(0.02)
        return not len(self.tracker.engine.outbox.backlog)


@pytest.fixture
def service(ingest: Ingest, new_tracker: Callable[..., Tracker]) -> Service:
    """A function whose events go to the local ingest."""
    return Service(new_tracker, ingest.url)


def ids(ingest: Ingest) -> list[str]:
    """The accepted events, each as often as it is in the ledger."""
    return [event["event_id"] for event in ingest.events()]


def statuses(ingest: Ingest) -> list[int | None]:
    return [post.status for post in ingest.posts()]


# ── the server is away ─────────────────────────────────────────────────────────────────────────


def test_fifty_invocations_pay_one_budget(
    ingest: Ingest, new_tracker: Callable[..., Tracker]
) -> None:
    """While nobody listens one invocation of 50 waits; later all arrives by itself, each once."""
    service = Service(new_tracker, ingest.url, budget=0.3)
    ingest.stop()
    took_s = [service.invoke(f"evt_{number}") for number in range(50)]
    assert 0.3 <= took_s[0] < 0.35
    assert sum(took_s) < 0.3 + 0.2
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
        assert service.invoke(f"warm_{warm}") < 0.35
        warm += 1
        time.sleep(0.05)
    print(f"drained after {time.monotonic() - began:.2f} s")  # noqa: T201 - pytest -s shows it
    assert service.has_settled()
    assert sorted(ids(ingest)) == sorted([*expected, *(f"warm_{each}" for each in range(warm))])
    assert {post.duplicate for post in ingest.posts()} == {False}
    service.invoke("evt_50")
    assert service.outcomes[-1] == Outcome(1, requests=1)


def test_silent_server_costs_one_budget(new_tracker: Callable[..., Tracker]) -> None:
    """Silence too is paid for once, even after the hold-off is over and a probe has begun."""
    with Server(silent) as server:
        service = Service(new_tracker, server.url, budget=0.2)
        took_s = [service.invoke("evt_1")]
        for number in range(30):
            took_s.append(service.invoke(f"evt_{2 + number}"))
            time.sleep(0.05)
    assert 0.2 <= took_s[0] < 0.25
    assert max(took_s[1:]) < 0.05


def test_unavailable_twice(ingest: Ingest, service: Service) -> None:
    """Two 503 are overcome within the flush, by the same batch in the same bytes."""
    ingest.fault(Fault(status=503, times=2))
    assert service.invoke("evt_1") < 1.0
    assert statuses(ingest) == [503, 503, 202]
    assert len({(post.batch_id, post.body) for post in ingest.posts()}) == 1
    assert service.outcomes == [Outcome(1, requests=3)]
    assert service.reports() == []


def test_late_answer(ingest: Ingest, new_tracker: Callable[..., Tracker]) -> None:
    """An answer that comes after the budget takes the batch from the backlog: no second POST."""
    service = Service(new_tracker, ingest.url, budget=0.1)
    ingest.fault(Fault(delay_s=0.3))
    assert service.invoke("evt_1") < 0.15
    assert service.outcomes == [Outcome(unsent={ErrorKind.TIMEOUT: 1}, requests=1)]
    assert len(service.tracker.engine.outbox.backlog) == 1
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
        assert service.invoke(f"evt_{number}") < 0.05
        time.sleep(0.06)
    assert service.has_settled()
    assert sorted(ids(ingest)) == sorted(f"evt_{number}" for number in range(20))
    assert [post.batch_id for post in ingest.posts() if post.duplicate] == []


# ── the server asks to wait ────────────────────────────────────────────────────────────────────


def http_date(seconds_from_now: float) -> str:
    return formatdate(time.time() + seconds_from_now, usegmt=True)


LIMITS = '{"event_rate": {"limit": 1000, "current": 1050, "retry_after": 45}}'


@pytest.mark.parametrize(
    ("status", "headers", "expected_s", "within_s"),
    [
        (429, lambda: {"Retry-After": "30"}, 30.0, 0.0),
        (503, lambda: {"Retry-After": "30"}, 30.0, 0.0),
        (429, lambda: {"Retry-After": http_date(30)}, 29.5, 1.0),
        (429, lambda: {"X-Doow-Rate-Limits": LIMITS}, 45.0, 0.0),
        (429, lambda: {"Retry-After": "30", "X-Doow-Rate-Limits": LIMITS}, 45.0, 0.0),
        (429, lambda: {"X-RateLimit-Reset": "20"}, 20.0, 0.0),
    ],
    ids=["seconds", "503", "date", "categories", "both", "reset"],
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
    assert service.invoke("evt_1") < 0.2
    for number in range(10):
        assert service.invoke(f"evt_{2 + number}") < 0.05
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
    passed_s = expected_s + within_s
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
        assert service.invoke(f"evt_{number}") < 0.2
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
    assert len(service.tracker.engine.outbox.backlog) == 0


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
        service.tracker.engine.outbox.backlog.put(batch, ErrorKind.TIMEOUT)
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
    assert len(service.tracker.engine.outbox.backlog) == 0


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
    assert len(service.tracker.engine.outbox.backlog) == 2


# ── the surroundings ───────────────────────────────────────────────────────────────────────────


def test_netrc_is_not_consulted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_tracker: Callable[..., Tracker]
) -> None:
    """A .netrc that knows the host does not replace the key."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login someone password something\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    with Server(accepting) as server:
        Service(new_tracker, server.url).invoke("evt_1")
        assert [request.header("Authorization") for request in server.requests] == [f"Bearer {KEY}"]


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_proxy_is_not_used_for_loopback(
    name: str, monkeypatch: pytest.MonkeyPatch, new_tracker: Callable[..., Tracker]
) -> None:
    """A proxy has no business between this machine and itself."""
    with Server(accepting) as proxy, Server(accepting) as server:
        monkeypatch.setenv(name, proxy.url)
        Service(new_tracker, server.url).invoke("evt_1")
        assert (len(proxy.requests), len(server.requests)) == (0, 1)


def test_proxy_is_used_for_https(
    monkeypatch: pytest.MonkeyPatch, new_tracker: Callable[..., Tracker]
) -> None:
    """To the outside the proxy of the environment is used, and does not see the key."""
    with Server(silent) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        Service(new_tracker, "https://ingest.invalid", budget=0.2).invoke("evt_1")
        request = proxy.wait_for(1)[0]
    assert request.head.startswith("CONNECT ingest.invalid:443 HTTP/1.")
    assert KEY not in request.head


# ── bounds ─────────────────────────────────────────────────────────────────────────────────────


def test_full_backlog(new_tracker: Callable[..., Tracker]) -> None:
    """What the backlog has no room for is reported as dropped, oldest first, with its events."""
    with refused_port() as endpoint:
        service = Service(new_tracker, endpoint, budget=0.05, max_queue_size=5)
        for number in range(4):
            service.invoke(f"evt_{number}a", f"evt_{number}b")
    dropped = [error for error in service.errors if error.kind == ErrorKind.DROPPED_EVENTS]
    assert [(error.event_ids, str(error)) for error in dropped] == [
        (
            (f"evt_{number}a", f"evt_{number}b"),
            "the backlog is full: 2 events dropped, the oldest",
        )
        for number in range(2)
    ]
    kept = [batch.event_ids for batch in service.tracker.engine.outbox.backlog.drain()]
    assert kept == [(f"evt_{number}a", f"evt_{number}b") for number in (2, 3)]


def test_full_queue(
    ingest: Ingest, new_tracker: Callable[..., Tracker], caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond max_queue_size the newest events are refused, counted, and warned of once."""
    service = Service(new_tracker, ingest.url, max_queue_size=5, on_error=None)
    service.invoke(*(f"evt_{number}" for number in range(8)))
    assert service.outcomes == [Outcome(5, unsent={ErrorKind.DROPPED_EVENTS: 3}, requests=1)]
    assert ids(ingest) == [f"evt_{number}" for number in range(5)]
    assert [record.getMessage() for record in caplog.records] == [
        "DROPPED_EVENTS: 3 events dropped: max_queue_size events were waiting already"
    ]
    service.invoke("evt_8")
    assert service.outcomes[1:] == [Outcome(1, requests=1)]
