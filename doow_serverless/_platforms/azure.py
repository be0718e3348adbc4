"""Azure Functions: finished builders, orchestrators, what messages are, the function's timeout."""

from __future__ import annotations

import os
import sys
from functools import cache
from time import monotonic

from doow_serverless._callables import (
    dressed,
    is_coroutine_function,
    is_generator_function,
    name_of,
    signature_of,
)
from doow_serverless._handlers.wrap import wrap
from doow_serverless.errors import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from doow_serverless._engine import Engine
    from doow_serverless._handlers.options import TrackedOptions
    from doow_serverless._recording.ids import Identity


def adapt(builder: Any, options: TrackedOptions, engine: Callable[[], Engine]) -> Any:
    """Track the function of a ``FunctionBuilder``; returns the same builder.

    So ``@doow.tracked`` works above ``@app.route``, and between binding decorators, too.
    """
    if is_orchestrator(builder):
        raise _refusal(builder._function._func)
    track_builder(builder, options, engine)
    return builder


def track_builder(builder: Any, options: TrackedOptions, engine: Callable[[], Engine]) -> None:
    """Track the function of a ``FunctionBuilder``, in place."""
    # Neither the SDK nor the worker offers another way to a function that is declared already.
    function = builder._function
    function._func = wrap(function._func, options, engine)


def refuse_app(app: Any, _options: TrackedOptions, _engine: Callable[[], Engine]) -> Any:
    """Say what to do with a whole app, whose functions may not be declared yet."""
    raise ConfigurationError(
        f"tracked() takes a function, not a {type(app).__name__}: call "
        "doow_serverless.azure.track_app(app) after its functions are declared"
    )


def prepare(handler: Any, options: TrackedOptions) -> Any:
    """Refuse orchestrators, and have the worker pass the context where it is needed."""
    if _orchestrates(handler):
        raise _refusal(handler)
    if options.idempotent and _is_worker():
        return _asking_for_context(handler)
    return handler


# ── durable functions ──────────────────────────────────────────────────────────────────────────


def is_orchestrator(builder: Any) -> bool:
    """Whether the function of a ``FunctionBuilder`` is a durable orchestrator."""
    trigger = getattr(builder._function, "_trigger", None)
    is_trigger = getattr(trigger, "type", None) == "orchestrationTrigger"
    return is_trigger or _orchestrates(builder._function._func)


def _orchestrates(handler: Any) -> bool:
    """Whether ``handler`` is a durable orchestrator, whose body is run again and again.

    That is what ``Orchestrator.create`` and ``@app.orchestration_trigger`` make, or a generator
    function in a process that knows durable functions.
    """
    if "orchestrator_function" in getattr(handler, "__dict__", {}):
        return True
    return "azure.durable_functions" in sys.modules and is_generator_function(handler)


def _refusal(handler: Any) -> ConfigurationError:
    name = name_of(getattr(handler, "orchestrator_function", handler))
    return ConfigurationError(
        f"tracked() cannot track the durable orchestrator {name}, which is replayed, and would "
        "count again each time: meter in the activities that it calls"
    )


# ── the context ────────────────────────────────────────────────────────────────────────────────


def _is_worker() -> bool:
    # Azure's worker up to Python 3.12, and the two libraries of the worker from 3.13 up.
    workers = ("azure_functions_worker", "azure_functions_runtime", "azure_functions_runtime_v1")
    return "FUNCTIONS_WORKER_RUNTIME" in os.environ or any(name in sys.modules for name in workers)


def _asking_for_context(handler: Any) -> Any:
    """``handler``, with a parameter for the context, which the worker passes to who names it.

    Only for idempotent functions: a decorator above that passes named arguments on one by one would
    stumble over one more.
    """
    from inspect import Parameter

    declared = signature_of(handler)
    if "context" in declared.parameters:
        return handler
    parameters = [*declared.parameters.values()]
    is_catch_all = bool(parameters) and parameters[-1].kind is Parameter.VAR_KEYWORD
    # `mcp_tool` makes each parameter one of the tool, but for those that are annotated like this.
    ours = getattr(sys.modules.get("azure.functions"), "MCPToolContext", Parameter.empty)
    context = Parameter("context", Parameter.KEYWORD_ONLY, default=None, annotation=ours)
    parameters.insert(len(parameters) - is_catch_all, context)
    if is_coroutine_function(handler):

        async def without_context_async(*args: Any, context: Any = None, **kwargs: Any) -> Any:  # noqa: ARG001
            return await handler(*args, **kwargs)

        asking: Any = without_context_async
    else:

        def without_context(*args: Any, context: Any = None, **kwargs: Any) -> Any:  # noqa: ARG001
            return handler(*args, **kwargs)

        asking = without_context
    dressed(asking, handler)
    asking.__signature__ = declared.replace(parameters=parameters)
    return asking


def find_identity(_args: tuple[Any, ...], kwargs: dict[str, Any]) -> Identity | None:
    """The function, and what stays the same when Azure has it do its work again.

    That is what names the message, event, document or blob that triggers it. HTTP and timers have
    nothing that stays but the invocation's own id, which a retry policy makes anew.
    """
    for context in kwargs.values():
        invocation_id = getattr(context, "invocation_id", None)
        if isinstance(invocation_id, str) and hasattr(context, "function_name"):
            work = _trigger_of(kwargs, context) or f"invocation:{invocation_id}"
            return str(context.function_name), work
    return None


def _trigger_of(kwargs: dict[str, Any], context: Any) -> str | None:
    """What names the trigger among the arguments; never an input that the function reads besides.

    The worker does not say which it is. In the older model function.json does; else it is what
    only ever is a trigger, such as a queue's message, or a document or blob that is alone. Beside
    anything else these may be mere inputs: then all of them, and nothing that has no name.
    """
    directory = getattr(context, "function_directory", None)
    trigger = _declared_trigger(directory) if isinstance(directory, str) else None
    if trigger is not None:
        return _work(kwargs.get(trigger))
    given = [
        argument
        for argument in kwargs.values()
        if argument is not context and type(argument).__name__ != "Out"
    ]
    messages = [argument for argument in given if _is_message(argument)]
    works = [_work(argument) for argument in messages or given]
    return None if None in works else "+".join(sorted(filter(None, works))) or None


def _is_message(argument: Any) -> bool:
    """Whether it is a message or event, or several: no input is."""
    several = getattr(argument, "data", argument)
    first = several[0] if isinstance(several, list) and several else argument
    return any(hasattr(first, name) for name in _OF_MESSAGES)


@cache
def _declared_trigger(directory: str) -> str | None:
    """The name of the trigger in function.json; None where there is no such file."""
    import json

    try:
        with open(os.path.join(directory, "function.json"), encoding="utf-8-sig") as file:
            bindings = json.load(file)["bindings"]
        names = (each["name"] for each in bindings if each["type"].endswith("Trigger"))
        return str(next(names))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration):
        return None


_OF_MESSAGES = ("dequeue_count", "message_id", "iothub_metadata", "offset", "event_type")
"""What messages and events have, as `_name` tells them, and documents and blobs have not."""


def _work(argument: Any) -> str | None:
    """What names ``argument``, and names it again; None if it is nothing that comes again."""
    # What Cosmos DB passes is no list, but has one: azure.functions makes it a UserList.
    messages = getattr(argument, "data", argument)
    if isinstance(messages, list) and messages:
        names = [_name(each) for each in messages]
        return "messages:" + ",".join(sorted(filter(None, names))) if all(names) else None
    name = _name(argument)
    return None if name is None else f"message:{name}"


def _name(message: Any) -> str | None:
    # Told by what they have: nothing here imports azure.functions.
    if hasattr(message, "dequeue_count"):  # A storage queue's; the count itself grows.
        return _joined(message.id)
    if hasattr(message, "message_id"):  # Service Bus; a sender may use an id for several.
        return _joined(message.message_id, getattr(message, "sequence_number", None))
    if hasattr(message, "iothub_metadata"):  # Event Hubs number the events of each partition.
        return _joined(_partition(message.metadata), message.sequence_number)
    if hasattr(message, "enqueued_time") and hasattr(message, "offset"):
        # As the SDK of Event Hubs has it, which does not name the partition: the moment does.
        moment = (message.enqueued_time, message.offset, message.sequence_number)
        return None if None in moment else _joined("event", *moment, message.partition_key)
    if hasattr(message, "offset"):  # Kafka, likewise; text has a partition, too.
        return _joined(message.topic, message.partition, message.offset)
    if hasattr(message, "event_type"):  # Event Grid.
        return _joined(message.topic, message.id)
    if hasattr(message, "blob_properties"):  # A blob, of which each version has its tag.
        properties = message.blob_properties or {}
        return _joined(message.uri or message.name, properties.get("ETag"))
    if hasattr(message, "get") and hasattr(message, "to_json"):  # A document of Cosmos DB.
        return _joined(message.get("_rid") or message.get("id"), message.get("_etag"))
    return None


def _joined(first: object, *others: object) -> str | None:
    """The parts that are there; None without the first, which alone says what it is."""
    parts = [str(part) for part in (first, *others) if part is not None]
    return None if first in (None, "") else "/".join(parts)


def _partition(metadata: Any) -> str | None:
    """The partition of an event; None where the metadata do not tell."""
    context = (metadata or {}).get("PartitionContext")
    if isinstance(context, str):
        import json

        context = json.loads(context)
    return None if not isinstance(context, dict) else context.get("PartitionId")


# ── the timeout ────────────────────────────────────────────────────────────────────────────────


def find_deadline(_args: tuple[Any, ...], _kwargs: dict[str, Any]) -> float | None:
    """When ``functionTimeout`` is over, on the monotonic clock, where it can be read.

    Azure tells no deadline: the time is that since the call of the handler.
    """
    setting = os.environ.get("AzureFunctionsJobHost__functionTimeout")  # noqa: SIM112 - its name
    root = os.environ.get("AzureWebJobsScriptRoot")  # noqa: SIM112 - its name
    timeout_s = _timeout_s(setting, root) if setting or root else None
    return None if timeout_s is None else monotonic() + timeout_s


@cache
def _timeout_s(setting: str | None, root: str | None) -> float | None:
    """Seconds of ``functionTimeout``, of the app setting or else of host.json."""
    if not setting:
        import json

        try:
            with open(os.path.join(root or "", "host.json"), encoding="utf-8-sig") as file:
                setting = json.load(file).get("functionTimeout")
        except (OSError, ValueError, AttributeError):
            return None
    return _timespan_s(setting)


def _timespan_s(text: Any) -> float | None:
    """Seconds of a .NET TimeSpan as ``"00:05:00"`` or ``"1.00:00:00"``; None for no limit.

    https://learn.microsoft.com/azure/azure-functions/functions-host-json#functiontimeout
    """
    import re

    pattern = r"(?:(\d+)\.)?(\d+):(\d+):(\d+)(?:\.\d+)?"
    found = re.fullmatch(pattern, text) if isinstance(text, str) else None
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    total = days * 86_400 + hours * 3_600 + minutes * 60 + seconds
    return float(total) if total > 0 else None
