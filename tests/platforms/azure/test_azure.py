"""What users meet on Azure beside the matrix: exceptions, options, errors at import, timeouts."""

from __future__ import annotations

import subprocess
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from doow_serverless.local.azure.host import AzureHost, http_request
from tests.metering import accepted
from tests.network import Server, silent
from tests.platforms.azure.apps import (
    HEAD,
    both_ends,
    every_python,
    import_errors,
    settings,
    write_v2,
)
from tests.runtimes.azure.environments import pythons
from tests.timing import within

if TYPE_CHECKING:
    from pathlib import Path

    from doow_serverless.local import Ingest


# ── exceptions ─────────────────────────────────────────────────────────────────────────────────

FAILING = (
    HEAD
    + """
def deeper(number):
    raise LookupError("no such customer", number)

@app.route(route="a")
@TRACKED
def fails(req: func.HttpRequest) -> str:
    doow.track("calls")
    return deeper(1)

@app.route(route="b")
@TRACKED
async def fails_async(req: func.HttpRequest) -> str:
    doow.track("calls")
    return deeper(2)

@app.route(route="c")
@DISCARDING
def discards(req: func.HttpRequest) -> str:
    doow.track("discarded")
    if req.get_body():
        deeper(3)
    return "fine"

@app.route(route="d")
@DISCARDING
async def discards_async(req: func.HttpRequest) -> str:
    doow.track("discarded")
    deeper(4)

@TRACKED
@app.route(route="e")
def returns_nothing(req: func.HttpRequest) -> str:
    doow.track("calls")
"""
)


def user_frames(stack: str) -> list[str]:
    """The lines of the traceback that show the application's code."""
    lines = stack.splitlines()
    return [
        line
        for frame, code in pairwise(lines)
        if "function_app.py" in frame
        for line in (frame, code)
    ]


@both_ends
def test_exceptions_pass_untouched(python: Path, ingest: Ingest, tmp_path: Path) -> None:
    """Type, message and the user's frames are reported as undecorated; the events arrive."""
    errors = {}
    for kind in ("tracked", "bare"):
        source = FAILING.replace("@DISCARDING", '@doow.tracked(on_exception="discard")')
        source = source.replace("@TRACKED", "@doow.tracked")
        if kind == "bare":  # with other decorators that do nothing, so that line numbers are equal
            source = FAILING.replace("@DISCARDING", "@doow.errors.id").replace("@TRACKED", "@id")
            source = source.replace("@doow.errors.id", "@id").replace("@id", "@(lambda f: f)")
        app = write_v2(tmp_path / kind, source)
        with AzureHost(app, python=python, model="v2", env=settings(ingest.url)) as host:
            request = {"req": http_request(body=b"fail")}
            for name in ("fails", "fails_async", "discards", "discards_async", "returns_nothing"):
                error = host.invoke(name, request).error
                assert error is not None, name
                stack = [line.replace(str(app), "") for line in user_frames(error.stack)]
                errors[kind, name] = error.type, error.message, stack
            if kind == "tracked":
                assert accepted(ingest) == ["calls", "calls", "calls"]
                assert host.invoke("discards", {"req": http_request()}).error is None
                assert accepted(ingest)[3:] == ["discarded"]

    tracked = {name: error for (kind, name), error in errors.items() if kind == "tracked"}
    assert tracked == {name: error for (kind, name), error in errors.items() if kind == "bare"}
    assert tracked["fails"][:2] == ("LookupError", "('no such customer', 1)")
    assert "in deeper" in tracked["fails_async"][2][-2]


# ── options ────────────────────────────────────────────────────────────────────────────────────

OPTIONS = (
    HEAD
    + """
@app.route(route="a")
@doow.tracked(metric="own", attribution={"level": "function"})
def own(req: func.HttpRequest) -> str:
    doow.track("calls")
    return "fine"

@app.route(route="b")
async def plain(req: func.HttpRequest) -> str:
    doow.track("calls")
    return "fine"

@app.function_name(name="named")
@app.route(route="c")
def plain_sync(req: func.HttpRequest, context: func.Context) -> str:
    doow.track("calls", attribution={"function": context.function_name})
    return "fine"

track_app(app, license_id="lic_app", attribution={"level": "app"}, metric="requests")
"""
)


@both_ends
def test_track_app_with_options(python: Path, ingest: Ingest, tmp_path: Path) -> None:
    """They hold for each function, below its own, and a function tracked twice posts once."""
    app = write_v2(tmp_path / "app", OPTIONS)
    arrived = {}
    with AzureHost(app, python=python, model="v2", env=settings(ingest.url)) as host:
        assert list(host.functions) == ["own", "plain", "named"]
        for name in host.functions:
            assert host.invoke(name, {"req": http_request()}).return_value == "fine"
            (post,) = ingest.posts()
            arrived[name] = [
                (event["measurements"][0]["metric_name"], event["license_id"], event["attribution"])
                for event in post.json()["events"]
            ]
            ingest.reset()
    of_app, of_function = {"level": "app"}, {"level": "function"}
    assert arrived == {
        "own": [
            ("requests", "lic_app", of_app),
            ("own", "lic_app", of_function),
            ("calls", "lic_app", of_function),
        ],
        "plain": [("requests", "lic_app", of_app), ("calls", "lic_app", of_app)],
        "named": [
            ("requests", "lic_app", of_app),
            ("calls", "lic_app", {**of_app, "function": "named"}),
        ],
    }


# ── errors at import ───────────────────────────────────────────────────────────────────────────

REMEDY = "call doow_serverless.azure.track_app(app) after its functions are declared"
TRACKS = "track_app() tracks the functions of a FunctionApp or Blueprint"


HELLO = "app.route(route='a')(lambda req: '')"
MISUSES = {
    "doow.tracked(app)": f"tracked() takes a function, not a FunctionApp: {REMEDY}",
    "doow.tracked(func.Blueprint())": f"tracked() takes a function, not a Blueprint: {REMEDY}",
    "track_app(app)": (
        f"{TRACKS}, and FunctionApp has none: call it after the functions are declared"
    ),
    "track_app(func.Blueprint(), budget=1)": (
        f"{TRACKS}, and Blueprint has none: call it after the functions are declared"
    ),
    "track_app(print)": f"{TRACKS}, and builtin_function_or_method has none: give it one",
    f"{HELLO}; track_app(app, color=1)": "track_app() has no option 'color': there are budget, "
    "license_id, attribution, metric, fold, on_exception, idempotent, flush_mode",
    f"{HELLO}; track_app(app, budget=-1)": (
        "budget must be a number of seconds from 0 up, such as 0.5, not -1"
    ),
    f"doow.tracked(on_exception='ignore')({HELLO})": (
        "on_exception must be 'flush' or 'discard', not 'ignore'"
    ),
}


@every_python
def test_misuse_is_told_at_import(python: Path) -> None:
    """The error says what to do instead."""
    errors = import_errors(python, [f"{HEAD}{statement}\n" for statement in MISUSES])
    assert dict(zip(MISUSES, errors, strict=True)) == {
        statement: f"ConfigurationError: {message}" for statement, message in MISUSES.items()
    }


@pytest.mark.parametrize("module", ["doow_serverless", "doow_serverless.azure"])
def test_the_sdk_is_not_imported(module: str) -> None:
    """Importing us costs nobody the import of azure.functions, not even on Azure."""
    code = f"import sys, {module}; print([each for each in sys.modules if each[:5] == 'azure'])"
    environ = {"FUNCTIONS_WORKER_RUNTIME": "python"}
    # Isolated, so that the installed package is imported, and not that of this folder.
    command = [str(pythons()[-1]), "-I", "-c", code]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


TOOL = """
import json, sys
import azure.functions as func
import doow_serverless as doow
import azure_functions_runtime
doow.configure(None)
app = func.FunctionApp()

@app.mcp_tool()
@doow.tracked(idempotent=True)
def weather(city: str, days: int) -> str:
    return city

(builder,) = app._function_builders
trigger = builder._function._trigger
properties = json.loads(trigger.get_dict_repr()["toolProperties"])
print([each["propertyName"] for each in properties])
"""


def test_a_tool_has_its_own_parameters_alone() -> None:
    """``mcp_tool`` makes each parameter one of the tool: ours is none."""
    command = [str(pythons()[-1]), "-I", "-W", "ignore", "-c", TOOL]
    environ = {"FUNCTIONS_WORKER_RUNTIME": "python"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["['city', 'days']"], done.stderr


# ── the timeout ────────────────────────────────────────────────────────────────────────────────

SLOW = (
    HEAD
    + """
@app.route(route="a")
@doow.tracked
def works(req: func.HttpRequest) -> str:
    doow.track("calls")
    time.sleep(0.4)
    return "fine"

@doow.tracked
@app.route(route="b")
async def works_async(req: func.HttpRequest) -> str:
    doow.track("calls")
    await asyncio.sleep(0.4)
    return "fine"
"""
)
BUDGET_S = 1.2


@pytest.mark.parametrize(
    ("setting", "host_json", "ends_after"),
    [
        ("00:00:01", None, "timeout"),
        ("", '{"version": "2.0", "functionTimeout": "00:00:01"}', "timeout"),
        ("0.00:00:01", '{"functionTimeout": "00:10:00"}', "timeout"),
        ("-1", '{"functionTimeout": "00:00:01"}', "budget"),
        ("soon", None, "budget"),
        ("", "{", "budget"),
    ],
)
def test_the_flush_ends_before_the_timeout(
    setting: str, host_json: str | None, ends_after: str, tmp_path: Path
) -> None:
    """Whatever the budget, a silent ingest does not hold a function until the host kills it."""
    app = write_v2(tmp_path / "app", SLOW)
    if host_json is not None:
        (app / "host.json").write_text(host_json)
    with Server(silent) as server:
        env = settings(server.url, DOOW_TRACK_BUDGET=str(int(BUDGET_S * 1000)))
        if setting:
            env["AzureFunctionsJobHost__functionTimeout"] = setting
        with AzureHost(app, python=pythons()[-1], model="v2", env=env) as host:
            # At the same time, since an outage costs one budget only.
            request = {"req": http_request()}
            started = [host.start(name, request) for name in ("works", "works_async")]
            replies = [future.result(10) for future in started]
    assert [reply.error for reply in replies] == [None, None]
    for reply in replies:
        assert not any("a fault of doow-serverless" in line.message for line in reply.logs)
        if ends_after == "timeout":
            within(reply.duration_s, 1.0, at_least_s=0.6)
        else:
            assert reply.duration_s > BUDGET_S + 0.35
