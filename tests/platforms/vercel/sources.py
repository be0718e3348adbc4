"""Applications of every shape that Vercel serves, and what each of them records.

They do the same things, each in the words of its own interface. A line that says "doow" is one of
the meter's: without these lines, the rest is the application that nobody meters.
"""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


SOURCES = {
    "handler": """
        import time
        from http.server import BaseHTTPRequestHandler
        import doow_serverless as doow

        @doow.tracked(**OPTIONS)
        class handler(BaseHTTPRequestHandler):
            protocol_version = PROTOCOL

            def do_GET(self):
                kind, call = self.path.split("/")[1:]
                doow.track("begun", attribution={"call": call})
                body = b"the answer to " + call.encode()
                if kind == "raise":
                    raise LookupError("no such customer")
                if kind == "none":
                    self.send_response(204)
                    self.end_headers()
                elif kind == "unsized":
                    self.head(200)
                    self.wfile.write(body)
                elif kind == "stream":
                    self.head(200)
                    self.wfile.write(b"first, ")
                    time.sleep(0.05)
                    doow.track("streamed", attribution={"call": call})
                    self.wfile.write(b"last")
                elif kind == "chunked":
                    self.head(200, ("Transfer-Encoding", "chunked"))
                    self.wfile.write(b"7\\r\\nfirst, \\r\\n")
                    doow.track("streamed", attribution={"call": call})
                    self.wfile.write(b"4\\r\\nlast\\r\\n0\\r\\n")
                    self.wfile.write(b"\\r\\n")
                elif kind == "refused":
                    self.head(500, ("Content-Length", str(len(body))))
                    self.wfile.write(body)
                else:
                    if kind == "slow":
                        time.sleep(0.05)
                    if kind == "hang":
                        time.sleep(30)
                    doow.track("worked", attribution={"call": call})
                    self.head(200, ("Content-Length", str(len(body))))
                    if self.command != "HEAD":
                        self.wfile.write(body)
                    if kind == "late":
                        time.sleep(0.02)
                        doow.track("late", attribution={"call": call})

            do_HEAD = do_GET

            def head(self, status, *headers):
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.end_headers()
    """,
    "wsgi": """
        import time
        import doow_serverless as doow

        @doow.tracked(**OPTIONS)
        def app(environ, start_response):
            kind, call = environ["PATH_INFO"].split("/")[1:]
            doow.track("begun", attribution={"call": call})
            body = b"the answer to " + call.encode()
            length = ("Content-Length", str(len(body)))
            if kind == "raise":
                raise LookupError("no such customer")
            if kind == "none":
                start_response("204 No Content", [])
                return []
            if kind == "unsized":
                start_response("200 OK", [])
                return [body]
            if kind == "stream":
                start_response("200 OK", [])
                return stream(call)
            if kind == "refused":
                start_response("500 Internal Server Error", [length])
                return [body]
            start_response("200 OK", [length])
            if kind == "slow":
                time.sleep(0.05)
            if kind == "hang":
                time.sleep(30)
            doow.track("worked", attribution={"call": call})
            if environ["REQUEST_METHOD"] == "HEAD":
                return []
            return late(body, call) if kind == "late" else [body]

        def stream(call):
            yield b"first, "
            time.sleep(0.05)
            doow.track("streamed", attribution={"call": call})
            yield b"last"

        def late(body, call):
            try:
                yield body
            finally:
                time.sleep(0.02)
                doow.track("late", attribution={"call": call})
    """,
    "asgi": """
        import asyncio
        import doow_serverless as doow

        @doow.tracked(**OPTIONS)
        async def app(scope, receive, send):
            if scope["type"] != "http":
                return
            kind, call = scope["path"].split("/")[1:]
            doow.track("begun", attribution={"call": call})
            body = b"the answer to " + call.encode()
            length = (b"content-length", str(len(body)).encode())
            if kind == "raise":
                raise LookupError("no such customer")
            if kind == "none":
                await start(send, 204)
                await send({"type": "http.response.body"})
                return
            if kind == "stream":
                await start(send, 200)
                await send({"type": "http.response.body", "body": b"first, ", "more_body": True})
                await asyncio.sleep(0.05)
                doow.track("streamed", attribution={"call": call})
                await send({"type": "http.response.body", "body": b"last"})
                return
            if kind == "slow":
                await asyncio.sleep(0.05)
            if kind == "hang":
                await asyncio.sleep(30)
            if kind == "refused":
                await start(send, 500, length)
            elif kind == "unsized":
                await start(send, 200)
            else:
                doow.track("worked", attribution={"call": call})
                await start(send, 200, length)
            if scope["method"] == "HEAD":
                body = b""
            await send({"type": "http.response.body", "body": body})
            if kind == "late":
                await asyncio.sleep(0.02)
                doow.track("late", attribution={"call": call})

        async def start(send, status, *headers):
            await send({"type": "http.response.start", "status": status, "headers": headers})
    """,
    "flask": """
        import time
        from flask import Flask, Response
        import doow_serverless as doow
        from doow_serverless.wsgi import DoowMiddleware

        app = Flask(__name__)
        app.wsgi_app = DoowMiddleware(app.wsgi_app, **OPTIONS)

        @app.get("/<kind>/<call>")
        def get(kind, call):
            doow.track("begun", attribution={"call": call})
            if kind == "raise":
                raise LookupError("no such customer")
            if kind == "none":
                return "", 204
            if kind == "unsized":
                return Response(iter([f"the answer to {call}"]))
            if kind == "stream":
                return Response(stream(call))
            if kind == "refused":
                return f"the answer to {call}", 500
            if kind == "slow":
                time.sleep(0.05)
            if kind == "hang":
                time.sleep(30)
            doow.track("worked", attribution={"call": call})
            response = Response(f"the answer to {call}")
            if kind == "late":
                response.call_on_close(lambda: late(call))
            return response

        def stream(call):
            yield b"first, "
            time.sleep(0.05)
            doow.track("streamed", attribution={"call": call})
            yield b"last"

        def late(call):
            time.sleep(0.02)
            doow.track("late", attribution={"call": call})
    """,
    "fastapi": """
        import time
        from fastapi import BackgroundTasks, FastAPI
        from fastapi.responses import PlainTextResponse, Response, StreamingResponse
        import doow_serverless as doow
        from doow_serverless.asgi import DoowMiddleware

        app = FastAPI()
        MIDDLEWARE_INSIDE
        app.add_middleware(DoowMiddleware, **OPTIONS)
        MIDDLEWARE_OUTSIDE

        @app.api_route("/{kind}/{call}", methods=["GET", "HEAD"])
        def get(kind: str, call: str, background: BackgroundTasks):
            doow.track("begun", attribution={"call": call})
            if kind == "raise":
                raise LookupError("no such customer")
            if kind == "none":
                return Response(status_code=204)
            if kind == "unsized":
                return StreamingResponse(iter([f"the answer to {call}"]))
            if kind == "stream":
                return StreamingResponse(stream(call))
            if kind == "refused":
                return PlainTextResponse(f"the answer to {call}", 500)
            if kind == "slow":
                time.sleep(0.05)
            if kind == "hang":
                time.sleep(30)
            doow.track("worked", attribution={"call": call})
            if kind == "late":
                background.add_task(late, call)
            return PlainTextResponse(f"the answer to {call}")

        def stream(call):
            yield b"first, "
            time.sleep(0.05)
            doow.track("streamed", attribution={"call": call})
            yield b"last"

        def late(call):
            time.sleep(0.02)
            doow.track("late", attribution={"call": call})
    """,
}

# Starlette's own way to write a middleware, which splits bodies and runs what is within on a task.
_PASSING = """
async def pass_on(request, call_next):
    return await call_next(request)

"""
_BASE = "app.middleware('http')(pass_on)"

SHAPES = (*SOURCES, "basehttp")

#: What one request of a kind records by the end of its invocation, and after its completing bytes.
RECORDED = {
    "plain": ["begun", "worked"],
    "slow": ["begun", "worked"],
    "stream": ["begun", "streamed"],
    "chunked": ["begun", "streamed"],
    "head": ["begun", "worked"],
    "none": ["begun"],
    "unsized": ["begun"],
    "refused": ["begun"],
    "raise": ["begun"],
    "late": ["begun", "worked", "late"],
}


def source_of(
    shape: str, *, bare: bool = False, http11: bool = False, options: Mapping[str, Any] = {}
) -> str:
    """The source of an application.

    Args:
        shape: One of ``SHAPES``.
        bare: Leaves out the meter.
        http11: A handler class keeps its connections.
        options: Of the wrapper.
    """
    base = _BASE if shape == "basehttp" else ""
    text = dedent(SOURCES["fastapi" if shape == "basehttp" else shape])
    text = text.replace("MIDDLEWARE_INSIDE", base).replace("MIDDLEWARE_OUTSIDE", base)
    text = text.replace("PROTOCOL", "'HTTP/1.1'" if http11 else "'HTTP/1.0'")
    text = f"OPTIONS = {dict(options)!r}\n{_PASSING if base else ''}{text}"
    if bare:
        text = "\n".join(line for line in text.split("\n") if "doow" not in line.lower())
    return text
