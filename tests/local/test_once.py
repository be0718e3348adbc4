"""What the local ingest records it records once, and keeps over a kill."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests

from doow_serverless.local import Fault, Ingest
from tests.local.posting import answered, batch, command, endpoint, event, event_ids, post, until
from tests.network import KEY

if TYPE_CHECKING:
    from pathlib import Path


# ── recorded once ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fields", [{}, {"license_id": ""}])
def test_a_batch_is_recorded_once(ingest: Ingest, fields: dict[str, Any]) -> None:
    """The same batch again gets the same answer, and adds nothing; compression is no difference."""
    content = batch(event("evt_1"), event("evt_2", **fields))
    first = post(ingest, content)
    recorded = ingest.events()
    again = post(ingest, content, gzipped=True)

    assert answered(again) == answered(first)
    assert ingest.events() == recorded
    assert [each.duplicate for each in ingest.posts()] == [False, True]
    assert ingest.conflicts == []


def test_a_batch_in_flight(ingest: Ingest) -> None:
    """While one POST is handled, another of the same batch is told to come back."""
    ingest.fault(Fault(delay_s=0.5))
    with ThreadPoolExecutor() as threads:
        first = threads.submit(post, ingest, batch())
        assert until(lambda: any(one.batch_id for one in ingest.posts()))
        meanwhile = post(ingest, batch())

    assert (meanwhile.status_code, meanwhile.headers["retry-after"]) == (503, "1")
    assert first.result().status_code == post(ingest, batch()).status_code == 202
    assert event_ids(ingest) == ["evt_1"]


def test_a_batch_that_changed_is_noticed(ingest: Ingest) -> None:
    """One batch id with two contents is answered as a duplicate, and told to the test."""
    post(ingest, batch(event("evt_1")))
    response = post(ingest, batch(event("evt_2")))

    assert answered(response) == (202, {"accepted": 1, "rejected": 0, "batch_id": "batch_1"})
    assert event_ids(ingest) == ["evt_1"]
    assert ingest.conflicts == ["batch_1"]


def test_an_event_of_two_batches_counts_twice(ingest: Ingest) -> None:
    """Like the real server this one knows batches only, so that counting twice can be seen."""
    post(ingest, batch(batch_id="a"))
    post(ingest, batch(batch_id="b"))
    assert [(each["batch_id"], each["event_id"]) for each in ingest.events()] == [
        ("a", "evt_1"),
        ("b", "evt_1"),
    ]


def test_many_connections_at_once(ingest: Ingest) -> None:
    """Concurrent batches are each recorded once, whole."""
    batches = [batch(*(event(f"{n}-{m}") for m in range(20)), batch_id=str(n)) for n in range(16)]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda each: post(ingest, each).status_code, batches * 2))

    assert found == [202] * 32
    assert sorted(event_ids(ingest)) == sorted(f"{n}-{m}" for n in range(16) for m in range(20))
    assert sum(each.duplicate for each in ingest.posts()) == 16


def test_an_answered_event_survives_a_kill(tmp_path: Path) -> None:
    """What was answered is in the file after a SIGKILL, and the batch is still known."""
    database = tmp_path / "ledger.sqlite"
    with command("--port", "0", "--database", str(database)) as process:
        url = endpoint(process)
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        requests.post(f"{url}/telemetry/events", json=batch(), headers=headers, timeout=5)
        process.kill()
        process.wait(5)

    with Ingest(database) as ingest:
        again = post(ingest, batch())
        assert again.status_code == 202
        assert [each.duplicate for each in ingest.posts()] == [True]
        assert event_ids(ingest) == ["evt_1"]
