"""What the tests of the examples share with those of their platforms."""

from __future__ import annotations

from tests.platforms.conftest import vercel_python

__all__ = ["vercel_python"]
