"""Handlers as Lambda calls them: in this process with a context of ours, or in AWS's own client.

That the stand-in for Lambda itself does as Lambda does is in tests/runtimes/aws.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from doow_serverless._recording.scope import current
from doow_serverless.testing import MemoryTransport
from tests.platforms.aws.handlers import Silent, configure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import doow_serverless as doow
    from doow_serverless.local import Ingest


@pytest.fixture
def events() -> Iterator[MemoryTransport]:
    """The default tracker sends into memory."""
    transport = MemoryTransport()
    configure(transport)
    yield transport
    assert current.get() is None


@pytest.fixture
def silent() -> Iterator[Silent]:
    transport = Silent()
    yield transport
    transport.may_answer.set()


@pytest.fixture
def strict_events() -> MemoryTransport:
    """The same, of a default tracker that raises where an event is wrong."""
    transport = MemoryTransport()
    configure(transport, strict=True)
    return transport


@pytest.fixture
def tracker(ingest: Ingest, new_tracker: Callable[..., doow.Tracker]) -> doow.Tracker:
    """A tracker that delivers to the ingest, and raises where an event is wrong."""
    return new_tracker(ingest.url, strict=True, budget=5)
