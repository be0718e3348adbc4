"""The ingest as an ASGI application: routes, the state they share, and faults on the way out."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from doow_serverless.local import _connection, _protocol
from doow_serverless.local._faults import Fault, FaultQueue
from doow_serverless.local._page import Guard, Page
from doow_serverless.local._posts import Post, PostLog, Share
from doow_serverless.local._protocol import Answer, Batch, Keys, Refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal

    from starlette.types import Receive, Scope, Send

    from doow_serverless.local._account import Account
    from doow_serverless.local._store import Store


class App:
    """What the server's thread and the threads that look at it share.

    Every access holds ``changed``, a condition that is notified when a POST was judged.

    Attributes:
        version: Grows with every change.
        view: What the live page looks at.
    """

    def __init__(
        self,
        store: Store,
        keys: Keys,
        *,
        max_json_bytes: int,
        on_post: Callable[[Post], None] | None,
        account: Account,
    ) -> None:
        self.changed = threading.Condition()
        self.store = store
        self.keys = keys
        self.faults = FaultQueue()
        self.posts = PostLog()
        self.conflicts: list[str] = []
        self.heartbeats = 0
        self.version = 0
        self.view = store.view()
        self._in_flight: set[str] = set()
        self._max_json_bytes = max_json_bytes
        self._account = account
        self._on_post = on_post
        self.asgi = Starlette(
            routes=[
                Route("/telemetry/events", self._events, methods=["POST"]),
                Route("/telemetry/heartbeat", self._heartbeat, methods=["POST"]),
                Route("/_local/events", self._list_events, methods=["GET"]),
                Route("/_local/posts", self._list_posts, methods=["GET"]),
                Route("/_local/faults", self._add_faults, methods=["POST"]),
                Route("/_local/faults", self._clear_faults, methods=["DELETE"]),
                Route("/_local/reset", self._reset, methods=["POST"]),
                *Page(self).routes(),
            ],
            middleware=[Middleware(Guard)],
            exception_handlers={HTTPException: _http_error},
        )

    def reset(self) -> None:
        """Forget events, posts and faults."""
        with self.changed:
            self.store.clear()
            self.view.clear()
            self.version += 1
            self.posts.clear()
            self.faults.clear()
            self.conflicts.clear()
            self.heartbeats = 0

    async def _events(self, request: Request) -> Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        with self.changed:
            number = self.posts.arrived(headers, request.client.port if request.client else 0)
            fault = self.faults.take()
        limit = max(_protocol.MAX_WIRE_BYTES, self._max_json_bytes)
        raw, complete = await _received(request, limit)
        with self.changed:
            self.posts.update(number, body=raw, body_bytes=len(raw))
        if not complete:
            return self._response(number, Answer(400), Fault())
        reading = self._read(number, headers, raw)
        batch = reading.batch
        with self.changed:
            fault = (batch and self.faults.take_for(batch.events)) or fault
            if batch and batch.batch_id in self._in_flight:
                return self._response(number, self._said(number, _protocol.IN_FLIGHT), Fault())
            if batch:
                self._in_flight.add(batch.batch_id)
        try:
            if fault.delay_s:
                await asyncio.sleep(fault.delay_s)
            return self._response(number, self._judge(number, headers, reading, fault), fault)
        finally:
            if batch:
                self._in_flight.discard(batch.batch_id)

    def _response(self, number: int, answer: Answer, fault: Fault) -> Response:
        def done(delivered: bool) -> None:
            with self.changed:
                lost = {} if delivered else {"status": None, "answer": b""}
                post = self.posts.update(number, **lost)
                self.version += 1
                if post is not None and post.batch_id is not None and delivered:
                    took_s = time.monotonic() - post.received_at
                    self.view.answered(post.batch_id, took_s, is_duplicate=post.duplicate)
            if post and self._on_post:
                self._on_post(post)

        return _Delivery(answer, fault, done)

    def _read(self, number: int, headers: dict[str, str], raw: bytes) -> _protocol.Reading:
        reading = _protocol.read(headers, raw, max_json_bytes=self._max_json_bytes)
        with self.changed:
            self.posts.update(number, json_bytes=reading.json_bytes)
            if batch := reading.batch:
                ids = tuple(event["event_id"] for event in batch.events)
                self.posts.update(number, batch_id=batch.batch_id, event_ids=ids)
                if batch.sdk_version:
                    self.posts.update(number, sdk_version=batch.sdk_version)
        return reading

    def _judge(
        self, number: int, headers: dict[str, str], reading: _protocol.Reading, fault: Fault
    ) -> Answer:
        with self.changed:
            handled = None
            if fault.record_first or not fault.takes_answer:
                handled = self._handle(number, headers, reading, fault)
            self.changed.notify_all()
            answer = fault.answer(handled)
            return answer if fault.never_answers else self._said(number, answer)

    def _said(self, number: int, answer: Answer) -> Answer:
        # Noted before the answer leaves: who has it may look here at once.
        self.posts.update(number, status=answer.status, answer=answer.body)
        self.changed.notify_all()
        return answer

    def _handle(
        self, number: int, headers: dict[str, str], reading: _protocol.Reading, fault: Fault
    ) -> Answer:
        try:
            self.keys.check(headers.get("authorization"))
            if reading.refused:
                raise reading.refused
        except Refused as refused:
            return refused.answer
        assert reading.batch is not None
        return self._record(number, reading.batch, fault)

    def _record(self, number: int, batch: Batch, fault: Fault) -> Answer:
        if known := self.store.known(batch.batch_id):
            self.posts.update(number, duplicate=True)
            if known.digest != batch.digest:
                self.conflicts.append(batch.batch_id)
            return self._account.told(known.answer)
        refusal = self._account.admit(len(batch.events))
        if refusal is not None:
            return refusal
        rejected = {
            position: reason
            for position, event in enumerate(batch.events)
            if (
                reason := _protocol.fault_of(event)
                or self._account.fault_of(event)
                or fault.rejects(event)
            )
        }
        answer = self._account.told(_verdict(batch, rejected))
        self.store.record(batch, rejected, answer)
        self.view.note(batch, rejected, self.posts.size(number))
        shares = _shares(batch, rejected)
        self.posts.update(number, totals=_added(shares), shares=shares)
        return answer

    async def _heartbeat(self, request: Request) -> Response:
        with self.changed:
            try:
                self.keys.check(request.headers.get("authorization"))
            except Refused as refused:
                return _plain(refused.answer)
            self.heartbeats += 1
        return _plain(Answer.of(200, {"ok": True}))

    async def _list_events(self, _: Request) -> Response:
        with self.changed:
            events = self.store.events()
        # A quantity that is no integer goes out as text: a JSON number would not stay exact.
        return _plain(Answer(200, json.dumps(events, default=str).encode()))

    async def _list_posts(self, _: Request) -> Response:
        with self.changed:
            posts = [asdict(post) for post in self.posts.all()]
        for post in posts:
            post["body"] = base64.b64encode(post["body"]).decode()
            post["answer"] = post["answer"].decode(errors="replace")
        return _plain(Answer(200, json.dumps(posts, default=str).encode()))

    async def _add_faults(self, request: Request) -> Response:
        try:
            faults = [Fault(**fields) for fields in await request.json()]
        except (TypeError, ValueError) as error:
            return _plain(Answer.of(400, {"message": str(error), "errorClass": "ValidationError"}))
        with self.changed:
            self.faults.append(*faults)
        return _plain(Answer.of(200, {"ok": True}))

    async def _clear_faults(self, _: Request) -> Response:
        with self.changed:
            self.faults.clear()
        return _plain(Answer.of(200, {"ok": True}))

    async def _reset(self, _: Request) -> Response:
        self.reset()
        return _plain(Answer.of(200, {"ok": True}))


class _Delivery(Response):
    """Sends an answer in the way that a fault wants it, and tells whether the client got it."""

    def __init__(self, answer: Answer, fault: Fault, done: Callable[[bool], None]) -> None:
        super().__init__(answer.body, answer.status, answer.headers, _media_type(answer))
        self._answer = answer
        self._fault = fault
        self._done = done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        delivered = False
        try:
            delivered = await self._deliver(scope, receive, send)
        finally:
            self._done(delivered)

    async def _deliver(self, scope: Scope, receive: Receive, send: Send) -> bool:
        transport, fault = _connection.transport_of(scope), self._fault
        if fault.hang:
            await _connection.gone(receive)
            return False
        if fault.reset:
            _connection.break_off(transport, self._answer, fault.reset)
            await _connection.gone(receive)
            return False
        if fault.drip_headers_s is not None or fault.drip_body_s is not None:
            delivered = await _connection.drip(
                transport, self._answer, fault.drip_headers_s, fault.drip_body_s
            )
            await _connection.gone(receive)
            return delivered
        delivered = not transport.is_closing()
        await super().__call__(scope, receive, send)
        return delivered


async def _received(request: Request, limit: int) -> tuple[bytes, bool]:
    """The body up to ``limit`` bytes, and whether the client stayed until it had sent all."""
    raw = bytearray()
    try:
        async for chunk in request.stream():
            raw += chunk
            if len(raw) > limit:
                # Enough to be refused; the rest is left unread.
                break
    except ClientDisconnect:
        return bytes(raw), False
    return bytes(raw), True


def _verdict(batch: Batch, rejected: dict[int, str]) -> Answer:
    counts = {"accepted": len(batch.events) - len(rejected), "rejected": len(rejected)}
    content: dict[str, Any] = {**counts, "batch_id": batch.batch_id}
    if not rejected:
        return Answer.of(202, content)
    content["rejections"] = [
        {"event_id": batch.events[position]["event_id"], "reason": reason}
        for position, reason in rejected.items()
    ]
    return Answer.of(207, content)


def _shares(batch: Batch, rejected: dict[int, str]) -> tuple[Share, ...]:
    """What the events of a batch that were not rejected add, by license and attribution."""
    found: dict[tuple[str, str], Share] = {}
    for position, event in enumerate(batch.events):
        if position in rejected:
            continue
        attribution = event.get("attribution") or {}
        key = (event["license_id"], json.dumps(attribution, sort_keys=True, default=str))
        totals: dict[str, Any] = {}
        share = found.setdefault(key, Share(event["license_id"], attribution, totals))
        _add(share.totals, event["measurements"])
    return tuple(found.values())


def _add(totals: Any, measurements: list[dict[str, Any]]) -> None:
    for measurement in measurements:
        name = measurement["metric_name"]
        totals[name] = totals.get(name, 0) + measurement["quantity"]


def _added(shares: tuple[Share, ...]) -> dict[str, int | Decimal]:
    totals: dict[str, int | Decimal] = {}
    for share in shares:
        for name, quantity in share.totals.items():
            totals[name] = totals.get(name, 0) + quantity
    return totals


def _media_type(answer: Answer) -> str | None:
    named = any(name.lower() == "content-type" for name in answer.headers)
    return None if named else "application/json"


def _plain(answer: Answer) -> Response:
    return Response(answer.body, answer.status, answer.headers, _media_type(answer))


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    content = {"message": error.detail, "errorClass": "HTTPError"}
    return _plain(Answer.of(error.status_code, content, error.headers))
