"""The relay on Azure Functions: an Event Hub, to which diagnostic settings export the log."""

from __future__ import annotations

from typing import Any

from doow_serverless._frames.envelopes import from_event_hub

from ._relay import shared

LIMIT_S = 240.0
"""Seconds that an invocation may take: the consumption plan allows 300 unless told otherwise."""


def event_hub_handler(events: Any) -> None:
    """Forward the usage in events of an Event Hub to Doow; the body of an Azure function.

    Diagnostic settings of Application Insights (traces) or of the function app itself
    (FunctionAppLogs) fill the hub. Of a record only the message counts, and only if the console
    wrote it.

    Args:
        events: One ``EventHubEvent``, or a list of them (``cardinality="many"``).

    Raises:
        Undelivered: The server did not decide on all batches. The host calls again only if
            ``host.json`` has a retry policy; otherwise the frames are only in the log.
        ConfigurationError: The API key is missing, a log key cannot be read, or the endpoint is
            wrong.
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
