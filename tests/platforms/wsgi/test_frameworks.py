"""The WSGI middleware around frameworks, and under the adapters that put them on Lambda."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import flask
import pytest

import doow_serverless as doow
from doow_serverless.wsgi import DoowMiddleware
from tests.metering import Trace, accepted
from tests.platforms.wsgi.apps import Server, bare
from tests.platforms.wsgi.shapes import TEXT

if TYPE_CHECKING:
    from collections.abc import Iterator


# ── Flask ──────────────────────────────────────────────────────────────────────────────────────


def flask_app() -> flask.Flask:
    """One that records wherever Flask runs a user's code."""
    app = flask.Flask("shop")
    _hook(app)
    for view in (plain, nothing, stream, later, broken, break_off, file):
        app.add_url_rule(f"/{view.__name__}", view_func=view)
    return app


def _hook(app: flask.Flask) -> None:

    @app.before_request
    def before() -> None:
        doow.track("before")

    @app.after_request
    def after(response: flask.Response) -> flask.Response:
        doow.track("after")
        return response

    @app.teardown_request
    def teardown(problem: BaseException | None) -> None:
        doow.track("teardown")


def plain() -> str:
    doow.track("view")
    return "text"


def nothing() -> tuple[str, int]:
    doow.track("view")
    return "", 204


def stream() -> flask.Response:
    def chunks() -> Iterator[str]:
        for number in range(2):
            doow.track(f"chunk {number} of {flask.request.path}")
            yield str(number)

    return flask.Response(flask.stream_with_context(chunks()))


def later() -> flask.Response:
    response = flask.Response("text")
    response.call_on_close(lambda: doow.track("closed"))
    return response


def broken() -> str:
    doow.track("view")
    raise LookupError("no such customer")


def break_off() -> flask.Response:
    def chunks() -> Iterator[str]:
        doow.track("chunk")
        yield "some "
        raise LookupError("no such customer")

    response = flask.Response(chunks())
    response.call_on_close(lambda: doow.track("closed"))
    return response


def file() -> flask.Response:
    doow.track("view")
    return flask.send_file(io.BytesIO(b"text"), "text/plain")


SEEN: dict[tuple[str, str], tuple[list[str], list[str]]] = {
    ("GET", "/plain"): (["before", "view", "after", "teardown"], []),
    ("HEAD", "/plain"): (["before", "view", "after", "teardown"], []),
    ("GET", "/nothing"): (["before", "view", "after", "teardown"], []),
    ("GET", "/file"): (["before", "view", "after", "teardown"], []),
    ("GET", "/nowhere"): (["before", "after", "teardown"], []),
    ("POST", "/plain"): (["before", "after", "teardown"], []),
    ("GET", "/broken"): (["before", "view", "after", "teardown"], []),
    ("GET", "/later"): (["before", "after", "teardown"], ["closed"]),
}


@pytest.mark.parametrize("is_eager", [True, False], ids=["eager", "lazy"])
@pytest.mark.parametrize(("method", "path"), SEEN)
def test_flask_has_delivered_before_its_response_is_complete(
    method: str, path: str, is_eager: bool, trace: Trace
) -> None:
    """Whatever its hooks recorded; what it does at ``close()`` is there when that returns."""
    app = flask_app()
    expected = _undated(bare(app, method, PATH_INFO=path))
    app.wsgi_app = DoowMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    assert _undated(Server(app, trace, is_eager=is_eager).get(method, PATH_INFO=path)) == expected
    timely, late = SEEN[method, path]
    completing = [call for call in trace.calls if call[0] in ("chunk", "head")][-1]
    assert completing[2] >= len(timely)
    assert accepted(trace.ingest) == timely + late
    assert trace.calls[-1] == ("over", None, len(timely + late))


def _undated(sent: bytes) -> bytes:
    return re.sub(rb"(?m)^Date: .*$", b"", sent)


def test_a_stream_of_flask_keeps_its_request(trace: Trace) -> None:
    """``stream_with_context`` finds the request, in the order in which chunks are asked for."""
    app = flask_app()
    app.wsgi_app = DoowMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    sent = Server(app, trace).get(PATH_INFO="/stream")
    assert sent.endswith(b"\r\n\r\n01")
    assert [call for call in trace.calls if call[0] == "chunk"] == [
        ("chunk", b"0", 0),
        ("chunk", b"1", 0),
    ]
    recorded = accepted(trace.ingest)
    assert [each for each in recorded if each.startswith("chunk")] == [
        "chunk 0 of /stream",
        "chunk 1 of /stream",
    ]
    # Flask tears the request down twice: for the view, and for the stream.
    assert set(recorded) - {"chunk 0 of /stream", "chunk 1 of /stream"} == {
        "before", "after", "teardown",
    }  # fmt: skip
    assert not flask.has_request_context()


def test_a_stream_of_flask_that_breaks_off_is_torn_down(trace: Trace) -> None:
    """What ``call_on_close`` records after the exception arrives as well."""
    app = flask_app()
    app.wsgi_app = DoowMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    with pytest.raises(LookupError):
        Server(app, trace).get(PATH_INFO="/break_off")
    assert accepted(trace.ingest) == ["before", "after", "teardown", "chunk", "closed"]
    assert not flask.has_request_context()


def test_tracked_takes_a_flask_application(trace: Trace) -> None:
    """An object that is called, as any."""
    app = doow.tracked(flask_app())
    assert Server(app, trace).get(PATH_INFO="/plain").endswith(b"\r\n\r\ntext")
    assert accepted(trace.ingest) == ["before", "view", "after", "teardown"]
    assert len(trace.ingest.posts()) == 1


# ── what Django does ───────────────────────────────────────────────────────────────────────────


class DjangoResponse:
    """Iterable, without a length, and closed by its server: then the request is finished."""

    status = "200 OK"

    def __init__(self, chunks: list[bytes], headers: list[tuple[str, str]]) -> None:
        self._chunks = chunks
        self.headers = headers

    def __iter__(self) -> Iterator[bytes]:
        return map(bytes, self._chunks)

    def close(self) -> None:
        doow.track("request finished")


class DjangoStream(DjangoResponse):
    """A streaming response: an iterator that a property makes."""

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._stream())

    def _stream(self) -> Iterator[bytes]:
        for number, chunk in enumerate(self._chunks):
            doow.track(f"chunk {number}")
            yield chunk


class DjangoHandler:
    """An application as ``get_wsgi_application`` makes it."""

    def __init__(self, response: DjangoResponse) -> None:
        self._response = response

    def __call__(self, environ: Any, start_response: Any) -> Any:
        doow.track("view")
        start_response(self._response.status, [*self._response.headers])
        return self._response


def test_a_response_of_django_waits_and_its_end_is_counted(trace: Trace) -> None:
    """CommonMiddleware gives it a length; the signal at its close() comes in time as well."""
    response = DjangoResponse([b"te", b"xt"], [TEXT, ("Content-Length", "4")])
    Server(DoowMiddleware(DjangoHandler(response)), trace).get()
    assert trace.calls == [
        ("head", "200 OK", 0),
        ("chunk", b"te", 0),
        ("chunk", b"xt", 1),
        ("end", None, 1),
        ("over", None, 2),
    ]
    assert accepted(trace.ingest) == ["view", "request finished"]


def test_a_stream_of_django_is_not_delayed(trace: Trace) -> None:
    """All that it records is due at its end."""
    response = DjangoStream([b"te", b"xt"], [TEXT])
    Server(DoowMiddleware(DjangoHandler(response)), trace).get()
    assert [call[2] for call in trace.calls] == [0, 0, 0, 3, 4]
    assert accepted(trace.ingest) == ["view", "chunk 0", "chunk 1", "request finished"]
