"""Functions of every shape that Vercel serves, which meter nothing."""

from __future__ import annotations

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
