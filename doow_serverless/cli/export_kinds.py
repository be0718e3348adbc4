"""The documents in which export tools put lines of a log: which say so, and where the lines stand.

Each kind is recognised by all of its fields: those that the tool always writes are there, and none
that it does not document. Lines are taken from one place of it. Whatever stands elsewhere in a
document is somebody else's text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from doow_serverless._frames.reader import frame_of

from .export_azure import diagnostic, diagnostics, is_diagnostic, is_diagnostics, is_tables, tables
from .export_messages import (
    BOTO3,
    Chunk,
    Fields,
    altered,
    for_lambda,
    is_altered,
    is_for_lambda,
    is_messages,
    is_stream,
    line_of,
    messages,
    objects,
    stream,
)
from .export_shapes import Shape, listing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .export_messages import Found


class Kind(NamedTuple):
    """One kind of document: whether an object is one, and what it wraps."""

    declares: Callable[[dict[str, Any]], bool]
    unwrap: Callable[[dict[str, Any], str], Iterator[Found]]


def kind_of(value: Any) -> Kind | None:
    """Return the kind of a document, or of the first object of a list; None if it is no export."""
    if isinstance(value, list):
        value = next((each for each in value if isinstance(each, dict)), None)
    if not isinstance(value, dict):
        return None
    return next((kind for kind in KINDS if kind.declares(value)), None)


def unwrapped(value: Any, kind: Kind, origin: str) -> Iterator[Found]:
    """Yield what a document of ``kind`` wraps; nothing for a document of another kind."""
    if isinstance(value, list):
        places = [(each, f"{origin}, [{at}]") for at, each in enumerate(value)]
    else:
        places = [(value, origin)]
    for each, place in places:
        if isinstance(each, dict) and kind.declares(each):
            yield from kind.unwrap(each, place)


# ── CloudWatch ──────────────────────────────────────────────────────────────────────────────────

# https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/SubscriptionFilters.html
_SUBSCRIPTION = listing(
    Shape({"messageType": str, "logEvents": list}, None), "logEvents", Shape({"message": str}, None)
)
# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_FilterLogEvents.html
# The command line writes NextToken of its own.
# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_GetLogEvents.html
_EVENTS = listing(
    Shape(
        {"events": list},
        f"searchedLogStreams nextToken NextToken nextForwardToken nextBackwardToken {BOTO3}",
    ),
    "events",
    Shape({"message": str}, "logStreamName timestamp ingestionTime eventId"),
)


def _messages(name: str) -> Callable[[dict[str, Any], str], Iterator[Found]]:
    def unwrap(value: dict[str, Any], origin: str) -> Iterator[Found]:
        for event, place in objects(value, name, origin):
            yield from line_of(event["message"], place)

    return unwrap


# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_GetQueryResults.html
_RESULTS = Shape({"results": list}, f"status statistics encryptionKey queryLanguage {BOTO3}")
_CELL = Shape({"field": str, "value": str})
_STATUSES = {"Scheduled", "Running", "Complete", "Failed", "Cancelled", "Timeout", "Unknown"}


def _is_results(value: dict[str, Any]) -> bool:
    """The answer of GetQueryResults, of Logs Insights."""
    return (
        _RESULTS.fits(value)
        and value.get("status", "Complete") in _STATUSES
        and all(map(_CELL.fits_all, value["results"]))
    )


def _results(value: dict[str, Any], origin: str) -> Iterator[Found]:
    for at, row in enumerate(value["results"]):
        for cell in row:
            if cell["field"] == "@message":
                yield from line_of(cell["value"], f"{origin}, results[{at}]")


# https://docs.aws.amazon.com/lambda/latest/dg/telemetry-schema-reference.html
_TELEMETRY = Shape({"type": str, "record": object}, "time")


def _is_telemetry(value: dict[str, Any]) -> bool:
    """A record of Lambda's Telemetry API, and of its logs in S3."""
    if not _TELEMETRY.fits(value) or "record" not in value:
        return False
    return value["type"] in ("function", "extension") or value["type"].startswith("platform.")


def _telemetry(value: dict[str, Any], origin: str) -> Iterator[Found]:
    if value["type"] == "function":
        record = value["record"]
        if isinstance(record, dict):
            yield Fields(record, f"{origin}, record")
        yield from line_of(record, f"{origin}, record")


# ── Vercel, containers, Datadog ─────────────────────────────────────────────────────────────────

_STREAMS = ("stdout", "stderr")
# https://vercel.com/docs/drains/reference/logs
_DRAINED = Shape(
    {},
    "id source deploymentId host timestamp projectId level message buildId entrypoint destination "
    "path type statusCode requestId environment branch ja3Digest ja4Digest edgeType projectName "
    "executionRegion trace.id traceId span.id spanId proxy",
)
# https://vercel.com/docs/cli/logs, as versions write it that ask for requests, and as earlier ones.
# https://github.com/vercel/vercel/blob/main/packages/cli/src/util/logs-v2.ts
_SHOWN = Shape(
    {"id": str, "source": str, "message": str},
    "timestamp deploymentId projectId level domain requestMethod requestPath responseStatusCode "
    "environment branch cache traceId messageTruncated logs",
)
_SHOWN_LINE = Shape({"level": str, "message": str}, "messageTruncated")
_SHOWN_EARLIER = Shape(
    {"rowId": str, "source": str, "message": str},
    "level timestampInMs domain messageTruncated requestMethod requestPath responseStatusCode",
)
_WRITTEN = ("lambda", "serverless")
_SOURCES = {
    *_WRITTEN, "build", "delimiter", "edge", "edge-function", "edge-middleware", "external",
    "firewall", "redirect", "request", "static",
}  # fmt: skip
_LEVELS = (None, "info", "warning", "error", "fatal")


def _is_vercel(value: dict[str, Any]) -> bool:
    """An entry of Vercel's logs, of the command or of a drain."""
    has_shape = any(one.fits(value) for one in (_DRAINED, _SHOWN, _SHOWN_EARLIER))
    is_entry = value.get("source") in _SOURCES or ("id" in value and value.get("type") in _STREAMS)
    return has_shape and is_entry and value.get("level") in _LEVELS


def _vercel(value: dict[str, Any], origin: str) -> Iterator[Found]:
    is_written = value.get("source", "lambda") in _WRITTEN
    if is_written and value.get("type") in (None, *_STREAMS):
        yield from line_of(value.get("message"), f"{origin}, message")
        # All lines of a request, of which the message repeats one.
        for line, place in objects(value, "logs", origin):
            if _SHOWN_LINE.fits(line):
                yield from line_of(line["message"], place)


# https://docs.docker.com/engine/logging/drivers/json-file/
_DOCKER = Shape({"log": str, "stream": str, "time": str}, "attrs")
# Fluent Bit's parsers for containers, its filters, and the time as its outputs add it.
# https://docs.fluentbit.io/manual/data-pipeline/parsers/configuring-parser
# https://docs.fluentbit.io/manual/data-pipeline/filters/kubernetes
# https://docs.fluentbit.io/manual/data-pipeline/outputs/s3
_FLUENT_BIT = Shape(
    {"log": str, "stream": str},
    "time date @timestamp logtag _p kubernetes ec2_instance_id ec2_instance_type az private_ip "
    "vpc_id ami_id account_id hostname",
)
# https://docs.docker.com/engine/logging/drivers/fluentd/
# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/using_firelens.html
_FIRELENS = Shape(
    {"log": str, "source": str},
    "container_id container_name ecs_cluster ecs_task_arn ecs_task_definition ec2_instance_id "
    "date time timestamp @timestamp "
    "partial_message partial_id partial_ordinal partial_last",
)


def _is_container(value: dict[str, Any]) -> bool:
    """A line of Docker's json-file, or of FireLens and Fluent Bit."""
    if _FIRELENS.fits(value):
        return value["source"] in _STREAMS
    has_shape = _DOCKER.fits(value) or _FLUENT_BIT.fits(value)
    return has_shape and value["stream"] in _STREAMS


def _container(value: dict[str, Any], origin: str) -> Iterator[Found]:
    """A chunk of a line ends without a newline, or a tag says so.

    The chunks that FireLens marks may come apart, among other containers': they are left alone.
    """
    place = f"{origin}, log"
    if "source" in value:
        if "partial_message" not in value:
            yield from line_of(value["log"], place)
        return
    tag = value.get("logtag", value.get("_p"))
    is_last = value["log"].endswith("\n") if tag is None else tag != "P"
    yield Chunk(value["log"], place, f"{value['stream']} {value.get('kubernetes')}", is_last)


# https://docs.datadoghq.com/api/latest/logs/#search-logs-post
_PAGE = listing(
    Shape({"data": list}, "links meta"),
    "data",
    Shape({"attributes": dict}, "id type"),
)
_ATTRIBUTES = Shape({}, "timestamp attributes host message service status tags")


def _is_datadog(value: dict[str, Any]) -> bool:
    """A page of Datadog's log search."""
    return _PAGE(value) and all(
        one.get("type", "log") == "log" and _ATTRIBUTES.fits(one["attributes"])
        for one in value["data"]
    )


def _datadog(value: dict[str, Any], origin: str) -> Iterator[Found]:
    for one, place in objects(value, "data", origin):
        if "timestamp" in one["attributes"]:  # Else it may be anybody's JSON:API.
            yield from line_of(one["attributes"].get("message"), place)
        if isinstance(one["attributes"].get("attributes"), dict):
            yield Fields(one["attributes"]["attributes"], place)


# ── all ─────────────────────────────────────────────────────────────────────────────────────────


def _one(value: dict[str, Any], origin: str) -> Iterator[Found]:
    yield Fields(value, origin)


FRAMES = Kind(lambda value: frame_of(value) is not None, _one)
"""Objects that are frames: lines that a tool has parsed and written again."""

KINDS = (
    FRAMES,
    Kind(_is_telemetry, _telemetry),
    Kind(_SUBSCRIPTION, _messages("logEvents")),
    Kind(_EVENTS, _messages("events")),
    Kind(_is_results, _results),
    Kind(_is_container, _container),
    Kind(_is_vercel, _vercel),
    Kind(is_diagnostics, diagnostics),
    Kind(is_diagnostic, diagnostic),
    Kind(is_tables, tables),
    Kind(_is_datadog, _datadog),
    Kind(is_stream, stream),
    Kind(is_messages, messages),
    Kind(is_for_lambda, for_lambda),
    Kind(is_altered, altered),
)
"""The first that an object declares to be counts."""
