"""A function that meters ten events, as users write it: decorated, and configured by variables."""

from __future__ import annotations

from typing import Any

import doow_serverless as doow


@doow.tracked
def handler(event: Any, context: Any) -> str:
    """Ten events, and then it computes until the platform kills it, if it is told to."""
    for number in range(10):
        doow.track("tokens", number + 1, attribution={"serial": str(number)})
    while event.get("compute"):
        sum(one * one for one in range(2_000))
    return "done"
