"""Fixtures for the tests of users: ``pytest_plugins = ["doow_serverless.testing"]``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doow_serverless.local import Ingest


@pytest.fixture
def doow_ingest() -> Iterator[Ingest]:
    """A local ingest that runs for the time of one test; give ``doow_ingest.url`` as endpoint."""
    # Imported when it is used: the other fixtures need nothing of the extra "local".
    from doow_serverless.local import Ingest

    with Ingest() as ingest:
        yield ingest
