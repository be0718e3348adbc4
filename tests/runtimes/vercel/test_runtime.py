"""The freezing Vercel runtime, with plain functions: what the other Vercel tests stand on."""

from __future__ import annotations

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

from tests.runtimes.vercel import sandbox
from tests.runtimes.vercel.runtime import Response, VercelRuntime, VercelRuntimeError

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process")

MODES = ("ipc", "lambda")
SHAPES = ("handler", "wsgi", "asgi", "flask", "fastapi")

# What each of the functions below can do; each of them says it in the words of its own interface.
ACTIONS = """
import os, subprocess, threading, time
from vercel_runtime import get_deadline

ticks = 0
met = threading.Barrier(3)

def tick():
    global ticks
    while True:
        ticks += 1
        time.sleep(0.005)

def act(path, request_id):
    if path == "/tick":
        if ticks == 0:
            threading.Thread(target=tick, daemon=True).start()
        time.sleep(0.05)
        return str(ticks)
    if path == "/meet":
        met.wait(10)
    if path == "/say":
        print("said by", path)
    if path == "/deadline":
        return get_deadline().isoformat()
    if path == "/fork":
        return str(subprocess.Popen(["sleep", "60"]).pid)
    if path == "/leave":
        os._exit(3)
    if path == "/hang":
        time.sleep(60)
    if path == "/id":
        return request_id
    if path == "/environment":
        return repr(dict(os.environ))
    return "path " + path
"""

FUNCTIONS = {
    "handler": """
        from http.server import BaseHTTPRequestHandler

        class handler(BaseHTTPRequestHandler):
            def do_GET(self):
                if self.path == "/fail":
                    raise ValueError("no such customer")
                if self.path == "/none":
                    self.send_response(204)
                    self.end_headers()
                    return
                if self.path == "/stream":
                    self.send_response(200)
                    self.end_headers()
                    self.wfile.write(b"one,")
                    time.sleep(0.3)
                    self.wfile.write(b"two")
                    return
                body = act(self.path, self.headers["x-vercel-id"]).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("X-Twice", "1")
                self.send_header("X-Twice", "2")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(201)
                self.end_headers()
                self.wfile.write(body)
    """,
    "wsgi": """
        def app(environ, start_response):
            path = environ["PATH_INFO"]
            if path == "/fail":
                raise ValueError("no such customer")
            if path == "/none":
                start_response("204 No Content", [])
                return []
            if path == "/stream":
                start_response("200 OK", [])
                return stream()
            if environ["REQUEST_METHOD"] == "POST":
                start_response("201 Created", [])
                return [environ["wsgi.input"].read()]
            body = act(path, environ["HTTP_X_VERCEL_ID"]).encode()
            length = ("Content-Length", str(len(body)))
            start_response("200 OK", [length, ("X-Twice", "1"), ("X-Twice", "2")])
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

        def stream():
            yield b"one,"
            time.sleep(0.3)
            yield b"two"
    """,
    "asgi": """
        import asyncio

        async def app(scope, receive, send):
            if scope["type"] != "http":
                return
            if scope["path"] == "/fail":
                raise ValueError("no such customer")
            if scope["path"] == "/none":
                await send({"type": "http.response.start", "status": 204, "headers": []})
                await send({"type": "http.response.body"})
            elif scope["path"] == "/stream":
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"one,", "more_body": True})
                await asyncio.sleep(0.3)
                await send({"type": "http.response.body", "body": b"two"})
            elif scope["method"] == "POST":
                body, more = b"", True
                while more:
                    message = await receive()
                    body, more = body + message["body"], message["more_body"]
                await send({"type": "http.response.start", "status": 201, "headers": []})
                await send({"type": "http.response.body", "body": body})
            else:
                request_id = dict(scope["headers"])[b"x-vercel-id"].decode()
                text = await asyncio.to_thread(act, scope["path"], request_id)
                body = text.encode()
                headers = [(b"content-length", str(len(body)).encode())]
                headers += [(b"x-twice", b"1"), (b"x-twice", b"2")]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send({"type": "http.response.body", "body": body})
    """,
    "flask": """
        from flask import Flask, Response, request

        app = Flask(__name__)

        @app.get("/<path:path>")
        def get(path):
            if path == "fail":
                raise ValueError("no such customer")
            if path == "none":
                return "", 204
            if path == "stream":
                return Response(stream())
            body = act("/" + path, request.headers["x-vercel-id"])
            return body, [("X-Twice", "1"), ("X-Twice", "2")]

        @app.post("/<path:path>")
        def post(path):
            return request.get_data(), 201

        def stream():
            yield b"one,"
            time.sleep(0.3)
            yield b"two"
    """,
    "fastapi": """
        import asyncio
        from fastapi import FastAPI, Request, Response
        from fastapi.responses import StreamingResponse

        app = FastAPI()

        @app.api_route("/{path:path}", methods=["GET", "HEAD"])
        def get(path: str, request: Request):
            if path == "fail":
                raise ValueError("no such customer")
            if path == "none":
                return Response(status_code=204)
            if path == "stream":
                return StreamingResponse(stream())
            response = Response(act("/" + path, request.headers["x-vercel-id"]))
            response.headers.append("X-Twice", "1")
            response.headers.append("X-Twice", "2")
            return response

        @app.post("/{path:path}")
        async def post(path: str, request: Request):
            return Response(await request.body(), status_code=201)

        async def stream():
            yield b"one,"
            await asyncio.sleep(0.3)
            yield b"two"
    """,
}


@pytest.fixture
def start(tmp_path: Path, vercel_python: Path) -> Callable[..., VercelRuntime]:
    """A runtime of one of the functions above, or of other source code."""

    def start(function: str, mode: str = "ipc", **options: Any) -> VercelRuntime:
        (tmp_path / "api").mkdir(exist_ok=True)
        source = ACTIONS + dedent(FUNCTIONS[function]) if function in FUNCTIONS else function
        (tmp_path / "api" / "index.py").write_text(source)
        return VercelRuntime(
            "api/index.py",
            tmp_path,
            mode=mode,  # type: ignore[arg-type]
            python=options.pop("python", vercel_python),
            **options,
        )

    return start


def exists(pid: int) -> bool:
    """Whether the process runs, or is stopped; one that has ended may still be to be collected."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_answers_in_both_modes(
    start: Callable[..., VercelRuntime], shape: str, mode: str
) -> None:
    """Status, repeated headers and body arrive, with and without a request body."""
    with start(shape, mode) as runtime:
        got = runtime.request("GET", "/path")
        posted = runtime.request("POST", "/path", body=b"gr\xc3\xb6\xc3\x9fe \xff")
        assert (got.status, got.body) == (200, b"path /path")
        assert [value for name, value in got.headers if name.lower() == "x-twice"] == ["1", "2"]
        assert (posted.status, posted.body) == (201, b"gr\xc3\xb6\xc3\x9fe \xff")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", SHAPES)
def test_answers_without_a_body(start: Callable[..., VercelRuntime], shape: str, mode: str) -> None:
    """HEAD announces a length and sends nothing, 204 does neither."""
    with start(shape, mode) as runtime:
        head = runtime.request("HEAD", "/path")
        none = runtime.request("GET", "/none")
    assert (head.status, head.body, head.first_byte_s) == (200, b"", None)
    assert head.header("content-length") == "10"
    assert (none.status, none.body, none.first_byte_s) == (204, b"", None)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", SHAPES)
def test_background_threads_stand_still_between_invocations(
    start: Callable[..., VercelRuntime], shape: str, mode: str
) -> None:
    """The process is stopped when the answer is there, and a thread of it does not count on."""
    with start(shape, mode) as runtime:
        assert runtime.stopped
        before = int(runtime.request("GET", "/tick").body)
        assert runtime.stopped
        assert "\nState:\tT" in Path(f"/proc/{runtime.pid}/status").read_text()
        time.sleep(0.5)  # about a hundred ticks, if it ran
        after = int(runtime.request("GET", "/tick").body)
    assert 0 < after - before < 40


@pytest.mark.parametrize("mode", MODES)
def test_without_freezing_background_threads_go_on(
    start: Callable[..., VercelRuntime], mode: str
) -> None:
    """The counterpart: the same thread counts on when the freeze is switched off."""
    with start("handler", mode, freeze=False) as runtime:
        before = int(runtime.request("GET", "/tick").body)
        assert not runtime.stopped
        time.sleep(0.5)
        after = int(runtime.request("GET", "/tick").body)
    assert after - before > 40


@pytest.mark.parametrize("shape", SHAPES)
def test_requests_run_at_the_same_time(start: Callable[..., VercelRuntime], shape: str) -> None:
    """Three requests that wait for each other are all answered, and only then the process stops."""
    with start(shape) as runtime, ThreadPoolExecutor(3) as pool:
        responses = list(pool.map(lambda _: runtime.request("GET", "/meet"), range(3)))
        assert [response.body for response in responses] == [b"path /meet"] * 3
        assert runtime.stopped


def test_an_invocation_is_not_frozen_by_the_end_of_another(
    start: Callable[..., VercelRuntime],
) -> None:
    """While one request is under way, others come and go, and the process runs."""
    with start("handler") as runtime, ThreadPoolExecutor(1) as pool:
        stream = pool.submit(runtime.request, "GET", "/stream")
        while runtime.stopped:
            time.sleep(0.001)
        for _ in range(5):
            assert runtime.request("GET", "/path").body == b"path /path"
            assert not runtime.stopped
        assert stream.result().body == b"one,two"
        assert runtime.stopped


@pytest.mark.parametrize("shape", SHAPES)
def test_a_stream_arrives_as_it_is_sent(start: Callable[..., VercelRuntime], shape: str) -> None:
    """The first byte comes long before the last, and the end follows the last."""
    with start(shape) as runtime:
        runtime.request("GET", "/path")
        response = runtime.request("GET", "/stream")
    assert (response.status, response.body) == (200, b"one,two")
    assert response.first_byte_s is not None
    assert response.first_byte_s < response.duration_s - 0.25
    assert response.duration_s >= 0.3


@pytest.mark.parametrize(
    ("shape", "status"), [("handler", None), ("wsgi", None), ("asgi", 500), ("flask", 500)]
)
def test_an_exception_ends_the_invocation_over_http(
    start: Callable[..., VercelRuntime], shape: str, status: int | None
) -> None:
    """Who has no error page closes the connection without an answer; the process goes on."""
    with start(shape) as runtime:
        response = runtime.request("GET", "/fail")
        assert response.status == status
        assert response.raw == b"" or status is not None
        assert response.messages[-1]["type"] == "end"
        assert runtime.stopped
        assert runtime.request("GET", "/path").status == 200


@pytest.mark.parametrize(("shape", "status"), [("handler", None), ("asgi", 500)])
def test_an_exception_ends_the_invocation_of_vc_handler(
    start: Callable[..., VercelRuntime], shape: str, status: int | None
) -> None:
    """Without an answer vc_handler itself raises."""
    with start(shape, "lambda") as runtime:
        response = runtime.request("GET", "/fail")
        assert response.status == status
        assert (response.error or "").startswith("RemoteDisconnected") is (status is None)
        assert runtime.stopped
        assert runtime.request("GET", "/path").status == 200


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", ["wsgi", "asgi"])
def test_the_request_carries_id_and_deadline(
    start: Callable[..., VercelRuntime], shape: str, mode: str
) -> None:
    """Each request has its own x-vercel-id, unless one is given, and its own deadline."""
    with start(shape, mode, max_duration_s=60.0) as runtime:
        first, second = (runtime.request("GET", "/id").body for _ in range(2))
        given = runtime.request("GET", "/id", {"X-Vercel-Id": "mine"}).body
        deadlines = [runtime.request("GET", "/deadline").body.decode() for _ in range(2)]
    assert first.startswith(b"iad1::iad1::")
    assert first != second
    assert given == b"mine"
    assert deadlines[0] < deadlines[1]
    assert all(deadline.endswith("+00:00") for deadline in deadlines)


@pytest.mark.parametrize("mode", MODES)
def test_what_a_request_logs_is_its_own(start: Callable[..., VercelRuntime], mode: str) -> None:
    """The lines of one request are not those of the next."""
    with start("handler", mode) as runtime:
        said = runtime.request("GET", "/say")
        other = runtime.request("GET", "/path")
        assert [line for line in said.log if line.startswith("said")] == ["said by /say"]
        assert [line for line in other.log if line.startswith("said")] == []
        assert runtime.stdout.count("said by /say\n") == 1


def test_the_messages_of_an_invocation(start: Callable[..., VercelRuntime]) -> None:
    """The process reports the start, the output and the end of each invocation, in this order."""
    with start("flask") as runtime:
        response = runtime.request("GET", "/say")
    kinds = [message["type"] for message in response.messages]
    assert (kinds[0], set(kinds[1:-1]), kinds[-1]) == ("handler-started", {"log"}, "end")


def test_the_very_bytes_are_seen(start: Callable[..., VercelRuntime]) -> None:
    """A body where there must be none is in the raw bytes, and only there."""
    function = """
from http.server import BaseHTTPRequestHandler

class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response_only(200)
        self.end_headers()
        self.wfile.write(b"too much")
"""
    with start(function) as runtime:
        runtime.request("HEAD")
        response = runtime.request("HEAD")
    assert response.raw == b"HTTP/1.0 200 OK\r\n\r\ntoo much"
    assert response.body == b""


def test_a_connection_serves_several_requests(start: Callable[..., VercelRuntime]) -> None:
    """Kept alive over the freeze, as long as the function's server keeps it."""
    with start("asgi") as runtime, runtime.connect() as connection:
        port = connection.socket.getsockname()[1]
        for path in ("/one", "/two", "/stream", "/none", "/three"):
            response = runtime.request("GET", path, on_connection=connection)
            assert response.status in (200, 204)
            assert runtime.stopped
        assert response.body == b"path /three"
        assert connection.socket.getsockname()[1] == port


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", ["handler", "asgi"])
def test_a_large_body_arrives_whole(
    start: Callable[..., VercelRuntime], shape: str, mode: str
) -> None:
    """Even if its end is still in a buffer of the process when the invocation is over."""
    with start(shape, mode) as runtime:
        body = os.urandom(4_000_000)
        response = runtime.request("POST", "/path", body=body)
        assert response.body == body
        assert runtime.stopped


@pytest.mark.parametrize("mode", MODES)
def test_freezing_by_hand_stalls_an_invocation(
    start: Callable[..., VercelRuntime], mode: str
) -> None:
    """A pause of the process in the middle of an invocation prolongs it, no more."""
    with start("handler", mode) as runtime:
        runtime.request("GET", "/path")
        pauses = [threading.Timer(0.1, runtime.freeze), threading.Timer(0.7, runtime.thaw)]
        for pause in pauses:
            pause.start()
        response = runtime.request("GET", "/stream")
        for pause in pauses:
            pause.join()
        assert response.body == b"one,two"
        assert response.duration_s >= 0.6
        assert runtime.stopped


@pytest.mark.parametrize("mode", MODES)
def test_the_environment_is_that_of_vercel(
    start: Callable[..., VercelRuntime], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of ours reaches the function, and its own variables win."""
    for name in ("DOOW_TRACK_API_KEY", "HTTPS_PROXY", "VIRTUAL_ENV", "HOME"):
        monkeypatch.setenv(name, "inherited")
    with start("wsgi", mode, env={"STAGE": "test", "VERCEL_ENV": "preview"}) as runtime:
        seen: dict[str, str] = eval(runtime.request("GET", "/environment").body)
    assert "inherited" not in seen.values()
    assert seen["STAGE"] == "test"
    assert seen["VERCEL_ENV"] == "preview"
    assert seen["VERCEL"] == "1"
    assert ("VERCEL_IPC_PATH" in seen) is (mode == "ipc")


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_left_behind(start: Callable[..., VercelRuntime], mode: str) -> None:
    """Leaving the block ends the stopped process and what it started, and the output stays."""
    with start("handler", mode) as runtime:
        child = int(runtime.request("GET", "/fork").body)
        assert exists(runtime.pid)
        assert exists(child)
        written = runtime.stdout
    assert not exists(runtime.pid)
    give_up = time.monotonic() + 5  # its new parent has yet to collect it
    while exists(child) and time.monotonic() < give_up:
        time.sleep(0.01)
    assert not exists(child)
    assert runtime.stdout == written


@pytest.mark.parametrize("mode", MODES)
def test_a_process_that_dies_is_an_error(start: Callable[..., VercelRuntime], mode: str) -> None:
    """At once for the request under way, and for every one after it."""
    with start("handler", mode) as runtime:
        for _ in range(2):
            with pytest.raises(VercelRuntimeError, match="exit status 3"):
                runtime.request("GET", "/leave")


@pytest.mark.parametrize("mode", MODES)
def test_an_invocation_without_end_is_an_error(
    start: Callable[..., VercelRuntime], mode: str
) -> None:
    """The process is killed, and the error says so."""
    with start("handler", mode) as runtime:
        with pytest.raises(VercelRuntimeError, match="signal: SIGKILL"):
            runtime.request("GET", "/hang", timeout_s=0.5)
        assert not exists(runtime.pid)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("print('no licence file')\nraise SystemExit(7)\napp = None", "status 7.*no licence file"),
        ("import nowhere\napp = None", "(?s)could not import.*No module named 'nowhere'"),
        ("app = 3", "Could not determine the application interface"),
        ("from http.server import BaseHTTPRequestHandler as B\napp = B", "application interface"),
    ],
)
def test_a_function_that_cannot_start_is_an_error(
    start: Callable[..., VercelRuntime], source: str, reason: str, mode: str
) -> None:
    """The error carries what the process wrote, wherever it wrote it."""
    with pytest.raises(VercelRuntimeError, match=f"(?s){reason}"), start(source, mode):
        pass


@pytest.mark.parametrize("mode", MODES)
def test_a_module_that_hangs_is_an_error(
    start: Callable[..., VercelRuntime], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start has a limit, and no process stays behind."""
    monkeypatch.setattr(sandbox, "INIT_LIMIT_S", 0.5)
    runtime = start("import time\ntime.sleep(60)\napp = None", mode)
    with pytest.raises(VercelRuntimeError, match="never"), runtime:
        pass
    assert not exists(runtime.pid)


def test_an_interpreter_without_the_runtime_is_an_error(
    start: Callable[..., VercelRuntime],
) -> None:
    """The interpreter of the tests has no vercel_runtime, and the error says so."""
    with (
        pytest.raises(VercelRuntimeError, match="No module named 'vercel_runtime'"),
        start("handler", python=sys.executable),
    ):
        pass


def test_a_module_without_entry_point_is_an_error(start: Callable[..., VercelRuntime]) -> None:
    """As the build, this starts nothing, unless the project names the variable."""
    function = (
        "def serve(environ, start_response):\n    start_response('200 OK', [])\n    return []"
    )
    with pytest.raises(VercelRuntimeError, match=r"no entry point in api/index\.py"):
        start(function)
    with start(function, variable="serve") as runtime:
        assert runtime.request("GET", "/").status == 200


def test_the_headers_of_a_response_are_looked_up_in_any_case() -> None:
    """And the first of several counts."""
    response = Response(200, [("X-Twice", "1"), ("x-twice", "2")], b"", b"", None, 0.0, [], [])
    assert (response.header("x-TWICE"), response.header("x-none")) == ("1", None)


def test_an_unstarted_runtime_says_so(start: Callable[..., VercelRuntime]) -> None:
    """Without the with block there is no process, and nothing to clean up."""
    with pytest.raises(VercelRuntimeError, match="context manager"):
        start("handler").freeze()
