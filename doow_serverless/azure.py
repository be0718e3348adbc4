"""Azure Functions: ``track_app`` tracks all functions of a ``FunctionApp`` or a ``Blueprint``."""

from __future__ import annotations

from ._platforms.azure import track_app

__all__ = ["track_app"]
