"""A function that prints what a visitor sends, and a relay, both under AWS's runtime client."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.fleet.stream import event_of
from doow_serverless._frames.format import BY_LOG, frames_of
from doow_serverless.local import Ingest
from doow_serverless.local.lambda_runtime import LambdaRuntime
from tests.batches import batch
from tests.network import KEY
from tests.streams import record, subscription

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("awslambdaric")

CALLS = 5
PRINTS = """
import doow_serverless as doow

@doow.tracked
def handler(event, context):
    doow.track("tokens", 7, license_id="lic_1")
    print("said:\\n" + event["body"])
"""
"""Its log has whole lines of the visitor's."""


def printed(folder: Path, body: str, **env: str) -> list[str]:
    """The lines that the function writes, called so many times with this body."""
    (folder / "prints.py").write_text(PRINTS)
    variables = {"DOOW_TRACK_DELIVERY": "log", **env}
    with LambdaRuntime("prints.handler", folder, env=variables) as function:
        for _ in range(CALLS):
            assert function.invoke({"body": body}).error is None, function.stdout
        return [line for line in function.stdout.splitlines() if line.strip()]


@pytest.mark.parametrize(
    ("signs", "verifies", "expected"),
    [
        # What holds without a key: the visitor's line counts, each time as the same batch.
        ({}, {}, {7: CALLS, 1: 3}),
        ({"DOOW_TRACK_LOG_KEY": "key"}, {}, {7: CALLS, 1: 3}),
        ({"DOOW_TRACK_LOG_KEY": "key"}, {"DOOW_TRACK_LOG_KEY": "key"}, {7: CALLS}),
        (
            {"DOOW_TRACK_LOG_KEY": "old"},
            {"DOOW_TRACK_LOG_KEY": "new", "DOOW_TRACK_LOG_KEY_PREVIOUS": "old"},
            {7: CALLS},
        ),
        ({}, {"DOOW_TRACK_LOG_KEY": "key"}, {}),
        ({"DOOW_TRACK_LOG_KEY": "other"}, {"DOOW_TRACK_LOG_KEY": "key"}, {}),
    ],
)
def test_whose_usage_counts(
    signs: dict[str, str], verifies: dict[str, str], expected: dict[int, int], tmp_path: Path
) -> None:
    """With the key of the function, what the function has recorded, and nothing else."""
    [forged] = frames_of(batch(3), BY_LOG, 1.0)
    lines = printed(tmp_path, forged, **signs)
    assert lines.count(forged) == CALLS
    event = event_of([record(0, subscription(lines))], 0.0, {}, is_final=True)
    with Ingest(keys=[KEY]) as ingest:
        variables = {"DOOW_TRACK_API_KEY": KEY, "DOOW_TRACK_ENDPOINT": ingest.url, **verifies}
        handler = "doow_serverless.relay.kinesis_handler"
        with LambdaRuntime(handler, tmp_path, env=variables, timeout_s=8.0) as relay:
            answer: Any = json.loads(relay.invoke(event).payload)
            assert answer == {"state": {}, "batchItemFailures": []}
            assert ("usage refused: " in relay.stdout) is bool(verifies)
        counted = Counter(
            one["quantity"] for each in ingest.events() for one in each["measurements"]
        )
    assert counted == expected
