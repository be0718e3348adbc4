"""``idempotent=True`` on Azure: what is delivered again counts once, and nothing else does."""

from __future__ import annotations

from collections import Counter
from textwrap import dedent
from typing import TYPE_CHECKING, Any

from doow_serverless.local.azure import triggers
from doow_serverless.local.azure.host import AzureHost
from tests.platforms.azure.apps import (
    HEAD,
    KINDS,
    V1_HEAD,
    both_ends,
    every_python,
    settings,
    v1_bindings,
    write_v1,
    write_v2,
)
from tests.runtimes.azure.environments import pythons

if TYPE_CHECKING:
    from pathlib import Path

    from doow_serverless.local import Ingest

AGAIN = ("queue", "bus", "bus_batch", "hub", "hub_batch", "blob", "cosmos", "grid")
"""The triggers of what names itself, and may come again."""
WAYS = {
    "unnamed": ("{trigger}\n@IDEMPOTENT\n", ""),
    "named": ("{trigger}\n@IDEMPOTENT\n", ", context: func.Context"),
    "wrapped": ("{trigger}\n@counting\n@IDEMPOTENT\n", ""),
    "wrapped_named": ("{trigger}\n@counting\n@IDEMPOTENT\n", ", context: func.Context"),
    "wrapping": ("{trigger}\n@IDEMPOTENT\n@counting\n", ""),
    "above": ("@IDEMPOTENT\n{trigger}\n", ""),
    "app": ("{trigger}\n", ""),
}
"""Where the tracker stands, and whether the function asks for the context itself."""
COUNTING = """
def counting(function):
    if asyncio.iscoroutinefunction(function):
        @functools.wraps(function)
        async def counted(*args, **kwargs):
            return await function(*args, **kwargs)
    else:
        @functools.wraps(function)
        def counted(*args, **kwargs):
            return function(*args, **kwargs)
    return counted
"""


def function(name: str, kind: str, parameter: str = "", *, is_async: bool) -> str:
    used = f'assert context.function_name == "{name}"' if parameter else "pass"
    return dedent(f"""\
        {"async " * is_async}def {name}(trigger: {KINDS[kind].annotation}{parameter}):
            {used}
            doow.track("calls", attribution={{"function": "{name}"}})
        """)


def application() -> tuple[str, list[tuple[str, str]]]:
    """Every way for every trigger, and the functions with their triggers."""
    functions = []
    parts = ["from __future__ import annotations", HEAD, COUNTING]
    for way in reversed(WAYS):  # "app" first, since that tracks all that is declared so far
        above, parameter = WAYS[way]
        for kind in AGAIN:
            for is_async in (False, True):
                name = f"{'a' if is_async else 's'}_{kind}_{way}"
                functions.append((name, kind))
                trigger = "@app." + KINDS[kind].decorator.format(name=name)
                tracked = above.replace("@IDEMPOTENT", "@doow.tracked(idempotent=True)")
                parts.append(
                    tracked.format(trigger=trigger)
                    + function(name, kind, parameter, is_async=is_async)
                )
        if way == "app":
            parts.append("track_app(app, idempotent=True)")
    return "\n".join(parts), functions


def counted(ingest: Ingest) -> Counter[str]:
    return Counter(event["attribution"]["function"] for event in ingest.events())


def invoke(host: AzureHost, name: str, trigger: triggers.Trigger, again: int = 0) -> None:
    retry = (again, 3) if again else None
    reply = host.invoke(name, {"trigger": trigger}, retry=retry)
    assert (reply.error, reply.logs) == (None, [])


def deliver(host: AzureHost, names: list[tuple[str, str]], number: int, before: int = 0) -> None:
    for name, kind in names:
        invoke(host, name, KINDS[kind].message(number, before), before)


@every_python
def test_what_comes_again_counts_once(python: Path, ingest: Ingest, tmp_path: Path) -> None:
    """A message in another worker, counted up, is the same; another one, or function, is not."""
    source, functions = application()
    app = write_v2(tmp_path / "app", source)
    with AzureHost(app, python=python, model="v2", env=settings(ingest.url)) as host:
        assert host.index_error is None
        deliver(host, functions, 1)
        assert counted(ingest) == dict.fromkeys(host.functions, 1)
        host.kill()
        deliver(host, functions, 1, before=1)
        assert counted(ingest) == dict.fromkeys(host.functions, 1)
        deliver(host, functions, 2)
        assert counted(ingest) == dict.fromkeys(host.functions, 2)


@both_ends
def test_also_in_the_v1_model(python: Path, ingest: Ingest, tmp_path: Path) -> None:
    """There, too, the worker passes the context to functions that do not name it."""
    parts, bindings = [V1_HEAD], {}
    functions = []
    for kind in AGAIN:
        for is_async in (False, True):
            name = f"{'a' if is_async else 's'}_{kind}"
            functions.append((name, kind))
            parts.append(
                "@doow.tracked(idempotent=True)\n" + function(name, kind, is_async=is_async)
            )
            bindings[name] = [v1_bindings(kind)[0]]
    app = write_v1(tmp_path / "app", "\n".join(parts), bindings)
    with AzureHost(app, python=python, model="v1", env=settings(ingest.url)) as host:
        assert host.index_error is None
        for number, before, counts in ((1, 0, 1), (1, 1, 1), (2, 0, 2)):
            deliver(host, functions, number, before)
            assert counted(ingest) == dict.fromkeys(bindings, counts)


SPECIAL = (
    HEAD
    + """
@app.route(route="a", trigger_arg_name="trigger")
@doow.tracked(idempotent=True)
def http(trigger: func.HttpRequest) -> str:
    doow.track("calls", attribution={"function": "http"})
    return "fine"

@app.route(route="b", trigger_arg_name="trigger")
@app.cosmos_db_input(arg_name="doc", database_name="d", container_name="c", connection="C")
@doow.tracked(idempotent=True)
def reads(trigger: func.HttpRequest, doc: func.DocumentList) -> str:
    doow.track("calls", attribution={"function": "reads"})
    return str(len(doc))

@app.timer_trigger(arg_name="trigger", schedule="0 * * * * *")
@doow.tracked(idempotent=True)
async def timer(trigger: func.TimerRequest) -> None:
    doow.track("calls", attribution={"function": "timer"})

@app.queue_trigger(arg_name="trigger", queue_name="q", connection="C")
@doow.tracked(idempotent=True)
def text(trigger: str) -> None:
    doow.track("calls", attribution={"function": "text"})

@app.queue_trigger(arg_name="trigger", queue_name="q", connection="C")
@app.queue_output(arg_name="out", queue_name="q", connection="C")
@doow.tracked(idempotent=True)
def with_output(trigger: func.QueueMessage, out: func.Out[str]) -> None:
    doow.track("calls", attribution={"function": "with_output"})
    out.set("set")

@app.blob_trigger(arg_name="trigger", path="c/{name}", connection="C")
@doow.tracked(idempotent=True)
def blob(trigger: func.InputStream) -> None:
    doow.track("calls", attribution={"function": "blob"})

@app.queue_trigger(arg_name="trigger", queue_name="q", connection="C")
@doow.tracked(idempotent=True)
def twin(trigger: func.QueueMessage) -> None:
    doow.track("calls", attribution={"function": "twin"})

@app.queue_trigger(arg_name="trigger", queue_name="q", connection="C")
@doow.tracked(idempotent=True)
def other_twin(trigger: func.QueueMessage) -> None:
    doow.track("calls", attribution={"function": "twin"})

@app.queue_trigger(arg_name="trigger", queue_name="q", connection="C")
@doow.tracked
def random_ids(trigger: func.QueueMessage) -> None:
    doow.track("calls", attribution={"function": "random_ids"})
"""
)


def test_what_counts_again(ingest: Ingest, tmp_path: Path) -> None:
    """What has no name, a blob that was overwritten, another function, and without idempotent."""
    app = write_v2(tmp_path / "app", SPECIAL)
    by_function: dict[str, Any] = {
        "http": triggers.http_request(),
        "timer": triggers.timer(),
        "text": triggers.queue_message(),
        "random_ids": triggers.queue_message(),
        "with_output": triggers.queue_message(),
        "twin": triggers.queue_message(),
        "other_twin": triggers.queue_message(),
    }
    with AzureHost(app, python=pythons()[-1], model="v2", env=settings(ingest.url)) as host:
        for name, trigger in by_function.items():
            for again in (0, 1):
                invoke(host, name, trigger, again)
        document = triggers.cosmos_documents({"id": "d-1", "_etag": "e-1"}).value
        for _ in range(3):
            inputs = {"trigger": triggers.http_request(), "doc": document}
            assert host.invoke("reads", inputs).error is None
        for tag in ("0x1", "0x1", "0x2"):
            properties = {"Properties": {"ETag": tag}}
            reply = host.invoke("blob", {"trigger": triggers.blob()}, trigger_metadata=properties)
            assert (reply.error, reply.logs) == (None, [])
    assert counted(ingest) == {
        "http": 2, "reads": 3, "timer": 2, "text": 2, "random_ids": 2, "with_output": 1, "blob": 2,
        "twin": 2,
    }  # fmt: skip
