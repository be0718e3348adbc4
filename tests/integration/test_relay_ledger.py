"""The relay's ledger: whatever a stream, a function and Doow do, every event counts once.

Real HTTP to a real ledger; the stream and its reading are as AWS documents them (`tests.streams`).
Lambda cuts what it brings again otherwise than before; producers aggregate; other people log what
looks like usage; and what a function of CloudWatch's could not deliver comes through a queue.
"""

from __future__ import annotations

import json
import random
from base64 import b64encode
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.fleet.stream import Context
from doow_serverless import relay
from doow_serverless._frames.assembly import Assembly
from doow_serverless._frames.format import BY_LOG, frames_of
from doow_serverless._recording.ids import derived_id, new_id
from doow_serverless._sealing import pack
from doow_serverless.local import Fault, Ingest
from doow_serverless.relay import _relay, _window
from tests.batches import find_records
from tests.network import KEY
from tests.streams import Shard, record, subscription
from tests.unit.frames.test_kpl import aggregated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doow_serverless._sealing import Batch

SHAPES = 100
RECORDS = 20_000
WINDOWS = 5


@pytest.fixture
def ingest(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ingest]:
    with Ingest(keys=[KEY]) as ingest:
        monkeypatch.setenv("DOOW_TRACK_API_KEY", KEY)
        monkeypatch.setenv("DOOW_TRACK_ENDPOINT", ingest.url)
        monkeypatch.setenv("DOOW_TRACK_FOLD", "true")
        _restart()
        yield ingest
        _restart()


def _restart() -> None:
    """A sandbox is replaced: what its process remembered is gone."""
    _relay._relay = None


def made(dice: random.Random, *, noise: int = 0, batch_id: str = "") -> Batch:
    """A batch of an invocation: a few events of a hundred shapes."""
    texts, ids = [], []
    for _ in range(dice.randint(1, 4)):
        event_id, hour = new_id(), dice.choice(("11", "12"))
        event: dict[str, Any] = {
            "event_id": event_id,
            "occurred_at": f"2026-11-22T{hour}:33:{dice.randint(0, 59):02}.123Z",
            "license_id": f"lic_{dice.randrange(SHAPES)}",
            "kind": "USAGE",
            "source_system": "sdk",
            "measurements": [{"metric_name": "tokens", "quantity": dice.randint(1, 1_000)}],
        }
        if noise:
            event["metadata"] = {"noise": f"{dice.getrandbits(noise * 4):x}"}
        texts.append(json.dumps(event))
        ids.append(event_id)
    return pack(batch_id or new_id(), ids, texts, "0.1.0", True)


def totals(events: Iterator[dict[str, Any]] | list[dict[str, Any]]) -> Counter[tuple[str, str]]:
    """By license and hour."""
    found: Counter[tuple[str, str]] = Counter()
    for event in events:
        quantity = int(event["measurements"][0]["quantity"])
        found[event["license_id"], event["occurred_at"][:13]] += quantity
    return found


def events_of(*batches: Batch) -> list[dict[str, Any]]:
    return [event for one in batches for event in json.loads(one.json())["events"]]


class Log:
    """What functions have written, and what of it must count.

    Attributes:
        lots: The messages of each record of the stream, in order.
        queued: Messages of documents that lie in a queue.
        counted: Batches that must count once.
        damaged: Batches that cannot, and must be named.
        forged: How many lines hold a frame that nobody has recorded.
    """

    def __init__(self, dice: random.Random, records: int) -> None:
        self._dice = dice
        self.lots: list[list[str]] = []
        self.queued: list[list[str]] = []
        self.forged = 0
        self.counted: list[Batch] = []
        self.damaged: list[Batch] = []
        while len(self.lots) < records:
            dice.choices(
                (self._usual, self._same_work, self._letter, self._damage, self._in_queue),
                (90, 4, 4, 0.5, 4),
            )[0]()

    def _usual(self) -> None:
        one = made(self._dice)
        self.counted.append(one)
        self._put(frames_of(one, BY_LOG, 1.0))

    def _in_queue(self) -> None:
        one = made(self._dice)
        self.counted.append(one)
        self.queued.append([self._other_people(), *frames_of(one, BY_LOG, 1.0)])

    def _other_people(self) -> str:
        """A line of the application, into which a visitor may have put a frame."""
        if self._dice.random() < 0.9:
            return "plain text of the application"
        self.forged += 1
        [frame] = frames_of(made(self._dice), BY_LOG, 1.0)
        return self._dice.choice(
            (
                json.dumps({"level": "INFO", "message": {"body": frame}}),
                json.dumps({"level": "INFO", "message": frame}),
                json.dumps({"level": "INFO", **json.loads(frame)}),
                f"user-agent: {frame}",
                f"got body:\n{frame}",
            )
        )

    def _same_work(self) -> None:
        """Work that is done again seals the same batch, at another time."""
        one = made(self._dice, batch_id=derived_id(str(self._dice.random())))
        self.counted.append(one)
        self._put(frames_of(one, BY_LOG, 1.0))
        at = self._dice.randint(0, len(self.lots) - 1)
        self.lots.insert(at, frames_of(one, BY_LOG, 9.0))

    def _letter(self) -> None:
        """A dead letter in several parts, which come apart."""
        one = made(self._dice, noise=4_000)
        lines = frames_of(one, "TIMEOUT", 1.0, limit=2_000)
        self.counted.append(one)
        at = self._dice.randint(1, len(lines))
        self._put(lines[:at])
        if lines[at:]:
            self._usual()
            self._put(lines[at:])

    def _damage(self) -> None:
        """A part that never comes, or a record that is cut off."""
        one = made(self._dice, noise=4_000)
        lines = frames_of(one, "TIMEOUT", 1.0, limit=2_000)
        self.damaged.append(one)
        self._put(lines[1:] if self._dice.random() < 0.5 else [lines[0][:-400], *lines[1:]])

    def _put(self, lines: list[str]) -> None:
        if lines:
            self.lots.append([self._other_people(), *lines])


class Lambda:
    """Calls the handler, whose sandbox crashes now and then, before or after it has posted."""

    def __init__(self, dice: random.Random, crashes: float) -> None:
        self._dice = dice
        self._crashes = crashes
        self.crashed = 0

    def __call__(self, event: dict[str, Any]) -> dict[str, Any]:
        answer = relay.kinesis_handler(event, Context())
        if self._dice.random() < self._crashes:
            self.crashed += 1
            if self._dice.random() < 0.5:
                _restart()
            raise RuntimeError("crashed between posting and returning")
        if event["isFinalInvokeForWindow"] and self._dice.random() < 0.3:
            relay.kinesis_handler(event, Context())  # Lambda finishes a window twice.
        return answer


def shapes_of(dice: random.Random, lot: list[str]) -> bytes:
    """The data of a record of the stream, as one producer or another writes it."""
    roll = dice.random()
    if roll < 0.6:
        return subscription(lot)
    if roll < 0.8:
        return aggregated([subscription([one]) for one in lot])
    if roll < 0.9:
        return aggregated([one.encode() for one in lot])
    docker = {"source": "stdout", "container_name": "api"}
    return aggregated([json.dumps({**docker, "log": one}).encode() for one in lot])


def empty_queue(log: Log, dice: random.Random) -> None:
    """Lambda's dead-letter queue and destination of a function that CloudWatch invokes."""
    messages = []
    for at, lot in enumerate(log.queued):
        event: dict[str, Any] = {"awslogs": {"data": b64encode(subscription(lot)).decode()}}
        if dice.random() < 0.5:
            event = {"version": "1.0", "requestContext": {}, "requestPayload": event}
        messages.append({"messageId": f"m-{at}", "body": json.dumps(event)})
    while messages:
        received, messages = messages[:10], messages[10:]
        failed = relay.sqs_handler({"Records": received}, Context())["batchItemFailures"]
        again = {one["itemIdentifier"] for one in failed}
        # A text that is no frame is never read: at last the queue moves it aside.
        messages += [one for one in received if one["messageId"] in again and dice.random() < 0.5]
        if dice.random() < 0.1:
            messages += received[:1]  # A queue delivers at least once.


def windows_of(log: Log, dice: random.Random) -> list[list[dict[str, Any]]]:
    """The stream's records, some of them twice, by window."""
    numbered = [(at, shapes_of(dice, lot)) for at, lot in enumerate(log.lots)]
    size = -(-len(numbered) // WINDOWS)
    windows = []
    for at in range(0, len(numbered), size):
        lot = numbered[at : at + size]
        # A producer that hears nothing puts the same again, soon.
        again = [(number + 10**9, data) for number, data in lot if dice.random() < 0.05]
        for number, data in again:
            place = min(number - 10**9 - at + dice.randint(1, 50), len(lot))
            lot.insert(place, (number, data))
        windows.append([record(number, data) for number, data in lot])
    return windows


def check_named(log: Log, said: str, printed: str) -> None:
    """What cannot count is named, and what came of it is in the relay's log, for replay."""
    assembly = Assembly()
    for one in find_records(printed):
        assembly.add(one)
    known = {part.batch_id for part in assembly.begun()}
    for batch in log.damaged:
        assert f"batch {batch.id} " in said
        assert batch.id in known


def run(
    ingest: Ingest, seed: int, records: int, shards: int = 2, crashes: float = 0.05
) -> tuple[Log, Lambda]:
    dice = random.Random(seed)
    log = Log(dice, records)
    function = Lambda(dice, crashes)
    # The parts of a batch are of one log stream, and so of one shard.
    readers = [
        Shard(f"shardId-{number:012}", function, lambda: dice.choice((1.0, 0.5, 1.1)))
        for number in range(shards)
    ]
    for number, records_of_window in enumerate(windows_of(log, dice)):
        _bother(ingest, dice)
        reader = readers[number % shards]
        reader.window(records_of_window, dice.choice((100, 400)), ends_empty=dice.random() < 0.5)
    empty_queue(log, dice)
    return log, function


def _bother(ingest: Ingest, dice: random.Random) -> None:
    """What Doow and the network may do meanwhile."""
    ingest.clear_faults()
    ingest.fault(
        dice.choice(
            (
                Fault(rate_limit_s=1),
                Fault(status=503, headers={"Retry-After": "1"}, times=2),
                Fault(reset="before_answer", record_first=True, times=2),
                Fault(status=500, times=2),
                Fault(delay_s=0.1),
            )
        )
    )


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(seed, marks=pytest.mark.extensive) for seed in (2, 3))]
)
def test_every_event_counts_once(
    seed: int,
    ingest: Ingest,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Duplicates, parts that come apart or never, crashes, windows finished twice, 429, outages.

    And windows that are full after a few hundred lines, not after some ten thousand.
    """
    monkeypatch.setattr(_window, "MAX_EVENTS_LENGTH", 12_000)
    log, function = run(ingest, seed, RECORDS)
    assert totals(ingest.events()) == totals(events_of(*log.counted))
    assert function.crashed > 1
    assert len(log.damaged) > 20
    assert log.forged > 500
    sealed = {post.batch_id for post in ingest.posts()} - {one.id for one in log.counted}
    assert len(sealed) > 100
    assert ingest.conflicts == []
    check_named(log, caplog.text, capfd.readouterr().out)
