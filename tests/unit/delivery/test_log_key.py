"""A log key that is kept elsewhere is fetched beside the delivery, which never waits for it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless._config import Config
from doow_serverless._engine import Engine
from doow_serverless._frames.reader import Part, read_frame
from doow_serverless._process.workers import MAX_THREADS
from doow_serverless.testing import MemoryTransport
from tests.clock import Clock
from tests.network import KEY

if TYPE_CHECKING:
    from pathlib import Path

VARIABLE = "DOOW_TRACK_LOG_KEY_SECRET_ARN"


class Secret:
    """A secret that is read once it is released; counts how often."""

    def __init__(self, *, is_open: bool) -> None:
        self.is_open = threading.Event()
        self.is_read = threading.Event()
        self.opens_itself = False
        self.gave_up = False
        self.text = "log key"
        self.reads = 0
        if is_open:
            self.is_open.set()

    def __call__(self, *_: object) -> str:
        if self.opens_itself:
            self.is_open.set()
        self.gave_up = not self.is_open.wait(20)
        self.reads += 1
        self.is_read.set()
        return self.text


def engine_with(secret: Secret, answer: Any = None, **options: Any) -> Engine:
    config = Config(KEY, environ={VARIABLE: "arn"}, license_id="lic_1", warm_up=False, **options)
    engine = Engine(config, MemoryTransport(answer), Clock())
    kept = engine.outbox.log_key.kept
    assert kept is not None
    kept._fetch = secret
    return engine


def deliver(engine: Engine, name: str, budget_s: float = 20.0) -> int:
    engine.outside.record(name)
    return engine.flush(engine.unattended, budget_s).accepted


def signing_key(engine: Engine, secret: Secret) -> bytes | None:
    """The key, once the thread that has read it is done."""
    assert secret.is_read.wait(20)
    engine.outbox.log_key._current.wait(20.0, 20.0)
    return engine.outbox.log_key.signing_key()


def parts_in(directory: Path) -> list[Part]:
    """The frames of the dead letters in a directory."""
    found = [read_frame(file.read_text().strip()) for file in directory.iterdir()]
    return [one for one in found if isinstance(one, Part)]


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


def test_a_dead_letter_of_a_child_is_signed(tmp_path: Path) -> None:
    """With the key that its parent had, though it could not fetch one itself."""
    secret = Secret(is_open=True)
    engine = engine_with(secret, lambda _: 500, dead_letter=str(tmp_path))
    engine.outbox.log_key.prepare(20.0)
    secret.is_open.clear()
    engine.before_fork()
    engine.after_fork_in_child()
    engine.after_fork_in_parent()
    deliver(engine, "tokens", budget_s=0.0)
    engine.outbox.write_down_all(20.0)
    secret.is_open.set()
    assert [one.is_signed_by([b"log key"]) for one in parts_in(tmp_path)] == [True]


# ── the init phase ──────────────────────────────────────────────────────────────────────────────


class Platform:
    """Stands for the module that fetches; what it brings is a secret."""

    def __init__(self, secret: Secret) -> None:
        self.load_fetch = lambda: secret


@pytest.fixture
def init_phase(monkeypatch: pytest.MonkeyPatch) -> Secret:
    """A secret in an init phase that may wait longer for it than it takes."""
    secret = Secret(is_open=False)
    monkeypatch.setattr("doow_serverless._secrets.import_module", lambda _: Platform(secret))
    monkeypatch.setattr("doow_serverless._process.init_phase.is_on", lambda: True)
    monkeypatch.setattr("doow_serverless._engine.INIT_WAIT_S", 60.0)
    return secret


def warm(**options: Any) -> Engine:
    config = Config(KEY, environ={VARIABLE: "arn"}, license_id="lic_1", **options)
    return Engine(config, MemoryTransport(), Clock())


def test_direct_delivery_does_not_hold_the_init_phase(init_phase: Secret) -> None:
    """The log key is wanted for dead letters alone: it is asked for, and not waited for."""
    engine = warm()
    assert (engine.outbox.log_key.is_missing, init_phase.gave_up) == (True, False)
    init_phase.is_open.set()
    assert signing_key(engine, init_phase) == b"log key"


def test_delivery_by_log_waits_for_it_in_the_init_phase(init_phase: Secret) -> None:
    """Nothing is written without it."""
    init_phase.opens_itself = True
    engine = warm(delivery="log")
    assert engine.outbox.log_key.signing_key() == b"log key"


# ── threads that hang ───────────────────────────────────────────────────────────────────────────


def test_a_rescue_does_not_wait_for_senders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All threads that send hang; before the platform kills the function it is written down."""
    options: Any = {"license_id": "lic_1", "warm_up": False, "dead_letter": str(tmp_path)}
    engine = Engine(Config(KEY, environ={}, **options), MemoryTransport(), time.monotonic)
    is_rescued, is_over = threading.Event(), threading.Event()
    account = engine._flusher._end

    def accounted(flushing: Any) -> None:
        account(flushing)
        is_rescued.set()

    def hang() -> None:
        is_over.wait(30)

    monkeypatch.setattr(engine._flusher, "_end", accounted)
    for _ in range(MAX_THREADS):
        engine.outbox.workers.submit(hang)
    engine.outside.record("tokens")
    engine.flush_meanwhile(engine.unattended, lambda: 0.1)
    assert is_rescued.wait(20)
    engine.outbox.write_down_all(20.0)
    is_over.set()
    assert [(one.reason, one.events) for one in parts_in(tmp_path)] == [("NOT_READY", 1)]
