"""Every kind of trigger reaches its function with its metadata, and every output comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless.local.azure import triggers

if TYPE_CHECKING:
    from doow_serverless.local.azure.host import AzureHost

EVERY_TRIGGER: list[tuple[str, dict[str, Any], dict[str, Any], Any]] = [
    ("tick", {"timer": triggers.timer(past_due=True)}, {"out": "True"}, None),
    (
        "on_queue",
        {"msg": triggers.queue_message("b", id="q-1", dequeue_count=3, pop_receipt="r")},
        {},
        "b|q-1|3|r",
    ),
    (
        "on_bus",
        {"msg": triggers.service_bus_message("b", message_id="m-7", delivery_count=2)},
        {"out": "b|m-7|2"},
        None,
    ),
    (
        "on_bus_batch",
        {"msgs": triggers.service_bus_messages(["a", "b"], message_ids=["m-1", "m-2"])},
        {"out": "('a', 'm-1')|('b', 'm-2')"},
        None,
    ),
    (
        "on_event",
        {"event": triggers.event_hub_event("b", partition="3", sequence_number=9)},
        {"out": b"b|9|3"},
        None,
    ),
    (
        "on_events",
        {"events": triggers.event_hub_events(["a", "b"], partition="1")},
        {"out": "('a', 1, '1')|('b', 2, '1')"},
        None,
    ),
    (
        "on_blob",
        {"blob": triggers.blob(b"content", name="c/x.txt")},
        {"out": "content|c/x.txt|7"},
        None,
    ),
    (
        "on_documents",
        {"docs": triggers.cosmos_documents({"id": "1"}, {"id": "2"})},
        {"out": [{"id": "1+2"}]},
        None,
    ),
    (
        "on_grid",
        {"event": triggers.event_grid_event({"n": 1}, id="e-5")},
        {"out": "e-5|Test.Happened|{'n': 1}"},
        None,
    ),
]


@pytest.mark.parametrize(
    ("name", "inputs", "outputs", "return_value"), EVERY_TRIGGER, ids=[t[0] for t in EVERY_TRIGGER]
)
def test_every_trigger(
    v2: AzureHost, name: str, inputs: dict[str, Any], outputs: dict[str, Any], return_value: Any
) -> None:
    """Each trigger arrives with its metadata, and each kind of output comes back."""
    answer = v2.invoke(name, inputs)

    assert answer.error is None
    assert (outputs, return_value) == (answer.outputs, answer.return_value)
