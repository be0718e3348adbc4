"""What each platform's own protocol asks of us, on its real frameworks and servers.

Promises that hold on every platform are in tests/conformance; that our stand-ins for the platforms
do as the platforms do is in tests/runtimes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.metering import Trace

if TYPE_CHECKING:
    from doow_serverless.local import Ingest


@pytest.fixture
def trace(ingest: Ingest) -> Trace:
    """What happened, in order, under a default tracker that delivers to a slow ingest."""
    return Trace(ingest)
