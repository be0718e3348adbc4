"""Functions under Azure's own worker libraries, on each Python that these are installed for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.platforms.azure.apps import forget

if TYPE_CHECKING:
    from doow_serverless.local import Ingest


@pytest.fixture
def slow_ingest(ingest: Ingest) -> Ingest:
    """An ingest that takes its time for each answer."""
    forget(ingest)
    return ingest
