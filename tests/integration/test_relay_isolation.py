"""What Doow cannot digest is set aside by the relay, and holds up nothing; over real HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.fleet.stream import Context
from doow_serverless import relay
from doow_serverless._delivery import blame, patient
from doow_serverless.local import Fault
from doow_serverless.relay import _relay
from tests.batches import batch, read_back
from tests.integration.relaying import ids_at, ids_of, lines, relayed, restart
from tests.streams import record, subscription

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doow_serverless._sealing import Batch
    from doow_serverless.local import Ingest


@pytest.fixture
def ingest(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ingest]:
    with relayed(monkeypatch) as ingest:
        yield ingest


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that has little patience, and to which a part of a second counts as minutes."""
    monkeypatch.setattr(patient, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(patient, "LONGEST_PAUSE_S", 0.1)
    monkeypatch.setattr(_relay, "PATIENCE_S", 0.1)
    monkeypatch.setattr(blame, "PATIENCE_S", 0.3)


def relay_all(*batches: Batch, others: bool = False) -> list[Batch]:
    """Bring batches until the relay is done with them, beside others that are well; all of them."""
    brought = list(batches)
    for _ in range(40):
        if others:
            brought.append(batch())
        records = [record(at, subscription(lines(one))) for at, one in enumerate(brought)]
        answer = relay.kinesis_handler({"Records": records}, Context(left_s=5.0))
        if not answer["batchItemFailures"]:
            return brought
    raise AssertionError("the batches hold up the stream for ever")


@pytest.mark.usefixtures("hasty")
def test_one_event_does_not_hold_up_the_others(
    ingest: Ingest, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is told, and written down for ``replay``; the stream goes on."""
    one, two = batch(9), batch(2)
    bad = one.event_ids[4]
    ingest.fault(Fault(status=500, only=[bad], times=None))
    relay_all(one, two)
    assert ids_at(ingest) == sorted({*ids_of(one, two)} - {bad})
    assert f"event {bad} cannot be delivered, though others can" in caplog.text
    (kept,) = read_back(capfd.readouterr().out)
    assert kept[1] == (bad,)


@pytest.mark.usefixtures("hasty")
def test_a_process_that_is_replaced_amid_it(ingest: Ingest) -> None:
    """Nothing counts twice: the halves are known by their ids."""
    one = batch(9)
    ingest.fault(Fault(status=500, only=[one.event_ids[4]], times=None))
    event = {"Records": [record(0, subscription(lines(one)))]}
    relay.kinesis_handler(event, Context(left_s=5.0))
    restart()
    relay_all(one)
    restart()
    relay_all(one)
    assert ids_at(ingest) == sorted({*one.event_ids} - {one.event_ids[4]})


@pytest.mark.usefixtures("hasty")
def test_a_process_that_is_replaced_before_all_is_settled(
    ingest: Ingest, capfd: pytest.CaptureFixture[str]
) -> None:
    """The next one does not know of the half that got through, and the server is well again."""
    one = batch(4)
    ingest.fault(Fault(status=500, only=[one.event_ids[3]], times=None))
    event = {"Records": [record(0, subscription(lines(one)))]}
    for left_s in (3.5, 4.0, 5.0, 9.0):
        answer = relay.kinesis_handler(event, Context(left_s=left_s))
        if not answer["batchItemFailures"]:
            break
        restart()
    ingest.clear_faults()
    restart()
    if answer["batchItemFailures"]:
        relay.kinesis_handler(event, Context())
    written = [event_id for kept in read_back(capfd.readouterr().out) for event_id in kept[1]]
    assert sorted([*ids_at(ingest), *written]) == ids_of(one)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("events", [1, 3])
@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 504, "record_first": True}])
def test_batches_that_always_fail(
    fault: dict[str, Any],
    events: int,
    ingest: Ingest,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """What comes besides gets through; so it is them. What Doow may have is set aside whole."""
    bad = [batch(events), batch(events)]
    ingest.fault(Fault(**fault, only=ids_of(*bad), times=None))
    brought = relay_all(*bad, others=True)
    assert {*ids_of(*brought)} - {*ids_at(ingest)} <= {*ids_of(*bad)}
    kept = read_back(capfd.readouterr().out)
    is_whole = events == 1 or "record_first" in fault
    names = [one.id for one in bad] if is_whole else ids_of(*bad)
    assert sorted(one[0] if is_whole else one[1][0] for one in kept) == sorted(names)
    if not is_whole:
        return
    for one in bad:
        name = f"event {one.event_ids[0]}" if events == 1 else f"batch {one.id} of {events} events"
        assert f"{name} cannot be delivered, though others can" in caplog.text


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("events", [1, 4])
def test_an_outage_is_no_fault_of_a_batch(
    events: int, ingest: Ingest, capfd: pytest.CaptureFixture[str]
) -> None:
    """Where nothing gets through, nothing is set aside, however long it lasts."""
    ingest.fault(Fault(status=500, times=None))
    event = {"Records": [record(0, subscription(lines(batch(events))))]}
    for _ in range(3):
        assert relay.kinesis_handler(event, Context(left_s=5.0))["batchItemFailures"]
    assert capfd.readouterr().out == ""


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("times", [1, None])
def test_what_a_gateway_has_lost_stays_whole(times: int | None, ingest: Ingest) -> None:
    """Doow may have it: its halves would count again, whatever it answers later."""
    one = batch(4)
    ingest.fault(Fault(status=504, only=one.event_ids[:1], times=times, record_first=True))
    ingest.fault(Fault(status=500, only=one.event_ids[:1], times=None))
    event = {"Records": [record(0, subscription(lines(one)))]}
    assert relay.kinesis_handler(event, Context(left_s=5.0))["batchItemFailures"]
    assert {post.batch_id for post in ingest.posts()} == {one.id}
