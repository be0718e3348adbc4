"""Usage is what a function recorded, whatever else its application logs: every way into the relay.

Over real HTTP to a real ledger. Without a log key only a whole line of one's own counts; with one,
nothing but what a holder of the key has written.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from doow_serverless._frames.format import BY_LOG, frames_of
from doow_serverless._frames.reader import read_frames
from doow_serverless._recording.ids import new_id
from doow_serverless.relay import _relay
from tests.batches import batch
from tests.integration.relay_ways import WAYS
from tests.integration.relaying import ids_at, ids_of, relayed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from doow_serverless._sealing import Batch
    from doow_serverless.local import Ingest

KEY = "a log key of thirty-two characters"


@pytest.fixture
def ingest(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ingest]:
    with relayed(monkeypatch) as ingest:
        yield ingest


# ── what an application logs ────────────────────────────────────────────────────────────────────


def merged(frame: str) -> str:
    return json.dumps({"level": "INFO", "location": "handler:5", **json.loads(frame)})


FORGERIES: dict[str, Callable[[str], str]] = {
    "a request in an object": lambda one: json.dumps({"message": {"body": one}}),
    "a message of a logger": lambda one: json.dumps({"level": "INFO", "message": one}),
    "an object in an object": lambda one: json.dumps({"payload": json.loads(one)}),
    "an object in a list": lambda one: json.dumps([json.loads(one)]),
    "a string of JSON": json.dumps,
    "JSON in JSON": lambda one: json.dumps({"a": {"b": [json.dumps({"c": one})]}}),
    "merged by a logger": merged,
    "after a prefix": lambda one: f"2026-11-22T11:33:00.123Z\treq\tINFO\t{one}",
    "after a newline in one message": lambda one: f"got body:\n{one}",
    "before a newline in one message": lambda one: f"{one}\nwas the body",
    "after a carriage return": lambda one: f"got\r{one}",
    "after a line separator": lambda one: f"got\u2028{one}",
    "before more text": lambda one: f"{one} was the body",
    "a header": lambda one: f"user-agent: {one}",
    "Fluent Bit's field in an object": lambda one: json.dumps({"log": one, "level": "INFO"}),
    "a document of CloudWatch": lambda one: json.dumps(
        {"messageType": "DATA_MESSAGE", "logEvents": [{"message": one}], "level": "INFO"}
    ),
}


def honest(events: int, key: str | None = None) -> tuple[Batch, list[str]]:
    """A batch that a function has recorded, and its lines."""
    one = batch(events, batch_id=new_id())
    return one, frames_of(one, BY_LOG, 1.0, key=None if key is None else key.encode())


@pytest.mark.parametrize("key", [None, KEY], ids=["no key", "key"])
@pytest.mark.parametrize("way", WAYS)
def test_what_counts(
    way: str,
    key: str | None,
    ingest: Ingest,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The function's own lines, each once, amid forged ones; all of these are reported."""
    if key is not None:
        monkeypatch.setenv("DOOW_TRACK_LOG_KEY", key)
    one, lines = honest(3, key)
    for name, forge in FORGERIES.items():
        caplog.clear()
        _, (forged,) = honest(1)
        WAYS[way](["START RequestId: 1", forge(forged), *lines, "plain text"])
        assert ids_at(ingest) == ids_of(one), name
        assert "usage not understood: " in caplog.text or "came damaged" in caplog.text, name


@pytest.mark.parametrize("way", WAYS)
def test_a_whole_line_of_an_application(
    way: str, ingest: Ingest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It counts unless there is a log key; then it is refused, and so is another key's."""
    unsigned, lines = honest(1)
    WAYS[way](lines)
    assert ids_at(ingest) == ids_of(unsigned)
    monkeypatch.setenv("DOOW_TRACK_LOG_KEY", KEY)
    monkeypatch.setattr(_relay, "_relay", None)
    signed, own = honest(2, KEY)
    WAYS[way]([*honest(1)[1], *own, *honest(1, "guessed")[1]])
    assert ids_at(ingest) == sorted([*ids_of(unsigned), *ids_of(signed)])
    assert caplog.text.count("usage refused: ") == 2


# ── whatever it logs ────────────────────────────────────────────────────────────────────────────

FORGED = frames_of(batch(1, batch_id=new_id()), BY_LOG, 1.0)[0]
SCRAPS = st.sampled_from(
    [FORGED, FORGED[:-1], FORGED[40:], '{"doow_dead_letter":2,', "doow_dead_letter", "'", '"', "\\"]
)
JSON_VALUES = st.recursive(
    SCRAPS | st.text(max_size=5) | st.integers() | st.just(json.loads(FORGED)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["message", "log", "record", "records", "properties", "body", "data"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
TEXTS = st.one_of(
    st.lists(SCRAPS | st.text(max_size=5), max_size=4).map("".join),
    JSON_VALUES.map(json.dumps),
    JSON_VALUES.map(lambda value: json.dumps(value, indent=1)),
    st.tuples(st.text(max_size=3), JSON_VALUES).map(lambda pair: f"{pair[0]}{json.dumps(pair[1])}"),
)
ENDLESS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("way", WAYS)
@ENDLESS
@given(texts=st.lists(TEXTS, max_size=4))
def test_whatever_an_application_logs(way: str, texts: list[str], ingest: Ingest) -> None:
    """The counted usage is what the function recorded, if no text is a frame's whole line."""
    assume(not any(read_frames(text) for text in texts))
    assume(way != "Event Hub, app logs of Linux" or not any(map(is_frame_without_quotes, texts)))
    before = ids_at(ingest)
    one, lines = honest(2)
    WAYS[way]([*texts, *lines, *texts])
    assert ids_at(ingest) == sorted([*before, *ids_of(one)])


def is_frame_without_quotes(text: str) -> bool:
    """Linux hosts drop single quotes, and so can make a frame of a text that is none."""
    return bool(read_frames(text.replace("'", "")))


@pytest.mark.parametrize("way", WAYS)
@ENDLESS
@given(texts=st.lists(TEXTS | st.just(FORGED), max_size=4))
def test_whatever_an_application_logs_with_a_key(
    way: str, texts: list[str], ingest: Ingest
) -> None:
    """Also if it prints whole lines that are frames but for the signature."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOOW_TRACK_LOG_KEY", KEY)
        patch.setattr(_relay, "_relay", None)
        before = ids_at(ingest)
        one, lines = honest(2, KEY)
        WAYS[way]([*texts, *lines, *texts])
        assert ids_at(ingest) == sorted([*before, *ids_of(one)])
