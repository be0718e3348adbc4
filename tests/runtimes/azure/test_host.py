"""The harness itself: Azure's worker libraries, driven with applications that meter nothing."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

from tests.runtimes.azure import triggers
from tests.runtimes.azure.host import (
    AzureHost,
    AzureHostError,
    HttpResponse,
    Log,
    http_request,
    pythons,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
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


def write(directory: Path, **sources: str) -> Path:
    """An application: each source under the name of its module."""
    directory.mkdir(exist_ok=True)
    for name, source in sources.items():
        (directory / f"{name}.py").write_text(dedent(source))
    return directory


@pytest.fixture(scope="module")
def v2_app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("v2"), function_app=V2_APP)


@pytest.fixture(scope="module")
def v1_app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    app = tmp_path_factory.mktemp("v1")
    for name, (bindings, source) in V1_FUNCTIONS.items():
        write(app / name, __init__=source)
        (app / name / "function.json").write_text(json.dumps({"bindings": bindings}))
    return app


@pytest.fixture(scope="module")
def newest_python() -> Path:
    return pythons()[-1]


@pytest.fixture(scope="module")
def v2(v2_app: Path, newest_python: Path) -> Iterator[AzureHost]:
    with AzureHost(v2_app, python=newest_python, model="v2") as host:
        yield host


@pytest.mark.parametrize("python", pythons(), ids=lambda path: path.parts[-3])
def test_every_interpreter_answers(python: Path, v2_app: Path, v1_app: Path) -> None:
    """A function of each model answers under every environment that there is."""
    with AzureHost(v2_app, python=python, model="v2") as host:
        answer = host.invoke("agreet", {"req": http_request(route_params={"who": "x"})})
        assert f"x|agreet|{answer.id}|0|0|00" == answer.return_value
    with AzureHost(v1_app, python=python, model="v1") as host:
        answer = host.invoke("tick", {"timer": triggers.timer()})
        assert {"out": f"tick|{answer.id}|0"} == answer.outputs


def test_functions_are_reported_with_their_bindings(v2: AzureHost) -> None:
    """What the worker indexed stands in ``functions``."""
    assert v2.index_error is None
    assert {"greet", "agreet", "tick", "on_queue"} < set(v2.functions)
    assert v2.functions["greet"] == HTTP_BINDINGS


def test_http_request_and_response(v2: AzureHost) -> None:
    """The whole request reaches a sync function, and all of its answer and its log comes back."""
    request = http_request(
        "POST", "http://localhost/api/greet?name=Ada", headers={"X-Test": "t"}, body=b"body"
    )

    answer = v2.invoke("greet", {"req": request})

    assert answer.ok
    assert isinstance(answer.return_value, HttpResponse)
    assert (answer.return_value.status, answer.return_value.body) == (201, b"POST body t")
    assert answer.return_value.headers["x-answer"] == "42"
    assert [cookie["name"] for cookie in answer.return_value.cookies] == ["a"]
    assert [Log("Warning", "shop", "greeting Ada")] == answer.logs
    assert "printed\n" in v2.stdout


def test_async_function_sees_its_context(v2: AzureHost) -> None:
    """The context holds the invocation's id, the retry count and the trace."""
    answer = v2.invoke("agreet", {"req": http_request(route_params={"who": "x"})}, retry=(2, 5))

    assert f"x|agreet|{answer.id}|2|5|00" == answer.return_value
    assert [Log("Information", "shop", "async")] == answer.logs


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


def test_exception_is_reported(v2: AzureHost) -> None:
    """An exception comes back with its type, its message and its stack."""
    error = v2.invoke("fail", {"req": http_request()}).error

    assert error is not None
    assert (error.type, error.message) == ("ValueError", "no such thing")
    assert "in fail" in error.stack


@pytest.mark.parametrize("name", ["meet", "ameet"])
def test_invocations_run_at_the_same_time(v2: AzureHost, name: str) -> None:
    """Two invocations that wait for each other both end, in threads and on the loop."""
    started = [
        v2.start(name, {"req": http_request(url=f"http://localhost/?n={n}")}) for n in (1, 2)
    ]

    assert [future.result(20).return_value for future in started] == ["1", "2"]


def test_unknown_function_is_named(v2: AzureHost) -> None:
    """A wrong name is an error that lists the right ones."""
    with pytest.raises(AzureHostError, match=r"no function named 'nope' was loaded, but: .*greet"):
        v2.invoke("nope", {})


def test_worker_is_killed_by_its_answer_and_replaced(
    v2_app: Path, newest_python: Path, tmp_path: Path
) -> None:
    """Nothing runs after an answer that kills, and the next invocation has a new worker."""
    late = tmp_path / "late"
    env = {"LATE_FILE": str(late), "SETTING": "value"}
    with AzureHost(v2_app, python=newest_python, model="v2", env=env) as host:
        first = host.pid
        answer = host.invoke("late", {"req": http_request()}, kill=True)
        assert answer.return_value == "value"
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)

        again = host.invoke("agreet", {"req": http_request(route_params={"who": "x"})})

        assert again.ok
        assert first != host.pid
        assert not late.exists()


def test_worker_that_exits_is_an_error_with_its_output(v2_app: Path, newest_python: Path) -> None:
    """A worker that dies during an invocation ends the wait, and the next one is served."""
    with AzureHost(v2_app, python=newest_python, model="v2") as host:
        with pytest.raises(AzureHostError, match=r"the worker died; it wrote:\nabout to leave"):
            host.invoke("leave", {"req": http_request()})

        assert host.invoke("tick", {"timer": triggers.timer()}).ok


def test_killed_from_outside(v2_app: Path, newest_python: Path) -> None:
    """A worker killed by somebody else is noticed, also by the invocations under way."""
    with AzureHost(v2_app, python=newest_python, model="v2") as host:
        started = host.start("stuck", {"req": http_request()})
        os.kill(host.pid, signal.SIGKILL)
        with pytest.raises(AzureHostError, match="the worker died"):
            started.result(20)


def test_no_answer_in_time(v2_app: Path, newest_python: Path) -> None:
    """An invocation that does not end is given up after its time."""
    with (
        AzureHost(v2_app, python=newest_python, model="v2") as host,
        pytest.raises(AzureHostError, match=r"'stuck' did not answer within 0.2 s"),
    ):
        host.invoke("stuck", {"req": http_request()}, timeout_s=0.2)


def test_moments_are_on_the_monotonic_clock(v2: AzureHost) -> None:
    """The moment of the answer lies within the call."""
    before = time.monotonic()
    answer = v2.invoke("tick", {"timer": triggers.timer()})

    assert before <= answer.responded_at - answer.duration_s
    assert answer.responded_at <= time.monotonic()
    assert answer.duration_s > 0


def test_placeholder_becomes_an_application(v2_app: Path, newest_python: Path) -> None:
    """A worker that started without application and settings gets both in a later message."""
    env = {"SETTING": "later", "LATE_FILE": os.devnull}
    host = AzureHost(v2_app, python=newest_python, model="v2", env=env, placeholder=True)
    with host:
        assert host.invoke("late", {"req": http_request()}).return_value == "later"


def test_indexing_failure_is_text(newest_python: Path, tmp_path: Path) -> None:
    """An application that cannot be indexed has no functions, and the reason is told."""
    source = V2_APP.replace("timer: func.TimerRequest", "timer: func.TimerRequest, extra: str")
    app = write(tmp_path, function_app=source)
    with AzureHost(app, python=newest_python, model="v2") as host:
        assert host.functions == {}
        assert host.index_error is not None
        assert "cannot load the tick function" in host.index_error
        with pytest.raises(AzureHostError, match="cannot load the tick function"):
            host.invoke("tick", {"timer": triggers.timer()})


def test_model_that_the_directory_does_not_have(v2_app: Path, newest_python: Path) -> None:
    """A v2 application cannot pass for a v1 application."""
    with pytest.raises(AzureHostError, match="is no application of the v1 model"):
        AzureHost(v2_app, python=newest_python, model="v1").__enter__()


def test_interpreter_without_the_libraries(v2_app: Path) -> None:
    """A Python that has no worker libraries is refused, with its own words."""
    with pytest.raises(AzureHostError, match=r"requirements/azure.txt(.|\n)*ModuleNotFoundError"):
        AzureHost(v2_app, python=sys.executable, model="v2").__enter__()


def test_missing_environments_are_told(v2_app: Path, tmp_path: Path) -> None:
    """Without an environment, the error says what makes one."""
    with pytest.raises(AzureHostError, match=r"`make test` makes an environment"):
        AzureHost(v2_app, python=tmp_path / "python", model="v2").__enter__()


def test_v1_functions(v1_app: Path, newest_python: Path) -> None:
    """Functions of the v1 model: async and sync, with outputs, a return value and an exception."""
    with AzureHost(v1_app, python=newest_python, model="v1") as host:
        assert {"greet", "tick", "on_queue"} == set(host.functions)
        assert V1_FUNCTIONS["greet"][0] == host.functions["greet"]
        request = http_request(url="http://localhost/api/greet?name=Ada")
        greeting = host.invoke("greet", {"req": request})
        tick = host.invoke("tick", {"timer": triggers.timer()}, retry=(1, 3))
        good = host.invoke("on_queue", {"msg": triggers.queue_message("b", id="q-1")})
        bad = host.invoke("on_queue", {"msg": triggers.queue_message(dequeue_count=2, id="q-2")})

    assert greeting.return_value.body == b"hello Ada"
    assert [Log("Information", "shop", "v1")] == greeting.logs
    assert {"out": f"tick|{tick.id}|1"} == tick.outputs
    assert good.return_value == "b q-1"
    assert bad.error is not None
    assert (bad.error.type, bad.error.message) == ("KeyError", "'q-2'")


def test_v1_function_that_cannot_be_loaded(v1_app: Path, newest_python: Path) -> None:
    """Of a v1 application only the broken function is missing, and the reason is told."""
    with AzureHost(v1_app, python=newest_python, model="v1") as host:
        assert "broken" not in host.functions
        assert host.index_error is not None
        assert "cannot load the broken function" in host.index_error


def test_asgi_function_app(newest_python: Path, tmp_path: Path) -> None:
    """An ASGI application answers, and its background task has run before the next request."""
    app = write(tmp_path, function_app=ASGI_APP)
    with AzureHost(app, python=newest_python, model="v2") as host:
        answers = [
            host.invoke("http_app_func", {"req": http_request(url=f"http://h/api/items/{n}")})
            for n in (1, 2)
        ]

    assert [
        {"n": 1, "id": answers[0].id, "done": []},
        {"n": 2, "id": answers[1].id, "done": [1]},
    ] == [json.loads(answer.return_value.body) for answer in answers]


def test_wsgi_function_app(newest_python: Path, tmp_path: Path) -> None:
    """A WSGI application answers."""
    app = write(tmp_path, function_app=WSGI_APP)
    with AzureHost(app, python=newest_python, model="v2") as host:
        request = http_request("POST", "http://h/api/items/7", body=b"text")
        answer = host.invoke("http_app_func", {"req": request})

    assert {"n": 7, "body": "text", "id": answer.id} == json.loads(answer.return_value.body)


def test_durable_functions(newest_python: Path, tmp_path: Path) -> None:
    """An orchestrator schedules its activity, and activity, entity and client function run."""
    app = write(tmp_path, function_app=DURABLE_APP)
    with AzureHost(app, python=newest_python, model="v2") as host:
        episode = host.invoke("orchestrator", {"context": triggers.orchestration("x")})
        activity = host.invoke("activity", {"item": '"x"'})
        entity = host.invoke("counter", {"context": triggers.entity("add", 5)})
        inputs = {"req": http_request(), "client": triggers.durable_client()}
        client = host.invoke("start", inputs)

    assert [each.error for each in (episode, activity, entity, client)] == [None] * 4
    assert (
        episode.return_value["isDone"],
        episode.return_value["actions"][0][0]["functionName"],
    ) == (False, "activity")
    assert activity.return_value == "x!"
    assert entity.return_value["results"][0]["result"] == "5"
    assert client.return_value == "DurableOrchestrationClient"


@pytest.fixture
def streaming(newest_python: Path, tmp_path: Path) -> Iterator[AzureHost]:
    app = write(tmp_path, function_app=STREAMING_APP)
    with AzureHost(app, python=newest_python, model="v2") as host:
        yield host


def test_streamed_response(streaming: AzureHost) -> None:
    """A body streams over the worker's own server, while the invocation has already ended."""
    exchange = streaming.http(
        "stream", "POST", "/api/stream/x", body=b"body", route_params={"who": "x"}
    )

    assert exchange.invocation.ok
    assert exchange.complete
    assert (exchange.status, exchange.headers["x-answer"]) == (202, "42")
    assert f"{exchange.invocation.id} x body".encode() == exchange.body
    assert exchange.invocation.responded_at < exchange.chunks[-1][0]


def test_stream_that_breaks(streaming: AzureHost) -> None:
    """A body that raises is incomplete, though its invocation has succeeded."""
    exchange = streaming.http("broken", path="/api/broken")

    assert exchange.invocation.ok
    assert (exchange.complete, exchange.body) == (False, b"first")


def test_streaming_app_answers_at_once_too(streaming: AzureHost) -> None:
    """Other responses, exceptions and other triggers work beside a stream."""
    plain = streaming.http("plain", path="/api/plain?a=1")
    failed = streaming.http("fail", path="/api/fail")

    assert (plain.status, json.loads(plain.body)) == (200, {"query": {"a": "1"}})
    assert failed.status == 500
    assert failed.invocation.error is not None
    assert failed.invocation.error.type == "ValueError"
    assert streaming.invoke("tick", {"timer": triggers.timer()}).ok


def test_worker_is_killed_by_the_end_of_a_stream(streaming: AzureHost) -> None:
    """A worker can be killed as soon as all is answered, and is replaced."""
    first = streaming.pid
    exchange = streaming.http("plain", path="/api/plain", kill=True)

    assert exchange.invocation.ok
    assert streaming.http("plain", path="/api/plain").invocation.ok
    assert first != streaming.pid


def test_application_that_does_not_stream(v2: AzureHost) -> None:
    """An application without the extension has no server of its own."""
    with pytest.raises(AzureHostError, match="does not stream"):
        v2.http("greet")
