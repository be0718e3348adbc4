"""The relay on Azure Functions: an Event Hub, to which diagnostic settings export the log."""

from __future__ import annotations

from typing import Any

from doow_serverless._frames.envelopes import from_event_hub

from ._relay import shared

LIMIT_S = 240.0
"""Seconds that an invocation may take: the consumption plan allows 300 unless told otherwise."""


def event_hub_handler(events: Any) -> None:
    """Bring the records in events of an Event Hub to Doow; the body of an Azure function.

    Args:
        events: One ``EventHubEvent``, or a list of them (``cardinality="many"``).

    Raises:
        Undelivered: The server did not decide on all batches. The host comes again only where
            ``host.json`` has a retry policy; else it goes on, and the records stay in the log.
        ConfigurationError: The key is missing, or the endpoint is wrong.
    """
    lot = events if isinstance(events, (list, tuple)) else [events]
    relay = shared()
    intake = relay.intake()
    joined = relay.join(
        frame for event in lot for frame in intake.read(from_event_hub(event.get_body()))
    )
    intake.report()
    relay.report_incomplete(joined.new)
    relay.deliver([letter.batch for letter in joined.letters], LIMIT_S)
