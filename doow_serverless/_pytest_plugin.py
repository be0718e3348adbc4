"""The fixtures, which pytest finds by an entry point; each imports what it needs when asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doow_serverless.local import Ingest
    from doow_serverless.testing import MemoryTransport


@pytest.fixture
def doow_events() -> Iterator[MemoryTransport]:
    """What the functions of the package deliver in one test.

    As :func:`doow_serverless.testing.captured_events` says it, for the time of the test::

        def test_tokens_are_metered(doow_events):
            handler({"prompt": "…"}, lambda_context())
            assert doow_events.total("tokens", license_id="lic_acme") == 812
    """
    from doow_serverless.testing import captured_events

    with captured_events() as events:
        yield events


@pytest.fixture
def doow_ingest() -> Iterator[Ingest]:
    """A local ingest that runs for one test; give ``doow_ingest.url`` as endpoint."""
    from doow_serverless.local import Ingest  # It needs the extra "local".

    with Ingest() as ingest:
        yield ingest
