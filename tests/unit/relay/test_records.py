"""Records are found in whatever a platform wraps them in, and nowhere else."""

from __future__ import annotations

import gzip
import json

import pytest

from doow_serverless._frames.format import BY_LOG, frames_of
from doow_serverless._frames.reader import Damage, Part
from doow_serverless.relay import _records
from doow_serverless.relay._records import records_in
from tests.batches import batch

ONE, TWO = batch(2), batch(3)
LINE, OTHER = (frames_of(each, BY_LOG, 1.0)[0] for each in (ONE, TWO))


def ids_in(data: bytes | str) -> list[str | None]:
    found = list(records_in(data))
    assert all(isinstance(one, Part) for one in found)
    return [one.batch_id for one in found]


def subscription(*messages: str) -> bytes:
    """What CloudWatch Logs hands to a stream, or to Lambda."""
    events = [{"id": str(at), "timestamp": 1, "message": one} for at, one in enumerate(messages)]
    said = {"messageType": "DATA_MESSAGE", "logGroup": "/aws/lambda/api", "logEvents": events}
    return gzip.compress(json.dumps(said).encode())


@pytest.mark.parametrize(
    "data",
    [
        f"{LINE}\n{OTHER}\n",
        f"START RequestId: 1\n{LINE}\nplain text\n  {OTHER}  \nEND",
        f"{LINE}\n{OTHER}".encode(),
        subscription(LINE, "something else", OTHER),
        subscription(f"{LINE}\n{OTHER}\n"),
        gzip.compress(f"{LINE}\n{OTHER}\n".encode()),
        gzip.compress(f"{LINE}\n".encode()) + gzip.compress(f"{OTHER}\n".encode()),
        json.dumps([{"message": LINE}, {"message": f"a line before\n{OTHER}"}]),
        json.dumps([{"message": LINE}, {"message": OTHER}], indent=2),
        "\n".join(json.dumps({"message": one, "source": "lambda"}) for one in (LINE, OTHER)),
        json.dumps({"records": [{"properties": {"message": one}} for one in (LINE, OTHER)]}),
        json.dumps({"records": [json.loads(one) for one in (LINE, OTHER)]}),
        json.dumps(json.dumps({"message": [LINE, OTHER]})),
        json.dumps([json.loads(LINE), json.loads(OTHER)], sort_keys=True),
    ],
)
def test_envelopes(data: bytes | str) -> None:
    """Text, gzip, JSON in all its shapes, JSON within JSON."""
    assert ids_in(data) == [ONE.id, TWO.id]


@pytest.mark.parametrize(
    "text",
    [
        f"GET / 200 agent={LINE}",
        json.dumps({"headers": {"user-agent": f"x {LINE}"}}),
        json.dumps({"message": f"the customer said: {LINE}"}),
        f"a\u2028{LINE}",
        f"a\r{LINE}",
        f"[{LINE}",
        "doow_dead_letter",
        '{"doow": "doow_dead_letter"}',
        "",
        "null",
        "[" * 100_000 + "doow_dead_letter",
    ],
)
def test_a_record_within_a_line_is_none(text: str) -> None:
    """Whoever can have a part of a line logged cannot report usage by it."""
    assert list(records_in(text)) == []


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (LINE[:200], "is cut off or altered"),
        (subscription(LINE[:-20]), "is cut off or altered"),
        (LINE.replace(ONE.id, TWO.id), None),
        (LINE.replace('"doow_dead_letter":1', '"doow_dead_letter":2'), "is of a later version"),
        (subscription(LINE)[:-20], "is no whole gzip"),
        (b"\x1f\x8b nonsense", "is no whole gzip"),
    ],
)
def test_damage_is_told(data: bytes | str, why: str | None) -> None:
    found = list(records_in(data))
    assert len(found) == 1
    assert isinstance(found[0], Damage) == (why is not None)
    assert why is None or why in getattr(found[0], "why", "")


def test_a_gzip_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    """What unpacks to more than any platform packs is not unpacked any further."""
    monkeypatch.setattr(_records, "MAX_TEXT", 100_000)
    found = list(records_in(gzip.compress(b"a" * 1_000_000 + LINE.encode())))
    assert isinstance(found[0], Damage)


@pytest.mark.parametrize("levels", [1, 5, 40, 300, 900, 100_000])
def test_nesting(levels: int) -> None:
    """What no envelope has is not followed to its end, and raises nothing: it would come again."""
    value = "[" * levels + json.dumps(LINE) + "]" * levels
    assert ids_in(value) == ([ONE.id] if levels < 30 else [])
    value = '{"a":' * levels + json.dumps(LINE) + "}" * levels
    assert ids_in(value) == ([ONE.id] if levels < 30 else [])
