"""A log key that is kept elsewhere is fetched beside the delivery, which never waits for it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from doow_serverless._config import Config
from doow_serverless._engine import Engine
from doow_serverless.testing import MemoryTransport
from tests.clock import Clock
from tests.network import KEY

if TYPE_CHECKING:
    import pytest

VARIABLE = "DOOW_TRACK_LOG_KEY_SECRET_ARN"


class Secret:
    """A secret that is read once it is released; counts how often."""

    def __init__(self, *, is_open: bool) -> None:
        self.is_open = threading.Event()
        self.is_read = threading.Event()
        self.text = "log key"
        self.reads = 0
        if is_open:
            self.is_open.set()

    def __call__(self, *_: object) -> str:
        assert self.is_open.wait(20)
        self.reads += 1
        self.is_read.set()
        return self.text


def engine_with(secret: Secret) -> Engine:
    config = Config(KEY, environ={VARIABLE: "arn"}, license_id="lic_1", warm_up=False)
    engine = Engine(config, MemoryTransport(), Clock())
    kept = engine.outbox.log_key.kept
    assert kept is not None
    kept._fetch = secret
    return engine


def deliver(engine: Engine, name: str) -> int:
    engine.outside.record(name)
    return engine.flush(engine.unattended, 20.0).accepted


def signing_key(engine: Engine, secret: Secret) -> bytes | None:
    """The key, once the thread that has read it is done."""
    assert secret.is_read.wait(20)
    with engine.outbox.log_key._lock:
        return engine.outbox.log_key.signing_key()


def test_sending_does_not_wait_for_the_log_key() -> None:
    """An event is accepted while the fetch is stuck; then the key is there."""
    secret = Secret(is_open=False)
    engine = engine_with(secret)
    assert (deliver(engine, "tokens"), engine.outbox.log_key.is_missing) == (1, True)
    secret.is_open.set()
    assert signing_key(engine, secret) == b"log key"
    assert (deliver(engine, "tokens"), secret.reads) == (1, 1)


def test_a_secret_that_cannot_be_read_costs_no_event(caplog: pytest.LogCaptureFixture) -> None:
    """Doow gets it, and nothing is said as long as nothing must be signed."""
    engine = engine_with(Secret(is_open=True))
    kept = engine.outbox.log_key.kept
    assert kept is not None
    kept._fetch = None
    assert deliver(engine, "tokens") == 1
    assert caplog.messages == []


def test_a_restored_process_fetches_it_again() -> None:
    """The snapshot may be older than the last rotations; meanwhile it goes on signing."""
    secret = Secret(is_open=True)
    engine = engine_with(secret)
    deliver(engine, "tokens")
    assert signing_key(engine, secret) == b"log key"
    engine.before_snapshot()
    secret.text = "rotated"
    secret.is_read.clear()
    engine.after_restore()
    assert engine.outbox.log_key.signing_key() == b"log key"
    deliver(engine, "tokens")
    assert (signing_key(engine, secret), secret.reads) == (b"rotated", 2)


def test_a_child_keeps_the_key_of_its_parent() -> None:
    """A fork copies it, so that short children need not ask anyone."""
    secret = Secret(is_open=True)
    engine = engine_with(secret)
    deliver(engine, "tokens")
    assert signing_key(engine, secret) == b"log key"
    engine.before_fork()
    engine.after_fork_in_child()
    engine.after_fork_in_parent()
    assert engine.outbox.log_key.signing_key() == b"log key"
    assert (deliver(engine, "tokens"), secret.reads) == (1, 1)
