"""What stands on the library of Azure runs too: ASGI and WSGI applications, durable functions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from doow_serverless.local.azure import triggers
from doow_serverless.local.azure.host import AzureHost, http_request
from tests.runtimes.azure.sample_apps import ASGI_APP, DURABLE_APP, WSGI_APP, write

if TYPE_CHECKING:
    from pathlib import Path


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
