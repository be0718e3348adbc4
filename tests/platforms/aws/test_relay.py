"""The relay as a Lambda function, under AWS's runtime client, and killed where it hurts most."""

from __future__ import annotations

import json
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.fleet.stream import event_of
from doow_serverless._frames.format import BY_LOG, frames_of
from doow_serverless._recording.ids import new_id
from doow_serverless.local import Fault, Ingest
from doow_serverless.local.lambda_runtime import LambdaRuntime
from tests.batches import batch
from tests.network import KEY
from tests.streams import record, subscription

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from doow_serverless._sealing import Batch

pytest.importorskip("awslambdaric")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process")


@pytest.fixture
def ingest() -> Iterator[Ingest]:
    with Ingest(keys=[KEY]) as ingest:
        yield ingest


def relay(folder: Path, ingest: Ingest, **env: str) -> LambdaRuntime:
    """The function of ``relay.yaml``, whose handler is in the package."""
    variables = {"DOOW_TRACK_API_KEY": KEY, "DOOW_TRACK_ENDPOINT": ingest.url, **env}
    handler = "doow_serverless.relay.kinesis_handler"
    return LambdaRuntime(handler, folder, env=variables, timeout_s=8.0)


def window(batches: list[Batch], state: dict[str, Any], *, is_last: bool) -> dict[str, Any]:
    """An invocation of a window."""
    lines = [frames_of(one, BY_LOG, 1.0) for one in batches]
    records = [record(at, subscription(each)) for at, each in enumerate(lines)]
    return event_of(records, 0.0, state, is_final=is_last)


def ids_at(ingest: Ingest) -> list[str]:
    assert ingest.conflicts == []
    return sorted(str(event["event_id"]) for event in ingest.events())


def test_a_window(ingest: Ingest, tmp_path: Path) -> None:
    """It gathers, and delivers when the window closes, under one id."""
    lots = [[batch(3, batch_id=new_id()) for _ in range(4)] for _ in range(3)]
    with relay(tmp_path, ingest) as runtime:
        state: dict[str, Any] = {}
        for number, lot in enumerate(lots, 1):
            assert ingest.posts() == []
            answer = json.loads(runtime.invoke(window(lot, state, is_last=number == 3)).payload)
            state = answer["state"]
        assert answer == {"state": {}, "batchItemFailures": []}
    expected = [event_id for lot in lots for one in lot for event_id in one.event_ids]
    assert ids_at(ingest) == sorted(expected)
    assert len(ingest.posts()) == 1


def test_it_dies_between_posting_and_returning(ingest: Ingest, tmp_path: Path) -> None:
    """Lambda comes again, in another sandbox, with the same state and records."""
    lot = [batch(3, batch_id=new_id()) for _ in range(4)]
    event = window(lot, {}, is_last=True)
    ingest.fault(Fault(record_first=True, hang=True))
    with relay(tmp_path, ingest) as runtime:

        def kill() -> None:
            ingest.wait_for(12, 15)
            runtime.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        died = runtime.invoke(event)
        killer.join()
        assert died.error is not None
        answer = json.loads(runtime.invoke(event).payload)
    assert answer == {"state": {}, "batchItemFailures": []}
    assert ids_at(ingest) == sorted(event_id for one in lot for event_id in one.event_ids)
    assert [post.duplicate for post in ingest.posts()] == [False, True]


def test_an_outage(ingest: Ingest, tmp_path: Path) -> None:
    """What is not delivered within the timeout is Lambda's to bring again."""
    letter = batch(2)
    event = {"Records": [record(7, subscription(frames_of(letter, "TIMEOUT", 1.0)))]}
    ingest.stop()
    with relay(tmp_path, ingest) as runtime:
        answer = json.loads(runtime.invoke(event).payload)
        place = event["Records"][0]["kinesis"]["sequenceNumber"]
        assert answer == {"batchItemFailures": [{"itemIdentifier": place}]}
        ingest.start()
        assert json.loads(runtime.invoke(event).payload) == {"batchItemFailures": []}
    assert ids_at(ingest) == sorted(letter.event_ids)


def test_without_a_key(ingest: Ingest, tmp_path: Path) -> None:
    """The invocation fails, and says what to set."""
    with relay(tmp_path, ingest, DOOW_TRACK_API_KEY="") as runtime:
        answer = json.loads(runtime.invoke({"Records": []}).payload)
    assert answer["errorType"] == "ConfigurationError"
    assert "DOOW_TRACK_API_KEY" in answer["errorMessage"]
