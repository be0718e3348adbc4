"""The relay's other ways in: logs, queues, Event Hubs and drains; each batch counts once."""

from __future__ import annotations

import gc
import hmac
import io
import json
import os
from base64 import b64encode
from typing import TYPE_CHECKING, Any
from wsgiref.util import setup_testing_defaults

import pytest

from benchmarks.fleet.stream import Context, event_of
from doow_serverless import relay
from doow_serverless._frames.format import SPLIT, digest_of, frame, signed_text
from doow_serverless._recording.ids import new_id
from doow_serverless._sealing import split
from doow_serverless.errors import ConfigurationError
from doow_serverless.local import Fault, Ingest
from doow_serverless.relay import _vercel, _window
from tests.batches import batch, read_back
from tests.integration.relaying import ids_at, ids_of, lines, relayed, restart
from tests.network import KEY
from tests.streams import record, subscription

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


SECRET = "a secret of the drain"


@pytest.fixture
def ingest(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ingest]:
    with relayed(monkeypatch) as ingest:
        yield ingest


# ── Kinesis without a window ────────────────────────────────────────────────────────────────────


def test_without_a_window(ingest: Ingest) -> None:
    """Everything goes at once, under the ids that it came with."""
    one, two = batch(3), batch(2)
    records = [record(at, subscription(lines(each))) for at, each in enumerate((one, two, one))]
    assert relay.kinesis_handler({"Records": records}, Context()) == {"batchItemFailures": []}
    assert ids_at(ingest) == ids_of(one, two)
    restart()
    relay.kinesis_handler({"Records": records}, Context())
    assert ids_at(ingest) == ids_of(one, two)
    assert {post.batch_id for post in ingest.posts()} == {one.id, two.id}


def test_lambda_comes_again_from_the_first_that_failed(ingest: Ingest) -> None:
    one, two, three = batch(1), batch(1), batch(1)
    records = [record(at, subscription(lines(each))) for at, each in enumerate((one, two, three))]
    ingest.fault(Fault(status=500, only=two.event_ids, times=None))
    answer = relay.kinesis_handler({"Records": records}, Context(left_s=5.0))
    place = records[1]["kinesis"]["sequenceNumber"]
    assert answer == {"batchItemFailures": [{"itemIdentifier": place}]}
    ingest.clear_faults()
    relay.kinesis_handler({"Records": records[1:]}, Context())
    assert ids_at(ingest) == ids_of(one, two, three)


def test_control_messages_and_nonsense(ingest: Ingest) -> None:
    """They are nobody's usage, and hold up nothing."""
    control = json.dumps({"messageType": "CONTROL_MESSAGE", "logEvents": [{"message": "CWL"}]})
    data = [control.encode(), b"\x00\xff\xfe", b"", b"plain"]
    records = [record(at, one) for at, one in enumerate(data)]
    assert relay.kinesis_handler({"Records": records}, Context()) == {"batchItemFailures": []}
    assert ingest.posts() == []


def test_a_batch_that_was_halved(ingest: Ingest) -> None:
    """Its function sends the halves: so does the relay, and the whole never comes to count."""
    one = batch(4)
    first, second = split(one)
    text = [*lines(one, "TIMEOUT"), *lines(one, SPLIT), *lines(second, "TIMEOUT")]
    relay.kinesis_handler({"Records": [record(0, subscription(text))]}, Context())
    assert ids_at(ingest) == ids_of(one)
    assert {post.batch_id for post in ingest.posts()} == {first.id, second.id}


@pytest.mark.parametrize("trouble", ["no key", "no endpoint"])
def test_a_configuration_that_cannot_be_used(
    trouble: str, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said, so that Lambda keeps what the stream holds."""
    if trouble == "no key":
        monkeypatch.delenv("DOOW_TRACK_API_KEY")
    else:
        monkeypatch.setenv("DOOW_TRACK_ENDPOINT", "http://doow.test")
    with pytest.raises(ConfigurationError, match="DOOW_TRACK_"):
        relay.kinesis_handler({"Records": []}, Context())


def test_a_key_that_is_refused(ingest: Ingest) -> None:
    """Nothing is given up: the stream keeps it until there is another."""
    ingest.revoke(KEY)
    records = [record(0, subscription(lines(batch(1))))]
    answer = relay.kinesis_handler({"Records": records}, Context())
    assert answer["batchItemFailures"]


def test_what_doow_rejects_is_told(ingest: Ingest, caplog: pytest.LogCaptureFixture) -> None:
    """It will never count, so that it holds up nothing."""
    one = batch(2)
    ingest.fault(Fault(reject=one.event_ids[:1]))
    records = [record(0, subscription(lines(one)))]
    assert relay.kinesis_handler({"Records": records}, Context()) == {"batchItemFailures": []}
    assert f"Doow rejected event {one.event_ids[0]} of batch {one.id}" in caplog.text


def test_the_end_of_a_window_without_records(ingest: Ingest) -> None:
    """There is no record to fail then: the handler raises, and Lambda comes again."""
    event = {
        "Records": [
            record(
                0, subscription(lines(batch(1, batch_id="11111111-1111-4111-8111-111111111111")))
            )
        ],
        "window": {"start": "2026-11-22T11:33:00Z", "end": "2026-11-22T11:34:00Z"},
        "state": {},
        "shardId": "shardId-000000000000",
        "isFinalInvokeForWindow": False,
    }
    state = relay.kinesis_handler(event, Context())["state"]
    assert ingest.posts() == []
    last = {**event, "Records": [], "state": state, "isFinalInvokeForWindow": True}
    ingest.fault(Fault(status=500, times=None))
    with pytest.raises(relay.Undelivered, match="1 batch not delivered: HTTP 500"):
        relay.kinesis_handler(last, Context(left_s=5.0))
    ingest.clear_faults()
    assert relay.kinesis_handler(last, Context()) == {"state": {}, "batchItemFailures": []}
    assert len(ingest.events()) == 1


# ── a subscription straight to Lambda, and queues ───────────────────────────────────────────────


def test_logs(ingest: Ingest) -> None:
    one, two = batch(3), batch(600)
    text = subscription([*lines(one), *lines(two, "TIMEOUT")])
    event = {"awslogs": {"data": b64encode(text).decode()}}
    relay.logs_handler(event, Context())
    relay.logs_handler(event, Context())
    assert ids_at(ingest) == ids_of(one, two)
    ingest.fault(Fault(status=500, times=None))
    restart()
    with pytest.raises(relay.Undelivered):
        relay.logs_handler(event, Context(left_s=4.0))


def message(number: int, *texts: str) -> dict[str, str]:
    return {"messageId": f"m-{number}", "body": "\n".join(texts)}


def test_queues(ingest: Ingest) -> None:
    """A message that holds a part stays until the rest has come; the others do not."""
    one, two = batch(1), batch(500, noise=100)
    parts = lines(two, "TIMEOUT")
    assert len(parts) > 1
    first = {"Records": [message(1, *lines(one)), message(2, parts[0])]}
    assert relay.sqs_handler(first, Context()) == {"batchItemFailures": [{"itemIdentifier": "m-2"}]}
    rest = {"Records": [message(3, *parts[1:])]}
    assert relay.sqs_handler(rest, Context()) == {"batchItemFailures": []}
    assert relay.sqs_handler({"Records": [message(2, parts[0])]}, Context()) == {
        "batchItemFailures": []
    }
    assert ids_at(ingest) == ids_of(one, two)


def test_a_part_that_somebody_has_put_beside_the_honest_ones(ingest: Ingest) -> None:
    """Without a log key the batch may not become whole; then the queue keeps its messages."""
    one = batch(500, noise=100)
    first, *rest = lines(one, "TIMEOUT")
    fields = json.loads(first)
    fields["data"] = fields["data"][:-1] + ("A" if fields["data"][-1] != "A" else "B")
    texts = {name: str(value) for name, value in fields.items()}
    texts["digest"] = digest_of(signed_text(texts))
    forged = frame({**texts})
    bodies = [forged, first, *rest]
    records = [message(number, body) for number, body in enumerate(bodies)]
    answer = relay.sqs_handler({"Records": records}, Context())
    assert len(answer["batchItemFailures"]) == len(bodies)
    assert relay.sqs_handler({"Records": records[1:]}, Context()) == {"batchItemFailures": []}
    assert ids_at(ingest) == ids_of(one)


def test_a_flood_of_damage_is_reported_in_few_lines(
    ingest: Ingest, caplog: pytest.LogCaptureFixture
) -> None:
    """Anybody who can have lines printed can have many."""
    damaged = [lines(batch(1))[0][:-9] for _ in range(500)]
    relay.kinesis_handler({"Records": [record(0, subscription(damaged))]}, Context())
    assert len(caplog.messages) == 21
    assert caplog.messages[-1] == "and 480 more batches that came damaged"
    assert ingest.posts() == []


def test_a_queue_keeps_what_cannot_be_read(
    ingest: Ingest, caplog: pytest.LogCaptureFixture
) -> None:
    """Until it goes to the dead-letter queue; a message that is read in part does not."""
    one, other = batch(1), batch(1)
    [frame] = lines(other)
    mixed = {"awslogs": {"data": b64encode(subscription([*lines(one), f"x {frame}"])).decode()}}
    bodies = [f"x {frame}", json.dumps({"a": frame}), json.dumps(mixed), frame[:-9], "text"]
    records = [message(number, body) for number, body in enumerate(bodies)]
    answer = relay.sqs_handler({"Records": records}, Context())
    kept = [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]
    assert kept == ["m-0", "m-1", "m-3"]  # The damaged one may be whole in another message.
    whole = {"Records": [message(3, frame[:-9]), message(5, frame)]}
    assert relay.sqs_handler(whole, Context()) == {"batchItemFailures": []}
    assert ids_at(ingest) == ids_of(one, other)
    assert caplog.text.count("usage not understood: ") == 3
    assert f"batch {other.id} came damaged" in caplog.text


def test_queues_in_an_outage(ingest: Ingest) -> None:
    """What was delivered does not come again."""
    one, two = batch(1), batch(1)
    event = {"Records": [message(1, *lines(one)), message(2, *lines(two)), message(3, "text")]}
    ingest.fault(Fault(status=500, only=two.event_ids, times=None))
    assert relay.sqs_handler(event, Context(left_s=5.0)) == {
        "batchItemFailures": [{"itemIdentifier": "m-2"}]
    }
    assert ids_at(ingest) == ids_of(one)


# ── Event Hubs ──────────────────────────────────────────────────────────────────────────────────


class EventHubEvent:
    """As `azure.functions.EventHubEvent`, which a test of its own has."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def get_body(self) -> bytes:
        return self._body


def exported(*texts: str) -> EventHubEvent:
    """What diagnostic settings of Application Insights export."""
    said = {"records": [{"category": "AppTraces", "Message": one} for one in texts]}
    return EventHubEvent(json.dumps(said).encode())


@pytest.mark.parametrize("cardinality", ["one", "many"])
def test_event_hubs(cardinality: str, ingest: Ingest) -> None:
    one, two = batch(2), batch(400, noise=100)
    events = [exported(*lines(one), "text"), exported(*lines(two, "TIMEOUT"))]
    for _ in range(2):
        if cardinality == "many":
            relay.event_hub_handler(events)
        else:
            for each in events:
                relay.event_hub_handler(each)
    assert ids_at(ingest) == ids_of(one, two)


# ── Vercel's drains ─────────────────────────────────────────────────────────────────────────────


def drained(*texts: str, ndjson: bool = False) -> bytes:
    entries = [
        {"id": str(at), "message": one, "source": "lambda", "projectId": "prj_1"}
        for at, one in enumerate(texts)
    ]
    if ndjson:
        return "\n".join(map(json.dumps, entries)).encode()
    return json.dumps(entries).encode()


def signed(body: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), body, "sha1").hexdigest()


def post(
    app: relay.VercelDrain, body: bytes, signature: str | None = None, **environ: Any
) -> tuple[int, dict[str, str]]:
    given: dict[str, Any] = {
        "REQUEST_METHOD": "POST",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        "HTTP_X_VERCEL_SIGNATURE": signed(body) if signature is None else signature,
        **environ,
    }
    setup_testing_defaults(given)
    answered: list[Any] = []
    said = b"".join(app(given, lambda *answer: answered.append(answer)))
    status, headers = answered[0]
    if given["REQUEST_METHOD"] == "HEAD":
        assert said == b""
    else:
        assert int(dict(headers)["Content-Length"]) == len(said)
    return int(status[:3]), dict(headers)


@pytest.mark.parametrize("ndjson", [False, True])
def test_a_drain(ndjson: bool, ingest: Ingest) -> None:
    app = relay.VercelDrain(SECRET)
    one, two = batch(2), batch(20)
    body = drained(*lines(one), "GET /", *lines(two, limit=2_000), ndjson=ndjson)
    assert [post(app, body)[0] for _ in range(2)] == [200, 200]
    assert ids_at(ingest) == ids_of(one, two)


def test_signatures(ingest: Ingest) -> None:
    """None, a forged one, and one that belongs to another body: all are refused, unread."""
    app = relay.VercelDrain(SECRET)
    body, other = drained(*lines(batch(1))), drained(*lines(batch(1)))
    for signature in ("", "0" * 40, signed(body, "guessed"), signed(other), signed(body)[:-1]):
        assert post(app, body, signature)[0] == 403, signature
    assert post(app, body, "é")[0] == 403
    assert ingest.posts() == []
    assert post(app, body, f" {signed(body).upper()} ")[0] == 200


@pytest.mark.parametrize(
    ("environ", "status"),
    [
        ({"REQUEST_METHOD": "GET"}, 405),
        ({"REQUEST_METHOD": "PUT"}, 405),
        ({"CONTENT_LENGTH": str(_vercel.MAX_BODY + 1)}, 413),
        ({"CONTENT_LENGTH": "-1"}, 411),
        ({"CONTENT_LENGTH": "many"}, 411),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, 411),
        ({"CONTENT_LENGTH": ""}, 403),
    ],
)
def test_what_is_refused(environ: dict[str, str], status: int, ingest: Ingest) -> None:
    app = relay.VercelDrain(SECRET)
    assert post(app, drained(*lines(batch(1))), **environ)[0] == status
    assert ingest.posts() == []


def test_a_drain_in_an_outage(
    ingest: Ingest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked to come again, or what it brought is kept, for ``replay`` to send."""
    monkeypatch.setattr(_vercel, "LIMIT_S", 1.0)
    ingest.stop()
    one = batch(3)
    body = drained(*lines(one))
    assert post(relay.VercelDrain(SECRET), body)[0] == 503
    assert post(relay.VercelDrain(SECRET, keep=tmp_path), body)[0] == 200
    (file,) = tmp_path.iterdir()
    assert [kept[0] for kept in read_back(file.read_text())] == [one.id]
    ingest.start()
    assert post(relay.VercelDrain(SECRET), body)[0] == 200
    assert ids_at(ingest) == ids_of(one)


@pytest.mark.usefixtures("ingest")
def test_vercel_verifies_the_drain() -> None:
    app = relay.VercelDrain(SECRET, verify="abc")
    for method, status in (("GET", 200), ("HEAD", 200), ("POST", 200)):
        answered, headers = post(app, b"[]", REQUEST_METHOD=method)
        assert (answered, headers["x-vercel-verify"]) == (status, "abc")
    assert post(app, b"[]", "")[0] == 403
    assert post(app, b"[]", REQUEST_METHOD="PUT")[0] == 405


@pytest.mark.parametrize("secret", ["", " ", None])
def test_a_drain_needs_its_secret(secret: Any) -> None:
    with pytest.raises(ConfigurationError, match="secret must be the signature secret"):
        relay.VercelDrain(secret)


def test_the_secret_is_not_shown() -> None:
    assert SECRET not in repr(relay.VercelDrain(SECRET))


def test_parts_of_several_requests(ingest: Ingest, capfd: pytest.CaptureFixture[str]) -> None:
    """A part that came alone is told, and waits for the others."""
    app = relay.VercelDrain(SECRET)
    one = batch(100, noise=50)
    parts = lines(one, limit=2_000)
    for part in parts:
        assert post(app, drained(part))[0] == 200
    assert ids_at(ingest) == ids_of(one)
    assert capfd.readouterr().out.count("doow_dead_letter") == len(parts) - 1


def test_parts_are_kept_until_they_are_delivered(
    ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an outage only the request that brought the last part comes again."""
    monkeypatch.setattr(_vercel, "LIMIT_S", 1.0)
    app = relay.VercelDrain(SECRET)
    one = batch(100, noise=50)
    *parts, last = lines(one, limit=2_000)
    assert len(parts) > 1
    ingest.stop()
    assert [post(app, drained(part))[0] for part in parts] == [200] * len(parts)
    assert [post(app, drained(last))[0] for _ in range(2)] == [503, 503]
    ingest.start()
    assert post(app, drained(last))[0] == 200
    assert ids_at(ingest) == ids_of(one)
    assert [post(app, drained(part))[0] for part in (*parts, last)] == [200] * (len(parts) + 1)
    assert len(ingest.posts()) == 1


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_connections_end_with_the_invocation(ingest: Ingest) -> None:
    """A process that is frozen between invocations would keep them, dead, without end."""

    def sockets() -> int:
        links = (os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd"))
        return sum(os.path.islink(link) and "socket:" in os.readlink(link) for link in links)

    gc.disable()
    try:
        relay.kinesis_handler({"Records": [record(0, subscription(lines(batch(1))))]}, Context())
        ingest.wait_for(1, 5)
        before = sockets()
        for number in range(20):
            one = record(number, subscription(lines(batch(1))))
            assert relay.kinesis_handler({"Records": [one]}, Context())["batchItemFailures"] == []
        # Those of the ingest, in the same process, end a little later.
        assert sockets() <= before + 5
    finally:
        gc.enable()


# ── what a window gathers ───────────────────────────────────────────────────────────────────────


def in_window(records: list[dict[str, Any]], state: dict[str, Any], **options: Any) -> Any:
    event = event_of(records, 0.0, state, is_final=options.pop("is_final", False))
    return relay.kinesis_handler(event, Context(**options))


def test_what_may_be_delivered_elsewhere_does_not_wait(ingest: Ingest) -> None:
    """A dead letter goes at once, under its own id: its function may deliver it, too."""
    letter, usual = batch(2, batch_id=new_id()), batch(3, batch_id=new_id())
    records = [record(0, subscription([*lines(letter, "TIMEOUT"), *lines(usual)]))]
    state = in_window(records, {})["state"]
    assert [post.batch_id for post in ingest.posts()] == [letter.id]
    in_window([], state, is_final=True)
    assert ids_at(ingest) == ids_of(letter, usual)
    assert usual.id not in {post.batch_id for post in ingest.posts()}


def test_a_last_invocation_that_is_done_again(
    ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer was lost; the process, which knows all of it, gathers and cuts it as before."""
    monkeypatch.setattr(_window, "MAX_EVENTS_LENGTH", 40_000)
    first, *others = [batch(3, batch_id=new_id(), noise=900) for _ in range(30)]
    state = in_window([record(0, subscription(lines(first)))], {})["state"]
    rest = [record(at, subscription(lines(one))) for at, one in enumerate(others, 1)]
    for _ in range(2):
        in_window(rest, json.loads(json.dumps(state)), is_final=True)
        assert ids_at(ingest) == ids_of(first, *others)
    assert len({post.batch_id for post in ingest.posts()}) > 1


def test_parts_that_come_in_two_windows(ingest: Ingest) -> None:
    """The process keeps those of the first, though the state of the window does not."""
    one = batch(100, batch_id=new_id(), noise=50)
    part, *rest = lines(one, "TIMEOUT", limit=2_000)
    in_window([record(0, subscription([part]))], {}, is_final=True)
    assert ingest.posts() == []
    in_window([record(1, subscription(rest))], {}, is_final=True)
    assert ids_at(ingest) == ids_of(one)


def test_a_line_that_comes_again_in_the_next_window(ingest: Ingest) -> None:
    """The process knows it again, though the state of the window does not."""
    one, two = batch(2, batch_id=new_id()), batch(2, batch_id=new_id())
    in_window([record(0, subscription(lines(one)))], {}, is_final=True)
    in_window([record(1, subscription([*lines(one), *lines(two)]))], {}, is_final=True)
    assert ids_at(ingest) == ids_of(one, two)


def test_what_is_not_whole_is_written_as_lambda_lets_it_through(
    ingest: Ingest, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Below the level of the relay's own function it would drop the line."""
    monkeypatch.setenv("AWS_LAMBDA_LOG_FORMAT", "JSON")
    monkeypatch.setenv("AWS_LAMBDA_LOG_LEVEL", "WARN")
    part = lines(batch(100, noise=50), limit=2_000)[0]
    in_window([record(0, subscription([part]))], {}, is_final=True)
    assert json.loads(capfd.readouterr().out)["level"] == "WARN"
    assert ingest.posts() == []


def test_what_came_in_parts_goes_under_its_own_id(ingest: Ingest) -> None:
    """Whether they come together may be another when the invocation is done again."""
    one = batch(100, noise=50, batch_id=new_id())
    parts = lines(one, limit=2_000)
    assert len(parts) > 1
    state = in_window([record(0, subscription(parts[:1]))], {})["state"]
    assert len(state["parts"]) == 1
    restart()
    state = in_window([record(1, subscription(parts[1:]))], state)["state"]
    assert [post.batch_id for post in ingest.posts()] == [one.id]
    assert state["parts"] == []


def test_what_fails_within_a_window_leaves_its_state_alone(ingest: Ingest) -> None:
    """Lambda comes again with the same records: what the state had taken would count twice."""
    letter, usual = batch(1, batch_id=new_id()), batch(3, batch_id=new_id())
    before = in_window([record(0, subscription(lines(batch(1, batch_id=new_id()))))], {})["state"]
    records = [record(1, subscription([*lines(usual), *lines(letter, "TIMEOUT")]))]
    ingest.fault(Fault(status=500, times=None))
    answer = in_window(records, before, left_s=5.0)
    assert answer["state"] == before
    assert answer["batchItemFailures"] == [
        {"itemIdentifier": records[0]["kinesis"]["sequenceNumber"]}
    ]
    ingest.clear_faults()
    state = in_window(records, answer["state"])["state"]
    in_window([], state, is_final=True)
    assert len(ingest.events()) == 5
