"""Settings of a relay, in the template that deploys it, by which usage would be lost or forged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .doctor_values import at, items, mapping

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TypeAlias

    # What is wrong, and the remedy.
    Mistake: TypeAlias = tuple[str, str]

_RELAY = "doow_serverless.relay."
_ONE_BY_ONE = "ReportBatchItemFailures"
_KEYS = ("DOOW_TRACK_LOG_KEY", "DOOW_TRACK_LOG_KEY_SECRET_ARN", "DOOW_TRACK_LOG_KEY_SSM_PARAMETER")
_NOTHING = {None, "", "AWS::NoValue"}


@dataclass
class _Function:
    """A function of a template, under the names that CloudFormation has for its settings.

    Attributes:
        name: Its name within the template.
        handler: As in the template; "" if that is not said there.
        variables: Its environment, with what all functions share.
        sources: The settings of each stream or queue that it reads.
        log_groups: The names by which the template may call its own log group.
        keeps_failures: Whether asynchronous invocations that fail end in a queue or destination.
    """

    name: str
    handler: str
    variables: dict[str, Any]
    sources: list[dict[str, Any]] = field(default_factory=list)
    log_groups: set[str] = field(default_factory=set)
    keeps_failures: bool = False

    @property
    def kind(self) -> str:
        """Which relay it is, such as ``kinesis_handler``; "" if it is none."""
        return self.handler.removeprefix(_RELAY) if self.handler.startswith(_RELAY) else ""

    @property
    def has_log_key(self) -> bool:
        return any(_is_said(self.variables.get(name)) for name in _KEYS)


def mistakes_of_template(document: Any) -> Iterator[Mistake]:
    """Yield what is wrong with the relays of a template of SAM or CloudFormation."""
    resources = mapping(document, "Resources")
    shared = mapping(document, "Globals", "Function")
    functions = [
        _of_cloudformation(name, mapping(one, "Properties"), shared, resources)
        for name, one in resources.items()
        if at(one, "Type") in {"AWS::Serverless::Function", "AWS::Lambda::Function"}
    ]
    yield from _mistakes(functions, resources, _subscribed(resources))


def mistakes_of_serverless(document: Any) -> Iterator[Mistake]:
    """Yield what is wrong with the relays of ``serverless.yml``."""
    resources = mapping(document, "resources", "Resources")
    shared = mapping(document, "provider", "environment")
    functions = []
    subscribed = list(_subscribed(resources))
    for name, one in mapping(document, "functions").items():
        function = _of_serverless(name, one, shared)
        functions.append(function)
        for event in items(one, "events"):
            logs = at(event, "cloudwatchLog")
            subscribed += [_text(at(logs, "logGroup") or logs)] if logs else []
    yield from _mistakes(functions, resources, subscribed)


# ── reading ─────────────────────────────────────────────────────────────────────────────────────


def _of_cloudformation(
    name: str, said: dict[str, Any], shared: dict[str, Any], resources: dict[str, Any]
) -> _Function:
    function = _Function(
        name,
        _text(said.get("Handler") or shared.get("Handler")),
        {
            **mapping(shared, "Environment", "Variables"),
            **mapping(said, "Environment", "Variables"),
        },
    )
    for event in mapping(said, "Events").values():
        if at(event, "Type") in {"Kinesis", "SQS"}:
            function.sources.append(mapping(event, "Properties"))
    for one in resources.values():
        properties = mapping(one, "Properties")
        if _refers(properties.get("FunctionName"), name):
            if at(one, "Type") == "AWS::Lambda::EventSourceMapping":
                function.sources.append(properties)
            function.keeps_failures |= bool(at(properties, "DestinationConfig", "OnFailure"))
    function.keeps_failures |= any(
        _is_said(at(said, *path))
        for path in (
            ("DeadLetterQueue",),
            ("DeadLetterConfig",),
            ("EventInvokeConfig", "DestinationConfig", "OnFailure"),
        )
    )
    own = at(said, "LoggingConfig", "LogGroup") or at(shared, "LoggingConfig", "LogGroup")
    called = _text(said.get("FunctionName"))
    function.log_groups = {
        _text(own), f"/aws/lambda/{called or name}", f"/aws/lambda/${{{name}}}",
    } - {""}  # fmt: skip
    group = _text(at(resources, _text(own), "Properties", "LogGroupName"))
    function.log_groups |= {group} - {""}
    return function


_SERVERLESS = {
    "bisectBatchOnFunctionError": "BisectBatchOnFunctionError",
    "maximumRetryAttempts": "MaximumRetryAttempts",
    "maximumRecordAgeInSeconds": "MaximumRecordAgeInSeconds",
    "parallelizationFactor": "ParallelizationFactor",
    "tumblingWindowInSeconds": "TumblingWindowInSeconds",
    "functionResponseType": "FunctionResponseTypes",
    "startingPosition": "StartingPosition",
    "arn": "Queue",
}


def _of_serverless(name: str, said: Any, shared: dict[str, Any]) -> _Function:
    handler = _text(at(said, "handler"))
    function = _Function(name, handler, {**shared, **mapping(said, "environment")})
    for event in items(said, "events"):
        source = at(event, "stream") or at(event, "sqs")
        if isinstance(source, dict):
            function.sources.append(
                {_SERVERLESS.get(str(key), ""): value for key, value in source.items()}
            )
        elif source:
            function.sources.append({"Queue": source})
    failed = at(said, "onError") or at(said, "destinations", "onFailure")
    function.keeps_failures = _is_said(failed)
    called = _text(at(said, "name")) or name
    function.log_groups = {f"/aws/lambda/{called}", f"{name[:1].upper()}{name[1:]}LogGroup"}
    return function


def _subscribed(resources: dict[str, Any]) -> Iterator[str]:
    """The log groups that a template subscribes, as it calls them."""
    for one in resources.values():
        if at(one, "Type") == "AWS::Logs::SubscriptionFilter":
            yield _text(at(one, "Properties", "LogGroupName"))
        for event in mapping(one, "Properties", "Events").values():
            if at(event, "Type") == "CloudWatchLogs":
                yield _text(at(event, "Properties", "LogGroupName"))


# ── judging ─────────────────────────────────────────────────────────────────────────────────────


def _mistakes(
    functions: list[_Function], resources: dict[str, Any], subscribed: Iterable[str]
) -> Iterator[Mistake]:
    relays = [one for one in functions if one.kind]
    groups = set(subscribed)
    for relay in relays:
        for source in relay.sources:
            yield from _of_source(relay, source, resources)
        if relay.kind == "logs_handler" and not relay.keeps_failures:
            yield (
                f"{relay.name} keeps nothing that fails: Lambda drops it after two more attempts",
                "give it a dead-letter queue, or a destination on failure, that sqs_handler reads",
            )
        if groups & relay.log_groups:
            yield (
                f"the log group of {relay.name} is subscribed, so it reads its own lines for ever",
                "subscribe the log groups of the functions alone",
            )
    if relays:
        yield from _of_log_keys(relays, [one for one in functions if not one.kind])


def _of_source(
    relay: _Function, source: dict[str, Any], resources: dict[str, Any]
) -> Iterator[Mistake]:
    if relay.kind in {"kinesis_handler", "sqs_handler"}:
        types = source.get("FunctionResponseTypes")
        if types != _ONE_BY_ONE and _ONE_BY_ONE not in (types if isinstance(types, list) else []):
            yield (
                (
                    f"{relay.name} does not report which records failed, so that what it could not "
                    "deliver counts as done"
                ),
                f"set FunctionResponseTypes to [{_ONE_BY_ONE}]",
            )
    if relay.kind == "kinesis_handler":
        yield from _of_stream(relay.name, source)
    if relay.kind == "sqs_handler":
        queue = at(resources, _logical(source.get("Queue") or source.get("EventSourceArn")))
        if queue is not None and not _is_said(at(queue, "Properties", "RedrivePolicy")):
            yield (
                (
                    f"the queue of {relay.name} has no RedrivePolicy: a message that cannot be "
                    "delivered comes again until it expires, unseen"
                ),
                "give it a dead-letter queue, and an alarm on that",
            )


def _of_stream(name: str, source: dict[str, Any]) -> Iterator[Mistake]:
    if _is_true(source.get("BisectBatchOnFunctionError")):
        yield (
            (
                f"{name} has its batches bisected when it fails: parts of a batch, and events of a "
                "window, come apart and may count twice or never"
            ),
            "set BisectBatchOnFunctionError to false",
        )
    for setting in ("MaximumRetryAttempts", "MaximumRecordAgeInSeconds"):
        if _number(source.get(setting), -1) != -1:
            yield (
                f"{setting} of {name} gives usage up that Doow did not take in time",
                f"set {setting} to -1: usage stays until it leaves the stream",
            )
    has_window = _is_said(source.get("TumblingWindowInSeconds"))
    if has_window and _number(source.get("ParallelizationFactor"), 1) > 1:
        yield (
            f"{name} has a window, and reads a shard in parallel: Lambda refuses that",
            "set ParallelizationFactor to 1, and raise the number of shards instead",
        )
    if source.get("StartingPosition") == "LATEST":
        yield (
            f"{name} begins at LATEST: usage that is written while the mapping is made is skipped",
            "set StartingPosition to TRIM_HORIZON",
        )


def _of_log_keys(relays: list[_Function], others: list[_Function]) -> Iterator[Mistake]:
    ours = [one for one in others if any(name.startswith("DOOW_TRACK_") for name in one.variables)]
    strict = [one for one in relays if one.has_log_key]
    for one in ours if strict else []:
        if not one.has_log_key:
            what = "usage" if one.variables.get("DOOW_TRACK_DELIVERY") == "log" else "dead letters"
            yield (
                f"{one.name} has no log key, but {strict[0].name} has one and refuses its {what}",
                f"pass {one.name} the same key as DOOW_TRACK_LOG_KEY",
            )
    signed = [one.name for one in ours if one.has_log_key]
    for relay in relays:
        if signed and not relay.has_log_key:
            yield (
                (
                    f"{signed[0]} signs its usage, but {relay.name} has no log key and accepts "
                    "usage from anyone who can write a line"
                ),
                f"pass {relay.name} the same key, once every function has it",
            )


# ── values of templates ─────────────────────────────────────────────────────────────────────────


def _text(value: Any) -> str:
    """A value as text: itself, or the name to which a reference points; "" if it is neither."""
    if isinstance(value, dict) and len(value) == 1:
        [(function, value)] = value.items()
        if function not in {"Ref", "Fn::GetAtt", "Fn::Sub"}:
            return ""
        if isinstance(value, list):
            value = ".".join(map(str, value)) if function == "Fn::GetAtt" else value[0]
    return value if isinstance(value, str) else ""


def _logical(value: Any) -> str:
    """The name of the resource that a value refers to, as ``!GetAtt Name.Arn`` does."""
    return _text(value).partition(".")[0].strip("${}")


def _refers(value: Any, name: str) -> bool:
    return _logical(value) == name


def _is_said(value: Any) -> bool:
    """Whether a setting is there; one that depends on a condition is."""
    return isinstance(value, (dict, list)) or value not in _NOTHING


def _is_true(value: Any) -> bool:
    return value is True or (isinstance(value, str) and value.lower() == "true")


def _number(value: Any, otherwise: int) -> int:
    """A setting that is a number; ``otherwise`` if it is not said, or only known when deployed."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return otherwise
