"""The whole package against real sockets, processes and signals, on loopback."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless import Tracker
    from doow_serverless.local import Ingest
from tests.integration.services import Service


@pytest.fixture
def service(ingest: Ingest, new_tracker: Callable[..., Tracker]) -> Service:
    """A function whose events go to the local ingest."""
    return Service(new_tracker, ingest.url)
