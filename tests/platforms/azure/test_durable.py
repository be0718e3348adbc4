"""Durable functions on Azure: orchestrators are refused, what they call is metered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from doow_serverless.local.azure import triggers
from doow_serverless.local.azure.host import AzureHost, http_request
from tests.platforms.azure.apps import (
    HEAD,
    both_ends,
    every_python,
    import_errors,
    settings,
    write_v1,
    write_v2,
)
from tests.runtimes.azure.environments import pythons

if TYPE_CHECKING:
    from pathlib import Path

    from doow_serverless.local import Ingest


DURABLE = HEAD.replace(
    "import doow_serverless as doow",
    "import azure.durable_functions as df\nimport doow_serverless as doow",
).replace("func.FunctionApp()", "df.DFApp()")

APP = (
    DURABLE
    + """
@app.orchestration_trigger(context_name="context")
def orchestrator(context):
    answer = yield context.call_activity("activity", context.get_input())
    return answer

@app.activity_trigger(input_name="item")
@BELOW
def activity(item: str) -> str:
    doow.track("calls", attribution={"function": "activity"})
    return item + "!"

@ABOVE
@app.activity_trigger(input_name="item")
async def activity_async(item: str) -> str:
    doow.track("calls", attribution={"function": "activity_async"})
    return item + "?"

@app.entity_trigger(context_name="context")
@BELOW
def entity(context):
    doow.track("calls", attribution={"function": "entity"})
    total = context.get_state(lambda: 0) + context.get_input()
    context.set_state(total)
    context.set_result(total)

@ABOVE
@app.entity_trigger(context_name="context")
def entity_above(context):
    doow.track("calls", attribution={"function": "entity_above"})
    context.set_result(context.get_input())

@app.route(route="start")
@app.durable_client_input(client_name="client")
@BELOW
async def start(req: func.HttpRequest, client) -> str:
    doow.track("calls", attribution={"function": "start"})
    return type(client).__name__

@app.route(route="start_between")
@ABOVE
@app.durable_client_input(client_name="client")
async def start_between(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> str:
    doow.track("calls", attribution={"function": "start_between"})
    return type(client).__name__
"""
)
IDEMPOTENT = "@doow.tracked(idempotent=True)"
KINDS = {
    "bare": APP.replace("@BELOW", "").replace("@ABOVE", ""),
    "tracked": APP.replace("@BELOW", "@doow.tracked").replace("@ABOVE", "@doow.tracked"),
    "future": "from __future__ import annotations\n"
    + APP.replace("@BELOW", IDEMPOTENT).replace("@ABOVE", IDEMPOTENT),
    "app": APP.replace("@BELOW", "").replace("@ABOVE", "") + "\ntrack_app(app)\n",
}
METERED = ["activity", "activity_async", "entity", "entity_above", "start", "start_between"]


def invoke(host: AzureHost, name: str) -> object:
    """What a function answers, without the time that entities tell."""
    client = {"req": http_request(), "client": triggers.durable_client()}
    inputs: dict[str, dict[str, Any]] = {
        "orchestrator": {"context": triggers.orchestration("x")},
        "activity": {"item": '"x"'},
        "activity_async": {"item": '"x"'},
        "entity": {"context": triggers.entity("add", 5)},
        "entity_above": {"context": triggers.entity("add", 5)},
    }
    reply = host.invoke(name, inputs.get(name, client))
    assert reply.error is None
    if name.startswith("entity"):
        return [each["result"] for each in reply.return_value["results"]]
    return reply.return_value


@both_ends
def test_activities_entities_and_clients(python: Path, ingest: Ingest, tmp_path: Path) -> None:
    """They answer as undecorated and deliver; an orchestrator beside them works, unmetered."""
    answers: dict[str, list[Any]] = {}
    for kind, source in KINDS.items():
        app = write_v2(tmp_path / kind, source)
        disabled = "true" if kind == "bare" else "false"
        env = settings(ingest.url, DOOW_TRACK_DISABLED=disabled)
        with AzureHost(app, python=python, model="v2", env=env) as host:
            assert host.index_error is None
            answers[kind] = [host.functions, invoke(host, "orchestrator")]
            for name in METERED:
                answers[kind].append(invoke(host, name))
                arrived = [event["attribution"]["function"] for event in ingest.events()]
                assert arrived[-1:] == ([] if kind == "bare" else [name])
        assert len(ingest.posts()) == (0 if kind == "bare" else len(METERED))
        ingest.reset()
    assert answers["bare"][2:] == [
        "x!", "x?", ["5"], ["5"], "DurableOrchestrationClient", "DurableOrchestrationClient"
    ]  # fmt: skip
    assert answers == dict.fromkeys(KINDS, answers["bare"])


REFUSED = {
    "below": "@app.orchestration_trigger(context_name='context')\n@TRACKED\n{function}",
    "above": "@TRACKED\n@app.orchestration_trigger(context_name='context')\n{function}",
    "named": (
        "@TRACKED\n@app.function_name('other')\n"
        "@app.orchestration_trigger(context_name='context')\n{function}"
    ),
    "created": "{function}\nmain = TRACKED(df.Orchestrator.create(orchestrator))",
    "generic": (
        "@TRACKED\n@app.generic_trigger(arg_name='context', type='orchestrationTrigger')\n"
        "def orchestrator(context):\n    return ''\n"
    ),
    "blueprint": (
        "bp = df.Blueprint()\n@TRACKED\n@bp.orchestration_trigger(context_name='context')\n"
        "{function}"
    ),
}
ORCHESTRATOR = "def orchestrator(context):\n    yield context.call_activity('activity', 1)\n"


TRACKERS = ("doow.tracked", "doow.tracked(budget=1, idempotent=True)")
REFUSAL = (
    "ConfigurationError: tracked() cannot track the durable orchestrator orchestrator, which is"
    " replayed, and would count again each time: meter in the activities that it calls"
)


@every_python
def test_orchestrators_are_refused_at_import(python: Path) -> None:
    """They are replayed, and would count again: the error sends to the activities."""
    sources = {
        (way, tracker): DURABLE
        + REFUSED[way].replace("TRACKED", tracker).format(function=ORCHESTRATOR)
        for way in REFUSED
        for tracker in TRACKERS
    }
    errors = dict(zip(sources, import_errors(python, [*sources.values()]), strict=True))
    assert errors == dict.fromkeys(sources, REFUSAL)


def test_the_worker_tells_of_the_refusal(tmp_path: Path) -> None:
    """The whole application does not start, so that nobody overlooks it."""
    source = REFUSED["above"].replace("TRACKED", "doow.tracked").format(function=ORCHESTRATOR)
    app = write_v2(tmp_path / "app", DURABLE + source)
    with AzureHost(app, python=pythons()[-1], model="v2") as host:
        assert host.functions == {}
        assert host.index_error is not None
        assert REFUSAL in host.index_error


V1_MODULE = """
import azure.durable_functions as df
import doow_serverless as doow

def steps(context):
    answer = yield context.call_activity("activity", context.get_input())
    return answer

TRACKED

@doow.tracked
def activity(item: str) -> str:
    doow.track("calls")
    return item + "!"
"""
V1_BINDINGS = {
    "orchestrator": [{"type": "orchestrationTrigger", "name": "context", "direction": "in"}],
    "activity": [{"type": "activityTrigger", "name": "item", "direction": "in"}],
}


@both_ends
def test_v1_model(python: Path, ingest: Ingest, tmp_path: Path) -> None:
    """An activity delivers there, too; tracking the orchestrator fails to load, and says why."""
    create = "orchestrator = df.Orchestrator.create(steps)"
    refused = "orchestrator = doow.tracked(df.Orchestrator.create(steps))"
    env = settings(ingest.url)
    app = write_v1(tmp_path / "app", V1_MODULE.replace("TRACKED", create), V1_BINDINGS)
    with AzureHost(app, python=python, model="v1", env=env) as host:
        assert host.index_error is None
        episode = host.invoke("orchestrator", {"context": triggers.orchestration("x")})
        assert (episode.error, episode.return_value["isDone"]) == (None, False)
        assert ingest.events() == []
        assert host.invoke("activity", {"item": '"x"'}).return_value == "x!"
        assert len(ingest.events()) == 1

    app = write_v1(tmp_path / "refused", V1_MODULE.replace("TRACKED", refused), V1_BINDINGS)
    with AzureHost(app, python=python, model="v1", env=env) as host:
        assert host.functions == {}
        assert host.index_error is not None
        assert "tracked() cannot track the durable orchestrator steps" in host.index_error
