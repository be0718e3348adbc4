"""A relay that delivers to a local ingest, what it is given, and what has arrived."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from doow_serverless._frames.format import BY_LOG, frames_of
from doow_serverless.local import Ingest
from doow_serverless.relay import _relay
from tests.network import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from doow_serverless._sealing import Batch


@contextmanager
def relayed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ingest]:
    """An ingest to which the relay of this process, a new one, delivers."""
    with Ingest(keys=[KEY]) as ingest:
        monkeypatch.setenv("DOOW_TRACK_API_KEY", KEY)
        monkeypatch.setenv("DOOW_TRACK_ENDPOINT", ingest.url)
        monkeypatch.setattr(_relay, "_relay", None)
        yield ingest


def restart() -> None:
    """The process is replaced."""
    _relay._relay = None


def lines(one: Batch, reason: str = BY_LOG, **options: Any) -> list[str]:
    return frames_of(one, reason, 1.0, **options)


def ids_at(ingest: Ingest) -> list[str]:
    assert ingest.conflicts == []
    return sorted(str(event["event_id"]) for event in ingest.events())


def ids_of(*batches: Batch) -> list[str]:
    return sorted(event_id for one in batches for event_id in one.event_ids)
