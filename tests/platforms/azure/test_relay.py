"""The relay as an Azure function, under Azure's worker libraries."""

from __future__ import annotations

import json
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from doow_serverless._frames.format import BY_LOG, frames_of
from doow_serverless.local.azure import triggers
from doow_serverless.local.azure.host import AzureHost
from tests.batches import batch
from tests.network import KEY
from tests.platforms.azure.apps import both_ends, settings, write_v2
from tests.runtimes.azure.environments import pythons

if TYPE_CHECKING:
    from pathlib import Path

    from doow_serverless._sealing import Batch
    from doow_serverless.local import Ingest

APPLICATION = dedent(
    """
    from typing import List

    import azure.functions as func
    from doow_serverless.relay import event_hub_handler

    app = func.FunctionApp()

    @app.event_hub_message_trigger(arg_name="event", event_hub_name="usage", connection="HUB")
    def one(event: func.EventHubEvent):
        event_hub_handler(event)

    @app.event_hub_message_trigger(
        arg_name="events", event_hub_name="usage", connection="HUB", cardinality="many"
    )
    def many(events: List[func.EventHubEvent]):
        event_hub_handler(events)
    """
)


def exported(one: Batch) -> str:
    """What diagnostic settings of Application Insights export."""
    lines = frames_of(one, BY_LOG, 1.0)
    return json.dumps({"records": [{"category": "AppTraces", "Message": line} for line in lines]})


@both_ends
@pytest.mark.parametrize("cardinality", ["one", "many"])
def test_event_hubs(cardinality: str, python: Path, tmp_path: Path, ingest: Ingest) -> None:
    """What the hub delivers twice counts once."""
    batches = [batch(2), batch(300, noise=100)]
    write_v2(tmp_path, APPLICATION)
    env = settings(ingest.url)
    with AzureHost(tmp_path, python=python, model="v2", env=env) as host:
        assert host.index_error is None
        for _ in range(2):
            if cardinality == "many":
                trigger = triggers.event_hub_events([exported(one) for one in batches])
                assert host.invoke("many", {"events": trigger}).error is None
            else:
                for one in batches:
                    trigger = triggers.event_hub_event(exported(one))
                    assert host.invoke("one", {"event": trigger}).error is None
    expected = sorted(event_id for one in batches for event_id in one.event_ids)
    assert sorted(str(event["event_id"]) for event in ingest.events()) == expected
    assert ingest.conflicts == []


def test_an_outage_fails_the_invocation(tmp_path: Path, ingest: Ingest) -> None:
    """So that a retry policy of the host has it come again."""
    write_v2(tmp_path, APPLICATION)
    ingest.revoke(KEY)
    with AzureHost(tmp_path, python=pythons()[-1], model="v2", env=settings(ingest.url)) as host:
        done = host.invoke("one", {"event": triggers.event_hub_event(exported(batch(1)))})
        assert "Undelivered" in str(done.error)
