"""Which events belong to which WSGI request: nested, interleaved, on threads, and under tracked."""

from __future__ import annotations

import threading
from collections import Counter
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless.errors import ConfigurationError
from doow_serverless.wsgi import DoowMiddleware
from tests.metering import Trace, accepted, configure, owners
from tests.platforms.wsgi.apps import Server, bare, call, environ
from tests.platforms.wsgi.shapes import APPS, TEXT, Closing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from doow_serverless.local import Ingest

VARIABLE: ContextVar[str] = ContextVar("VARIABLE", default="nobody's")


# ── nesting ────────────────────────────────────────────────────────────────────────────────────


def streaming(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [TEXT, ("Content-Length", "4")])
    doow.track("tokens")

    def chunks() -> Iterator[bytes]:
        doow.track("streamed")
        yield b"text"

    return chunks()


def listing(environ: Any, start_response: Any) -> Any:
    doow.track("tokens")
    start_response("200 OK", [TEXT, ("Content-Length", "4")])
    doow.track("streamed")
    return [b"text"]


def bodiless(environ: Any, start_response: Any) -> Any:
    doow.track("tokens")
    start_response("204 No Content", [])
    doow.track("streamed")
    return iter([b""])


@doow.tracked
def helper(app: Any, environ: Any, start_response: Any) -> Any:
    """A tracked function in the application, that is called like one."""
    return app(environ, start_response)


class AppObject:
    """An application as frameworks make them."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return self.app(environ, start_response)

    @doow.tracked
    def tracked_method(self, environ: Any, start_response: Any) -> Any:
        return self.app(environ, start_response)


def tracked_function(app: Any) -> Any:
    @doow.tracked
    def application(environ: Any, start_response: Any) -> Any:
        return app(environ, start_response)

    return application


def tracked_with_options(app: Any) -> Any:
    @doow.tracked(budget=20.0)
    def application(environ: Any, start_response: Any) -> Any:
        return app(environ, start_response)

    return application


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "middleware": DoowMiddleware,
    "middleware in middleware": lambda app: DoowMiddleware(DoowMiddleware(app)),
    "middleware in tracked": lambda app: doow.tracked(DoowMiddleware(app)),
    "middleware in tracked function": lambda app: tracked_function(DoowMiddleware(app)),
    "tracked in middleware": lambda app: DoowMiddleware(tracked_function(app)),
    "tracked function": tracked_function,
    "tracked with options": tracked_with_options,
    "tracked method": lambda app: AppObject(app).tracked_method,
    "bound method": lambda app: doow.tracked(AppObject(app).__call__),
    "object": lambda app: doow.tracked(AppObject(app)),
    "tracked helper": lambda app: DoowMiddleware(lambda *args: helper(app, *args)),
    "middleware between": lambda app: DoowMiddleware(AppObject(DoowMiddleware(app))),
}


@pytest.mark.parametrize("app", [streaming, listing, bodiless])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_however_often_it_is_wrapped_there_is_one_post(
    wrapper: str, app: Any, trace: Trace
) -> None:
    """Before what completes the response, with the response of the bare application."""
    sent = Server(WRAPPERS[wrapper](app), trace, is_eager=app is bodiless).get()
    assert sent == bare(app)
    completing = [call for call in trace.calls if call[0] in ("chunk", "head")][-1]
    assert completing[2] == 2
    assert accepted(trace.ingest) == ["tokens", "streamed"]
    assert len(trace.ingest.posts()) == 1


@pytest.mark.parametrize("name", APPS)
def test_tracked_serves_every_shape(name: str, doow_ingest: Ingest) -> None:
    """As the middleware does; a generator function is an application only within another."""
    configure(doow_ingest)
    app, method, events = APPS[name]
    served = tracked_function(app)
    assert Server(served).get(method) == bare(app, method)
    assert len(accepted(doow_ingest)) == events


def test_tracked_refuses_a_generator_function() -> None:
    """Its body would run when nobody watches: the error names what takes it."""
    with pytest.raises(ConfigurationError, match=r"app.*doow_serverless\.wsgi\.DoowMiddleware"):

        @doow.tracked
        def app(environ: Any, start_response: Any) -> Any:
            start_response("200 OK", [TEXT])
            yield b"text"


def test_two_trackers_deliver_each_their_own(
    trace: Trace, new_tracker: Callable[..., doow.Tracker]
) -> None:
    """An application that is metered for two accounts mixes them nowhere."""
    other = new_tracker(trace.ingest.url, license_id="lic_other")

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [TEXT])
        trace.tracker.track("inner")
        other.track("outer")
        yield b"text"

    Server(DoowMiddleware(DoowMiddleware(app, tracker=trace.tracker), tracker=other)).get()
    batches = [len(post.event_ids) for post in trace.ingest.posts()]
    assert (sorted(accepted(trace.ingest)), batches) == (["inner", "outer"], [1, 1])


def test_a_disabled_tracker_is_not_in_the_way(doow_ingest: Ingest) -> None:
    """The application gets the server's own start_response, and the server its result."""
    configure(doow_ingest, enabled=False)
    given: list[Any] = []
    result = iter([b"text"])

    def app(environ: Any, start_response: Any) -> Any:
        doow.track("tokens")
        given.extend((environ, start_response))
        return result

    for wrapped in (DoowMiddleware(app), tracked_function(app)):
        given.clear()
        passed: list[Any] = [environ(), lambda *_: None]
        assert wrapped(*passed) is result
        assert [id(each) for each in given] == [id(each) for each in passed]
    assert doow_ingest.posts() == []


# ── contexts ───────────────────────────────────────────────────────────────────────────────────


def recording(environ: Any, start_response: Any) -> Any:
    """Records, in every phase, for the request that it serves."""
    request = environ["request"]

    def record(phase: str) -> None:
        doow.track(phase, attribution={"request": request})

    class Body(Closing):
        def __iter__(self) -> Iterator[bytes]:
            record("first")
            yield b"some "
            record("second")
            yield b"text"

        def close(self) -> None:
            record("closed")

    record("called")
    start_response("200 OK", [TEXT])
    return Body()


def test_interleaved_responses_on_one_thread_do_not_mix(doow_ingest: Ingest) -> None:
    """As on a server that has several of them open and takes a chunk of each by turns."""
    configure(doow_ingest)
    served = DoowMiddleware(recording)
    requests = range(3)
    bodies: list[Any] = [call(served, request=request) for request in requests]
    for _ in range(2):
        for body in bodies:
            next(body)
    for body in bodies:
        assert list(body) == []
    for body in reversed(bodies):
        body.close()
    assert owners(doow_ingest) == [{0}, {1}, {2}, {2}, {1}, {0}]
    assert Counter(accepted(doow_ingest)) == dict.fromkeys(
        ("called", "first", "second", "closed"), 3
    )


def test_an_iteration_within_another_does_not_mix(doow_ingest: Ingest) -> None:
    """As where an application asks another for a part of its page, on the same thread."""
    configure(doow_ingest)
    inner = DoowMiddleware(recording)

    def app(environ: Any, start_response: Any) -> Any:
        for chunk in recording(environ, start_response):
            yield b"".join(call(inner, request="part")) + chunk

    sent = Server(DoowMiddleware(app)).get(request="page")
    assert sent.endswith(b"\r\n\r\nsome textsome some texttext")
    # Within a request that is metered it shares that one's POST.
    assert owners(doow_ingest) == [{"page", "part"}]


def test_events_outside_of_a_request_are_not_its_own(doow_ingest: Ingest) -> None:
    """What the server's thread records between two chunks waits for the next flush instead."""
    configure(doow_ingest)
    body = call(DoowMiddleware(recording, attribution={"inside": True}), request=1)
    next(body)
    doow.track("outside")
    next(body)
    assert list(body) == []
    body.close()
    inside = {
        event["measurements"][0]["metric_name"]: event["attribution"].get("inside")
        if "attribution" in event
        else None
        for event in doow_ingest.events()
    }
    assert inside == {
        "called": True, "first": True, "second": True, "closed": True, "outside": None,
    }  # fmt: skip


def test_context_variables_of_the_application_stay_with_it(trace: Trace) -> None:
    """It sees what the server has set, keeps its own through all phases, and leaks nothing."""
    seen: list[str] = []

    class Body(Closing):
        def __iter__(self) -> Iterator[bytes]:
            seen.append(VARIABLE.get())
            VARIABLE.set("the iteration's")
            yield b"text"
            seen.append(VARIABLE.get())

        def close(self) -> None:
            seen.append(VARIABLE.get())
            VARIABLE.set("close's")

    def app(environ: Any, start_response: Any) -> Any:
        seen.append(VARIABLE.get())
        VARIABLE.set("the call's")
        start_response("200 OK", [TEXT])
        return Body()

    token = VARIABLE.set("the server's")
    try:
        Server(DoowMiddleware(app)).get()
        assert VARIABLE.get() == "the server's"
    finally:
        VARIABLE.reset(token)
    assert seen == ["the server's", "the call's", "the iteration's", "the iteration's"]


# ── threads ────────────────────────────────────────────────────────────────────────────────────


def test_an_iteration_may_move_from_thread_to_thread(doow_ingest: Ingest) -> None:
    """As adapters to ASGI do, which take each chunk on some thread of a pool."""
    configure(doow_ingest)
    body: Any = call(DoowMiddleware(recording), request=1)
    chunks: list[bytes] = []
    for step in (
        *(lambda: chunks.append(next(body)),) * 2,
        lambda: chunks.extend(body),
        body.close,
    ):
        thread = threading.Thread(target=step)
        thread.start()
        thread.join(30)
    assert chunks == [b"some ", b"text"]
    assert accepted(doow_ingest) == ["called", "first", "second", "closed"]
