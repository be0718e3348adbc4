"""The applications of the Azure tests: each trigger, sync and async, tracked at each position.

Sources, since they run in the worker's process. A bare application is the same without trackers.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless.local import Fault
from doow_serverless.local.azure import triggers
from tests.network import KEY
from tests.runtimes.azure.environments import each, pythons

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from doow_serverless.local import Ingest
    from doow_serverless.local.azure.host import Trigger

every_python = pytest.mark.parametrize("python", each(pythons()), ids=lambda path: path.parts[-3])
"""All interpreters: for what depends on how Python tells functions and their signatures."""
both_ends = pytest.mark.parametrize(
    "python", each(sorted({pythons()[0], pythons()[-1]})), ids=lambda path: path.parts[-3]
)
"""The oldest and the newest: for what depends on the versions of the libraries at most."""

DELAY_S = 0.02
"""Seconds that an ingest takes for each answer after :func:`forget`."""

POSITIONS = ("below", "above", "between", "app", "blueprint")
"""Of the tracker: directly above def, on the finished builder, among the bindings, as a whole."""


@dataclass(frozen=True)
class Kind:
    """A trigger: how both models declare it, and what may arrive.

    Attributes:
        decorator: Of the v2 model.
        binding: Of the v1 model.
        annotation: The type of the argument.
        text: What of the argument the function answers.
        message: Makes the work of a number, the same again for the same number; the second argument
            says how often it was delivered before.
    """

    decorator: str
    binding: dict[str, Any]
    annotation: str
    text: str
    message: Callable[[int, int], Trigger]


def _queue(number: int, before: int) -> Trigger:
    return triggers.queue_message(
        f"body {number}", id=f"q-{number}", dequeue_count=1 + before, pop_receipt=f"r-{before}"
    )


def _bus(number: int, before: int) -> Trigger:
    return triggers.service_bus_message(
        f"body {number}", message_id=f"m-{number}", delivery_count=1 + before
    )


def _bus_batch(number: int, _before: int) -> Trigger:
    ids = [f"m-{number}-a", f"m-{number}-b"]
    return triggers.service_bus_messages(["a", f"{number}"], message_ids=ids)


def _hub(number: int, _before: int) -> Trigger:
    return triggers.event_hub_event(f"{number}", partition="1", sequence_number=number)


def _hub_batch(number: int, _before: int) -> Trigger:
    return triggers.event_hub_events(
        ["a", f"{number}"], partition="2", first_sequence_number=10 * number
    )


def _cosmos(number: int, _before: int) -> Trigger:
    documents = [
        {"id": f"{number}-{name}", "_rid": f"r{number}{name}", "_etag": "t"} for name in "ab"
    ]
    return triggers.cosmos_documents(*documents)


KINDS = {
    "http": Kind(
        'route(route="{name}", trigger_arg_name="trigger")',
        {"type": "httpTrigger", "authLevel": "function"},
        "func.HttpRequest",
        "trigger.get_body().decode()",
        lambda number, _: triggers.http_request("POST", body=f"body {number}".encode()),
    ),
    "timer": Kind(
        'timer_trigger(arg_name="trigger", schedule="0 * * * * *")',
        {"type": "timerTrigger", "schedule": "0 * * * * *"},
        "func.TimerRequest",
        "trigger.past_due",
        lambda number, _: triggers.timer(past_due=bool(number % 2)),
    ),
    "queue": Kind(
        'queue_trigger(arg_name="trigger", queue_name="q", connection="C")',
        {"type": "queueTrigger", "queueName": "q", "connection": "C"},
        "func.QueueMessage",
        "trigger.get_body().decode()",
        _queue,
    ),
    "bus": Kind(
        'service_bus_queue_trigger(arg_name="trigger", queue_name="q", connection="C")',
        {"type": "serviceBusTrigger", "queueName": "q", "connection": "C"},
        "func.ServiceBusMessage",
        "trigger.message_id",
        _bus,
    ),
    "bus_batch": Kind(
        'service_bus_topic_trigger(arg_name="trigger", topic_name="t", subscription_name="s",'
        ' connection="C", cardinality="many")',
        {"type": "serviceBusTrigger", "topicName": "t", "cardinality": "many", "connection": "C"},
        "typing.List[func.ServiceBusMessage]",
        "[message.message_id for message in trigger]",
        _bus_batch,
    ),
    "hub": Kind(
        'event_hub_message_trigger(arg_name="trigger", event_hub_name="h", connection="C",'
        ' cardinality="one")',
        {"type": "eventHubTrigger", "eventHubName": "h", "cardinality": "one"},
        "func.EventHubEvent",
        "trigger.sequence_number",
        _hub,
    ),
    "hub_batch": Kind(
        'event_hub_message_trigger(arg_name="trigger", event_hub_name="h", connection="C",'
        ' cardinality="many")',
        {"type": "eventHubTrigger", "eventHubName": "h", "cardinality": "many"},
        "typing.List[func.EventHubEvent]",
        "[event.get_body().decode() for event in trigger]",
        _hub_batch,
    ),
    "blob": Kind(
        'blob_trigger(arg_name="trigger", path="c/{{name}}", connection="C")',
        {"type": "blobTrigger", "path": "c/{name}", "connection": "C"},
        "func.InputStream",
        "trigger.read().decode()",
        lambda number, _: triggers.blob(b"content", name=f"c/{number}.txt"),
    ),
    "cosmos": Kind(
        'cosmos_db_trigger(arg_name="trigger", database_name="d", container_name="c",'
        ' connection="C")',
        {"type": "cosmosDBTrigger", "databaseName": "d", "containerName": "c", "connection": "C"},
        "func.DocumentList",
        '[document["id"] for document in trigger]',
        _cosmos,
    ),
    "grid": Kind(
        'event_grid_trigger(arg_name="trigger")',
        {"type": "eventGridTrigger"},
        "func.EventGridEvent",
        "trigger.get_json()",
        lambda number, _: triggers.event_grid_event({"n": number}, id=f"e-{number}"),
    ),
}

HEAD = """\
import asyncio, functools, threading, time, typing

import azure.functions as func

import doow_serverless as doow
from doow_serverless.azure import track_app

app = func.FunctionApp()
"""
V1_HEAD = HEAD.replace(
    "\nfrom doow_serverless.azure import track_app\n\napp = func.FunctionApp()", ""
)


def settings(endpoint: str, **more: str) -> dict[str, str]:
    """The settings of an application that delivers to this endpoint."""
    return {
        "DOOW_TRACK_API_KEY": KEY,
        "DOOW_TRACK_ENDPOINT": endpoint,
        "DOOW_TRACK_LICENSE_ID": "lic_azure",
        "DOOW_TRACK_BUDGET": "20000",  # ample, so that a busy machine is not taken for an outage
        **more,
    }


def write_v2(directory: Path, source: str) -> Path:
    """An application of the v2 model."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "function_app.py").write_text(source)
    return directory


def write_v1(directory: Path, module: str, bindings: dict[str, list[dict[str, Any]]]) -> Path:
    """An application of the v1 model, whose functions are all in one module."""
    (directory / "shared").mkdir(parents=True)
    (directory / "shared" / "__init__.py").write_text(module)
    for name, declared in bindings.items():
        folder = directory / name
        folder.mkdir()
        (folder / "__init__.py").write_text(f"from shared import {name} as main\n")
        (folder / "function.json").write_text(json.dumps({"bindings": declared}))
    return directory


def import_errors(python: Path, sources: list[str]) -> list[str]:
    """What each application raises when it is imported, as it would be by a worker."""
    code = dedent("""\
        import json, sys
        errors = []
        for source in json.load(sys.stdin):
            try:
                exec(source, {"__name__": "function_app"})
            except Exception as error:
                errors.append(f"{type(error).__name__}: {error}")
            else:
                errors.append("")
        print(json.dumps(errors))
        """)
    done = subprocess.run(
        [str(python), "-I", "-c", code],  # isolated: the installed package, not this folder's
        input=json.dumps(sources),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    errors: list[str] = json.loads(done.stdout)
    return errors


def matrix_v2(*, tracked: bool, future: bool) -> str:
    """Every trigger, sync and async, with the tracker at every position."""
    parts = [_future(future), HEAD, "blueprint = func.Blueprint()\n"]
    for position in ("app", "blueprint", "below", "above", "between"):
        parts += [
            _v2_function(kind, position, is_async=is_async, tracked=tracked)
            for kind in KINDS
            for is_async in (False, True)
        ]
        # Each tracks what is declared so far: what follows is tracked one by one.
        if tracked and position in {"app", "blueprint"}:
            parts.append(f"assert track_app({position}) is {position}\n")
        if position == "blueprint":
            parts.append("app.register_functions(blueprint)\n")
    return "\n".join(parts)


def matrix_v1(*, tracked: bool, future: bool) -> tuple[str, dict[str, list[dict[str, Any]]]]:
    """Every trigger, sync and async, with the tracker where this model has place for one."""
    parts, bindings = [_future(future), V1_HEAD], {}
    for kind in KINDS:
        for is_async in (False, True):
            name = name_of(kind, "v1", is_async=is_async)
            parts.append("@doow.tracked\n" * tracked + _body(kind, name, name, is_async=is_async))
            bindings[name] = v1_bindings(kind)
    return "\n".join(parts), bindings


def v1_bindings(kind: str) -> list[dict[str, Any]]:
    """The trigger, and both kinds of outputs."""
    returned = {"type": "http"} if kind == "http" else {"type": "queue", "queueName": "r"}
    return [
        {**KINDS[kind].binding, "name": "trigger", "direction": "in"},
        {"type": "queue", "name": "out", "direction": "out", "queueName": "q", "connection": "C"},
        {**returned, "name": "$return", "direction": "out"},
    ]


def name_of(kind: str, position: str, *, is_async: bool) -> str:
    """The function of the matrix for this trigger and position."""
    return f"{'a' if is_async else 's'}_{kind}_{position}"


def names(positions: tuple[str, ...] = POSITIONS) -> Iterator[tuple[str, str]]:
    """All functions of the matrix, each with its kind of trigger."""
    for position in positions:
        for kind in KINDS:
            for is_async in (False, True):
                yield name_of(kind, position, is_async=is_async), kind


def _future(future: bool) -> str:
    return "from __future__ import annotations" if future else ""


def _v2_function(kind: str, position: str, *, is_async: bool, tracked: bool) -> str:
    name = name_of(kind, position, is_async=is_async)
    place = "blueprint" if position == "blueprint" else "app"
    lines = [
        KINDS[kind].decorator.format(name=name),
        'queue_output(arg_name="out", queue_name="q", connection="C")',
    ]
    if kind != "http":
        lines.append('queue_output(arg_name="$return", queue_name="r", connection="C")')
    lines = [f"@{place}.{line}" for line in lines]
    index = {"above": 0, "between": 1, "below": len(lines)}.get(position)
    if tracked and index is not None:
        lines.insert(index, "@doow.tracked")
    defined = name
    if position == "between":  # The name comes last, and from a decorator.
        defined = f"declared_{name}"
        lines.insert(0, f'@app.function_name(name="{name}")')
    return "\n".join([*lines, _body(kind, name, defined, is_async=is_async)])


def _body(kind: str, name: str, defined: str, *, is_async: bool) -> str:
    spec = KINDS[kind]
    returns = "func.HttpResponse" if kind == "http" else "str"
    answer = 'func.HttpResponse("returned " + text, status_code=201)'
    return dedent(f"""\
        {"async " * is_async}def {defined}(
            trigger: {spec.annotation}, out: func.Out[str]
        ) -> {returns}:
            text = str({spec.text})
            {"await asyncio.sleep(0)" if is_async else "pass"}
            doow.track("calls", attribution={{"function": "{name}"}})
            out.set("set " + text)
            return {answer if kind == "http" else '"returned " + text'}
        """)


def forget(ingest: Ingest) -> None:
    """Have the ingest begin anew, and take its time for each answer."""
    ingest.reset()
    ingest.fault(Fault(delay_s=DELAY_S, times=None))
