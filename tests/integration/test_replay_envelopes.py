"""Replay finds dead letters in the logs of each platform, however they are exported."""

from __future__ import annotations

import csv
import gzip
import io
import json
from typing import TYPE_CHECKING

import pytest

from doow_serverless.cli.replay_input import blocks_of
from doow_serverless.cli.replaying import Ledger, Replay
from tests.batches import batch
from tests.integration.replaying import lines_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


# ── envelopes ───────────────────────────────────────────────────────────────────────────────────


def filter_log_events(lines: Sequence[str]) -> str:
    """``aws logs filter-log-events``."""
    events = [
        {"logStreamName": "2026/11/22/[$LATEST]0a", "timestamp": 1, "message": f"{line}\n"}
        for line in lines
    ]
    return json.dumps({"events": events, "searchedLogStreams": []}, indent=4)


def tail(lines: Sequence[str]) -> str:
    """``aws logs tail``."""
    return "".join(
        f"2026-11-22T11:33:00.123000+00:00 2026/11/22/[$LATEST]0a {line}\n" for line in lines
    )


def tail_json(lines: Sequence[str]) -> str:
    """``aws logs tail --format json``, which prints JSON prettily."""
    return "".join(
        f"2026-11-22T11:33:00.123000+00:00 {json.dumps(json.loads(line), indent=4)}\n"
        for line in lines
    )


def lambda_json(lines: Sequence[str]) -> str:
    """Lambda's JSON log format."""
    return "".join(
        json.dumps({"timestamp": "2026-11-22T11:33:00Z", "level": "INFO", "message": line}) + "\n"
        for line in lines
    )


def telemetry(lines: Sequence[str]) -> str:
    """Lambda's telemetry, which takes JSON for an object and sorts its keys."""
    return json.dumps(
        [{"type": "function", "record": json.loads(n)} for n in lines], sort_keys=True
    )


def vercel(lines: Sequence[str]) -> str:
    """``vercel logs --json``."""
    return "".join(json.dumps({"id": "1", "message": f"{n}\n", "type": "stdout"}) for n in lines)


def insights_lines(lines: Sequence[str]) -> str:
    """Application Insights, continuous export."""
    return "\n".join(
        json.dumps({"message": n, "customDimensions": {"Category": "Function"}}) for n in lines
    )


def insights_query(lines: Sequence[str]) -> str:
    """Application Insights, answer of the query API as a .NET program writes it."""
    rows = [["2026-11-22T11:33:00.123Z", line, {"a": "b"}] for line in lines]
    answer = json.dumps({"tables": [{"name": "PrimaryResult", "rows": rows}]})
    return answer.replace('\\"', "\\u0022").replace("+", "\\u002B")


def insights_csv(lines: Sequence[str]) -> str:
    """Application Insights, CSV of the portal."""
    file = io.StringIO()
    csv.writer(file).writerows([["timestamp", "message"], *(["2026-11-22", n] for n in lines)])
    return file.getvalue()


@pytest.mark.parametrize(
    "envelope",
    [
        "\n".join, filter_log_events, tail, tail_json, lambda_json, telemetry, vercel,
        insights_lines, insights_query, insights_csv,
    ],
)  # fmt: skip
def test_every_envelope(envelope: Callable[[Sequence[str]], str], tmp_path: Path) -> None:
    """However a log was exported, all is found, also in gzip and in UTF-16."""
    batches = [batch(2, batch_id="a"), batch(80, noise=900, batch_id="b")]
    noise = ["START RequestId: 1", '{"level":"INFO","message":"{}"}']
    text = "\n".join([*noise, envelope(lines_of(*batches)), *noise])

    for content in (text.encode(), gzip.compress(text.encode()), text.encode("utf-16")):
        path = tmp_path / "log"
        path.write_bytes(content)
        taken = Replay(None, Ledger(None, ""))
        with path.open("rb") as stream:
            taken.read(blocks_of(stream))
        assert (taken.found.batches, taken.found.events, taken.problems()) == (2, 82, [])
