"""All frames of a batch say LOG, or none does: a relay loses the id of a batch whose frame says it.

The outbox writes to real pipes here, since the order of its threads is what decides.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

import pytest

from doow_serverless._config import Config
from doow_serverless._delivery.credentials import Credentials
from doow_serverless._delivery.flight import Flight
from doow_serverless._delivery.outbox import Outbox
from doow_serverless._frames.keys import LogKey
from doow_serverless._frames.reader import Part, read_frame
from doow_serverless._outcome import Outcome
from doow_serverless._process.clock import Budget
from doow_serverless.errors import ErrorKind
from doow_serverless.testing import MemoryTransport
from tests.batches import batch
from tests.network import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doow_serverless._sealing import Batch

VARIABLE = "DOOW_TRACK_LOG_KEY_SECRET_ARN"


class Pipe:
    """The standard output of the process; full from the beginning if that is wanted."""

    def __init__(self) -> None:
        self._reads, self._writes = os.pipe()
        self._filling = 0
        self._rest = b""
        self.stream: TextIO = os.fdopen(self._writes, "w")

    def fill(self) -> None:
        os.set_blocking(self._writes, False)
        with suppress(BlockingIOError):
            while True:
                self._filling += os.write(self._writes, b"." * 4_096)
        os.set_blocking(self._writes, True)

    def parts(self, count: int) -> list[Part]:
        """The next frames, as soon as they have come."""
        lines: list[bytes] = []
        while len(lines) < count:
            self._rest += os.read(self._reads, 65_536)
            skipped = min(self._filling, len(self._rest))
            self._rest, self._filling = self._rest[skipped:], self._filling - skipped
            *whole, self._rest = self._rest.split(b"\n")
            lines += [line for line in whole if line]
        found = [read_frame(line.decode()) for line in lines]
        return [part for part in found if isinstance(part, Part)]

    def close(self) -> None:
        self.stream.close()
        os.close(self._reads)


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    one = Pipe()
    monkeypatch.setattr(sys, "__stdout__", one.stream)
    monkeypatch.setattr("doow_serverless._frames.keys.MISSING_WAIT_S", 20.0)
    yield one
    one.close()


class Secret:
    """A secret that is read once it is opened."""

    def __init__(self) -> None:
        self.is_open = threading.Event()

    def __call__(self, *_: object) -> str:
        assert self.is_open.wait(20)
        return "log key"


def outbox(*, delivery: Any = "log", secret: Secret | None = None, **options: Any) -> Outbox:
    environ = {} if secret is None else {VARIABLE: "arn"}
    config = Config(KEY, environ=environ, delivery=delivery, warm_up=False, **options)
    transport = MemoryTransport() if delivery == "direct" else None
    made = Outbox(config, Credentials(KEY), None, transport, time.monotonic)
    if secret is not None:
        made.log_key = LogKey(None, (VARIABLE, "arn"), fetch=secret)
        made.sender = made._new_sender()
        made.begin_anew()
    return made


def flown(one: Outbox, sealed: Batch) -> Flight:
    flight = Flight(lambda _: None)
    one.submit_all(one.add(flight, sealed))
    return flight


def seen(parts: list[Part]) -> list[tuple[str, str, bool]]:
    return [(part.batch_id, part.reason, part.is_signed) for part in parts]


def test_a_late_key(pipe: Pipe) -> None:
    """The dead letter came first: its reason is its own, and that of the signed frame as well."""
    secret, sealed = Secret(), batch()
    one = outbox(secret=secret)
    one.close(flown(one, sealed), Outcome())
    first = pipe.parts(1)
    secret.is_open.set()
    assert seen([*first, *pipe.parts(1)]) == [
        (sealed.id, "NOT_READY", False), (sealed.id, "NOT_READY", True),
    ]  # fmt: skip


def test_a_stuck_pipe(pipe: Pipe) -> None:
    """The delivery has begun to write: its dead letter is the same frame once more."""
    pipe.fill()
    one, sealed = outbox(log_key="log key"), batch()
    has_begun, write = threading.Event(), one.sender._output.write  # type: ignore[union-attr]

    def tell(frames: list[str]) -> BaseException | None:
        has_begun.set()
        return write(frames)

    one.sender._output.write = tell  # type: ignore[union-attr, method-assign]
    flight = flown(one, sealed)
    assert has_begun.wait(20)
    one.close(flight, Outcome())
    assert seen(pipe.parts(2)) == [(sealed.id, "LOG", True)] * 2


def test_no_dead_letter(pipe: Pipe) -> None:
    """Then a late frame is the first one after all."""
    secret, sealed = Secret(), batch()
    one = outbox(secret=secret, dead_letter="off")
    one.close(flown(one, sealed), Outcome())
    secret.is_open.set()
    assert seen(pipe.parts(1)) == [(sealed.id, "LOG", True)]


@pytest.mark.parametrize("delivery", ["log", "direct"])
def test_another_outbox_goes_on_with_it(pipe: Pipe, delivery: str) -> None:
    """As after configure(): the dead letter of the former decides; so may its POST."""
    secret, sealed = Secret(), batch()
    former = outbox(delivery=delivery, secret=secret)
    former.keep(sealed, ErrorKind.NETWORK_ERROR)
    first = pipe.parts(1)
    latter = outbox(log_key="log key")
    latter.take_over(former)
    latter.deliver_last(Budget(20.0))
    secret.is_open.set()
    assert seen([*first, *pipe.parts(1)]) == [
        (sealed.id, "NETWORK_ERROR", False), (sealed.id, "NETWORK_ERROR", True),
    ]  # fmt: skip


def test_what_a_crash_has_left(pipe: Pipe) -> None:
    """Nobody knows whether it was written or sent before: it goes under its own id."""
    one, sealed = outbox(log_key="log key"), batch()
    one.state.keep(sealed, 0.0, is_written=None)
    one.deliver_last(Budget(20.0))
    assert seen(pipe.parts(1)) == [(sealed.id, "TIMEOUT", True)]
