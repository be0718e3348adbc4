"""The record of every request that reached ``POST /telemetry/events``, answered or not."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from doow_serverless.local import _protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal


@dataclass(frozen=True)
class Share:
    """What a POST added to the ledger of one license, under one attribution.

    Attributes:
        license_id: The license.
        attribution: The attribution.
        totals: By metric, how much.
    """

    license_id: str
    attribution: Mapping[str, Any]
    totals: Mapping[str, int | Decimal]


@dataclass(frozen=True, kw_only=True)
class Post:
    """One request, as far as it got.

    Attributes:
        batch_id: ``None`` if the body was no batch.
        event_ids: In the order of the batch.
        status: Of the answer; ``None`` if none was sent, or the client had gone.
        answer: The body of that answer.
        duplicate: Whether the batch id was recorded before.
        totals: By metric, what this POST added to the ledger.
        shares: The same, by license and attribution.
        encoding: ``Content-Encoding``; ``"identity"`` without that header.
        body: The bytes received.
        body_bytes: Their number.
        json_bytes: The size of the JSON before compression; ``None`` if it was not decompressed.
        sdk_version: Of the body, else of ``X-Doow-SDK-Version``.
        headers: Names in lower case; the key is masked.
        connection: The port of the client: requests on one connection share it.
        received_at: When the head of the request arrived, in seconds on the monotonic clock.
    """

    batch_id: str | None = None
    event_ids: tuple[str, ...] = ()
    status: int | None = None
    answer: bytes = b""
    duplicate: bool = False
    totals: Mapping[str, int | Decimal] = field(default_factory=dict)
    shares: tuple[Share, ...] = ()
    encoding: str = "identity"
    body: bytes = field(default=b"", repr=False)
    body_bytes: int = 0
    json_bytes: int | None = None
    sdk_version: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    connection: int = 0
    received_at: float = 0.0

    def json(self) -> Any:
        """The JSON that was sent, with exact numbers; raises if the body is none."""
        text = _protocol.decode(self.body, self.encoding, _protocol.MAX_WIRE_BYTES)
        return _protocol.parse_json(text)


class PostLog:
    """Posts in order of arrival; each is completed while its request goes on."""

    def __init__(self) -> None:
        self._posts: dict[int, Post] = {}
        self._numbers = itertools.count()

    def arrived(self, headers: Mapping[str, str], connection: int) -> int:
        """Begin the record of a request, and return the number for :meth:`update`."""
        number = next(self._numbers)
        masked = {"authorization": "***"} if "authorization" in headers else {}
        self._posts[number] = Post(
            encoding=headers.get("content-encoding", "identity"),
            sdk_version=headers.get("x-doow-sdk-version"),
            headers={**headers, **masked},
            connection=connection,
            received_at=time.monotonic(),
        )
        return number

    def update(self, number: int, **changes: Any) -> Post | None:
        """Complete a record; ``None`` if it was cleared in the meantime."""
        post = self._posts.get(number)
        if post is not None:
            post = self._posts[number] = replace(post, **changes)
        return post

    def size(self, number: int) -> int:
        """Bytes of the request, as it came."""
        post = self._posts.get(number)
        return 0 if post is None else post.body_bytes

    def all(self) -> list[Post]:
        """Every record, in order of arrival."""
        return list(self._posts.values())

    def clear(self) -> None:
        """Forget them all."""
        self._posts.clear()
