"""Applications of every kind that Azure's workers run, which meter nothing."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

HTTP_BINDINGS = [
    {
        "direction": "IN",
        "type": "httpTrigger",
        "name": "req",
        "authLevel": "ANONYMOUS",
        "route": "greet",
    },
    {"direction": "OUT", "type": "http", "name": "$return"},
]

V2_APP = """
import asyncio
import logging
import os
import signal
import threading
import time
import typing

import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)
together = threading.Barrier(2, timeout=10)
arrived = []


def describe(*facts):
    return "|".join(str(fact) for fact in facts)


@app.route(route="greet")
def greet(req: func.HttpRequest) -> func.HttpResponse:
    logging.getLogger("shop").warning("greeting %s", req.params["name"])
    print("printed")
    return func.HttpResponse(
        req.method + " " + req.get_body().decode() + " " + req.headers["x-test"],
        status_code=201,
        headers={"x-answer": "42", "set-cookie": "a=b; Path=/"},
    )


@app.route(route="agreet/{who}")
async def agreet(req: func.HttpRequest, context: func.Context) -> str:
    await asyncio.sleep(0)
    logging.getLogger("shop").info("async")
    return describe(
        req.route_params["who"],
        context.function_name,
        context.invocation_id,
        context.retry_context.retry_count,
        context.retry_context.max_retry_count,
        context.trace_context.trace_parent[:2],
    )


@app.timer_trigger(arg_name="timer", schedule="0 */5 * * * *")
@app.queue_output(arg_name="out", queue_name="q", connection="C")
def tick(timer: func.TimerRequest, out: func.Out[str]) -> None:
    out.set(describe(timer.past_due))


@app.queue_trigger(arg_name="msg", queue_name="q", connection="C")
@app.queue_output(arg_name="$return", queue_name="q2", connection="C")
async def on_queue(msg: func.QueueMessage) -> str:
    return describe(msg.get_body().decode(), msg.id, msg.dequeue_count, msg.pop_receipt)


@app.service_bus_queue_trigger(arg_name="msg", queue_name="q", connection="C")
@app.queue_output(arg_name="out", queue_name="q2", connection="C")
def on_bus(msg: func.ServiceBusMessage, out: func.Out[str]) -> None:
    out.set(describe(msg.get_body().decode(), msg.message_id, msg.delivery_count))


@app.service_bus_topic_trigger(
    arg_name="msgs", topic_name="t", subscription_name="s", connection="C", cardinality="many"
)
@app.queue_output(arg_name="out", queue_name="q2", connection="C")
def on_bus_batch(msgs: typing.List[func.ServiceBusMessage], out: func.Out[str]) -> None:
    out.set(describe(*[(msg.get_body().decode(), msg.message_id) for msg in msgs]))


@app.event_hub_message_trigger(
    arg_name="event", event_hub_name="h", connection="C", cardinality="one"
)
@app.blob_output(arg_name="out", path="c/b", connection="C")
def on_event(event: func.EventHubEvent, out: func.Out[bytes]) -> None:
    partition = event.metadata["PartitionContext"]["PartitionId"]
    out.set(describe(event.get_body().decode(), event.sequence_number, partition).encode())


@app.event_hub_message_trigger(
    arg_name="events", event_hub_name="h", connection="C", cardinality="many"
)
@app.queue_output(arg_name="out", queue_name="q2", connection="C")
async def on_events(events: typing.List[func.EventHubEvent], out: func.Out[str]) -> None:
    partition = events[0].metadata["PartitionContext"]["PartitionId"]
    out.set(describe(*[(e.get_body().decode(), e.sequence_number, partition) for e in events]))


@app.blob_trigger(arg_name="blob", path="c/{name}", connection="C")
@app.queue_output(arg_name="out", queue_name="q2", connection="C")
def on_blob(blob: func.InputStream, out: func.Out[str]) -> None:
    out.set(describe(blob.read().decode(), blob.name, blob.length))


@app.cosmos_db_trigger(
    arg_name="docs", database_name="d", container_name="c", connection="C"
)
@app.cosmos_db_output(arg_name="out", database_name="d", container_name="e", connection="C")
def on_documents(docs: func.DocumentList, out: func.Out[func.Document]) -> None:
    out.set(func.Document.from_dict({"id": "+".join(doc["id"] for doc in docs)}))


@app.event_grid_trigger(arg_name="event")
@app.queue_output(arg_name="out", queue_name="q2", connection="C")
def on_grid(event: func.EventGridEvent, out: func.Out[str]) -> None:
    out.set(describe(event.id, event.event_type, event.get_json()))


@app.route(route="fail")
def fail(req: func.HttpRequest) -> str:
    raise ValueError("no such thing")


@app.route(route="meet")
def meet(req: func.HttpRequest) -> str:
    together.wait()
    return req.params["n"]


@app.route(route="ameet")
async def ameet(req: func.HttpRequest) -> str:
    arrived.append(req.params["n"])
    while len(arrived) < 2:
        await asyncio.sleep(0.001)
    return req.params["n"]


@app.route(route="leave")
def leave(req: func.HttpRequest) -> str:
    os.write(2, b"about to leave\\n")
    os._exit(3)


@app.route(route="stuck")
def stuck(req: func.HttpRequest) -> str:
    time.sleep(60)
    return ""


@app.route(route="late")
def late(req: func.HttpRequest) -> str:
    threading.Timer(0.05, lambda: open(os.environ["LATE_FILE"], "w").close()).start()
    return os.environ["SETTING"]
"""

OUT = {"type": "queue", "name": "out", "direction": "out", "queueName": "q", "connection": "C"}
V1_FUNCTIONS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "greet": (
        [
            {"type": "httpTrigger", "name": "req", "direction": "in", "authLevel": "anonymous"},
            {"type": "http", "name": "$return", "direction": "out"},
        ],
        """
        import logging
        import azure.functions as func

        async def main(req: func.HttpRequest) -> func.HttpResponse:
            logging.getLogger("shop").info("v1")
            return func.HttpResponse("hello " + req.params["name"])
        """,
    ),
    "tick": (
        [
            {"type": "timerTrigger", "name": "timer", "direction": "in", "schedule": "0 * * * *"},
            OUT,
        ],
        """
        import azure.functions as func

        def main(timer: func.TimerRequest, out: func.Out[str], context: func.Context) -> None:
            facts = context.function_name, context.invocation_id, context.retry_context.retry_count
            out.set("|".join(str(fact) for fact in facts))
        """,
    ),
    "on_queue": (
        [
            {"type": "queueTrigger", "name": "msg", "direction": "in", "queueName": "q"},
            {**OUT, "name": "$return"},
        ],
        """
        import azure.functions as func

        def main(msg: func.QueueMessage) -> str:
            if msg.dequeue_count > 1:
                raise KeyError(msg.id)
            return msg.get_body().decode() + " " + msg.id
        """,
    ),
    "broken": (
        [{"type": "timerTrigger", "name": "timer", "direction": "in", "schedule": "0 * * * *"}],
        """
        def main(other):
            pass
        """,
    ),
}

ASGI_APP = """
import azure.functions as func
from fastapi import BackgroundTasks, FastAPI, Request

api = FastAPI()
done = []


@api.get("/api/items/{n}")
async def item(n: int, request: Request, tasks: BackgroundTasks):
    tasks.add_task(done.append, n)
    return {"n": n, "id": request.scope["azure_functions.invocation_id"], "done": list(done)}


app = func.AsgiFunctionApp(app=api, http_auth_level=func.AuthLevel.ANONYMOUS)
"""

WSGI_APP = """
import azure.functions as func
from flask import Flask, request

flask = Flask(__name__)


@flask.post("/api/items/<int:n>")
def item(n):
    id = request.environ["azure_functions.invocation_id"]
    return {"n": n, "body": request.get_data(as_text=True), "id": id}


app = func.WsgiFunctionApp(app=flask.wsgi_app, http_auth_level=func.AuthLevel.ANONYMOUS)
"""

STREAMING_APP = """
import asyncio

import azure.functions as func
from azurefunctions.extensions.http.fastapi import JSONResponse, Request, StreamingResponse

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)
returned = asyncio.Event()


@app.route(route="stream/{who}", methods=["POST"])
async def stream(req: Request, context: func.Context) -> StreamingResponse:
    body = await req.body()

    async def parts():
        yield context.invocation_id.encode()
        await asyncio.sleep(0.2)
        yield b" " + req.path_params["who"].encode()
        yield b" " + body

    return StreamingResponse(parts(), status_code=202, headers={"x-answer": "42"})


@app.route(route="plain")
async def plain(req: Request) -> JSONResponse:
    return JSONResponse({"query": dict(req.query_params)})


@app.route(route="fail")
async def fail(req: Request) -> JSONResponse:
    raise ValueError("no such thing")


@app.route(route="broken")
async def broken(req: Request) -> StreamingResponse:
    async def parts():
        yield b"first"
        await asyncio.sleep(0.1)
        raise ValueError("in the body")

    return StreamingResponse(parts())


@app.timer_trigger(arg_name="timer", schedule="0 * * * *")
def tick(timer: func.TimerRequest) -> None:
    pass
"""

DURABLE_APP = """
import azure.durable_functions as df
import azure.functions as func

app = df.DFApp(http_auth_level=func.AuthLevel.ANONYMOUS)


@app.orchestration_trigger(context_name="context")
def orchestrator(context):
    answer = yield context.call_activity("activity", context.get_input())
    return answer


@app.activity_trigger(input_name="item")
def activity(item: str) -> str:
    return item + "!"


@app.entity_trigger(context_name="context")
def counter(context):
    total = context.get_state(lambda: 0) + context.get_input()
    context.set_state(total)
    context.set_result(total)


@app.route(route="start")
@app.durable_client_input(client_name="client")
async def start(req: func.HttpRequest, client) -> str:
    return type(client).__name__
"""


def write(directory: Path, **sources: str) -> Path:
    """An application: each source under the name of its module."""
    directory.mkdir(exist_ok=True)
    for name, source in sources.items():
        (directory / f"{name}.py").write_text(dedent(source))
    return directory
