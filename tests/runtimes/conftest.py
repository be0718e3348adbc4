"""The stand-ins for the platforms behave as the platforms do: that alone is tested in this folder.

Each folder holds what a platform runs around its own code (for AWS that ships, as
``doow_serverless.local.lambda_runtime``) and the tests of it, with functions that meter nothing.
Nothing of ours is proven here. What ours promises on these platforms is proven in
``tests/platforms``, and is worth as much as what is proven here.
"""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(scope="session", autouse=True)
def _processes_can_be_stopped() -> None:
    if sys.platform == "win32":
        pytest.skip("Windows cannot stop a process")
