"""Reads a log strictly line by line: a whole line is a frame, or it is none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from doow_serverless._frames.assembly import Assembly
from doow_serverless._frames.format import MARKER
from doow_serverless._frames.reader import Part, read_frame

if TYPE_CHECKING:
    from doow_serverless._frames.assembly import DeadLetter


def frames_in(text: str) -> list[Part]:
    """Return the frames of a log; every mention of the marker must be one, and whole."""
    lines = text.split("\n")
    frames = [frame for line in lines if isinstance(frame := read_frame(line), Part)]
    assert len(frames) == sum(MARKER in line for line in lines)
    return frames


def letters_in(text: str) -> list[DeadLetter]:
    """Return the batches of a log, each once; none may lack a part."""
    assembly = Assembly()
    letters = [letter for one in frames_in(text) if (letter := assembly.add(one))]
    assert assembly.problems() == []
    return letters


def events_in(text: str) -> list[dict[str, Any]]:
    """Return the events of a log, in the order of their batches."""
    return [event for one in letters_in(text) for event in json.loads(one.batch.json())["events"]]


def event_ids_in(text: str) -> list[str]:
    """Return the ids of the events of a log, in the order of their batches."""
    return [event["event_id"] for event in events_in(text)]
