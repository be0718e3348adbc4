"""What the host sends along with each kind of trigger: the value, and its metadata."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Trigger:
    """What the host sends along with the trigger of an invocation; see the builders below."""

    value: Any
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class HttpRequest:
    """A request as it travels in a message; see :func:`http_request`."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    route_params: Mapping[str, str]


def http_request(
    method: str = "GET",
    url: str = "http://localhost/api/",
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    route_params: Mapping[str, str] | None = None,
) -> Trigger:
    """An HTTP trigger."""
    return Trigger(HttpRequest(method, url, headers or {}, body, route_params or {}))


def timer(*, past_due: bool = False) -> Trigger:
    """A timer trigger."""
    status = {"Last": _moment(), "Next": _moment(300), "LastUpdated": _moment()}
    schedule = {"AdjustForDST": True}
    return Trigger({"Schedule": schedule, "ScheduleStatus": status, "IsPastDue": past_due})


def queue_message(
    body: str = "hello",
    *,
    id: str = "8d1c5a3e-0000-4000-8000-000000000001",
    dequeue_count: int = 1,
    pop_receipt: str = "AgAAAAMAAAAAAAAA",
) -> Trigger:
    """A message of a storage queue."""
    return Trigger(
        body,
        {
            "QueueTrigger": body,
            "Id": id,
            "DequeueCount": dequeue_count,
            "PopReceipt": pop_receipt,
            "InsertionTime": _moment(),
            "ExpirationTime": _moment(604800),
            "NextVisibleTime": _moment(600),
        },
    )


def service_bus_message(
    body: str = "hello", *, message_id: str = "m-1", delivery_count: int = 1
) -> Trigger:
    """A message of a Service Bus queue or topic, one at a time."""
    return Trigger(
        body,
        {
            "MessageId": message_id,
            "DeliveryCount": delivery_count,
            "SequenceNumber": 17,
            "EnqueuedTimeUtc": _moment(),
            "LockToken": "00000000-0000-0000-0000-0000000000a1",
            "UserProperties": {},
            "ApplicationProperties": {},
        },
    )


def service_bus_messages(bodies: Sequence[str], *, message_ids: Sequence[str]) -> Trigger:
    """A batch of Service Bus messages, for a trigger of the cardinality "many"."""
    count = len(bodies)
    return Trigger(
        list(bodies),
        {
            "MessageIdArray": list(message_ids),
            "DeliveryCountArray": [1] * count,
            "SequenceNumberArray": list(range(count)),
            "EnqueuedTimeUtcArray": [_moment()] * count,
            "LockTokenArray": [str(uuid.UUID(int=n)) for n in range(count)],
            "UserPropertiesArray": [{}] * count,
            "ApplicationPropertiesArray": [{}] * count,
        },
    )


def event_hub_event(
    body: str = "hello", *, partition: str = "0", sequence_number: int = 1
) -> Trigger:
    """An event of an Event Hub, for a trigger of the cardinality "one"."""
    properties = _event_properties(sequence_number)
    return Trigger(
        body,
        {
            **properties,
            "PartitionContext": _partition_context(partition),
            "Properties": {},
            "SystemProperties": properties,
        },
    )


def event_hub_events(
    bodies: Sequence[str], *, partition: str = "0", first_sequence_number: int = 1
) -> Trigger:
    """Events of one partition of an Event Hub, for a trigger of the cardinality "many"."""
    properties = [_event_properties(first_sequence_number + n) for n in range(len(bodies))]
    return Trigger(
        list(bodies),
        {
            "PartitionContext": _partition_context(partition),
            "PropertiesArray": [{}] * len(bodies),
            "SystemPropertiesArray": properties,
            **{f"{name}Array": [each[name] for each in properties] for name in properties[0]},
        },
    )


def blob(content: bytes = b"hello", *, name: str = "container/blob.txt") -> Trigger:
    """A blob."""
    return Trigger(
        content,
        {
            "BlobTrigger": name,
            "Uri": f"https://account.blob.core.windows.net/{name}",
            "Properties": {"ContentLength": len(content), "ETag": "0x8D"},
            "Metadata": {},
        },
    )


def cosmos_documents(*documents: Mapping[str, Any]) -> Trigger:
    """A batch of the change feed of Cosmos DB."""
    return Trigger([dict(document) for document in documents])


def event_grid_event(data: Mapping[str, Any] | None = None, *, id: str = "e-1") -> Trigger:
    """An Event Grid event, in its own schema."""
    return Trigger(
        {
            "id": id,
            "topic": "/subscriptions/0/topics/t",
            "subject": "subject",
            "eventType": "Test.Happened",
            "eventTime": _moment(),
            "data": dict(data or {}),
            "dataVersion": "1.0",
        }
    )


def durable_client() -> str:
    """The text from which a durable client is made; no durable extension listens there."""
    return json.dumps(
        {
            "taskHubName": "hub",
            "creationUrls": {"createNewInstancePostUri": "http://127.0.0.1:1/{functionName}"},
            "managementUrls": {"id": "INSTANCEID"},
            "baseUrl": "http://127.0.0.1:1",
            "requiredQueryStringParameters": "",
            "rpcBaseUrl": "http://127.0.0.1:1/",
        }
    )


def orchestration(input: object = None, *, instance_id: str = "i-1") -> Trigger:
    """The first episode of an orchestration."""
    event = {"EventId": -1, "IsPlayed": False, "Timestamp": _moment()}
    history = [
        {**event, "EventType": 12},
        {**event, "EventType": 0, "Name": "o", "Version": "", "Input": json.dumps(input)},
    ]
    state = {
        "instanceId": instance_id,
        "isReplaying": False,
        "parentInstanceId": None,
        "input": json.dumps(input),
        "upperSchemaVersion": 2,
        "history": history,
    }
    return Trigger(json.dumps(state))


def entity(operation: str, input: object = None) -> Trigger:
    """A batch of one operation on an entity that has no state yet."""
    serialized = json.dumps(json.dumps(input))  # once by the caller, and once by the extension
    batch = {
        "self": {"name": "entity", "key": "k"},
        "exists": False,
        "state": None,
        "batch": [{"name": operation, "signal": False, "input": serialized, "id": "1"}],
    }
    return Trigger(json.dumps(batch))


def _moment(offset_s: int = 0) -> str:
    seconds = time.time() + offset_s
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(seconds))


def _event_properties(sequence_number: int) -> dict[str, Any]:
    return {
        "SequenceNumber": sequence_number,
        "Offset": str(sequence_number * 100),
        "PartitionKey": "key",
        "EnqueuedTimeUtc": _moment(),
    }


def _partition_context(partition: str) -> dict[str, Any]:
    return {
        "EventHubName": "hub",
        "ConsumerGroup": "$Default",
        "FullyQualifiedNamespace": "namespace.servicebus.windows.net",
        "PartitionId": partition,
    }
