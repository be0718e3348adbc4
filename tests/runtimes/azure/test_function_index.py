"""The functions of an application are indexed and loaded, in both models and on every Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from doow_serverless.local.azure import triggers
from doow_serverless.local.azure.host import AzureHost, AzureHostError, Log, http_request
from tests.runtimes.azure.environments import each, pythons
from tests.runtimes.azure.sample_apps import HTTP_BINDINGS, V1_FUNCTIONS, V2_APP, write

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("python", each(pythons()), ids=lambda path: path.parts[-3])
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
