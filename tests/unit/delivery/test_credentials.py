"""The key: given or fetched, fetched anew once when it is refused, and shown to nobody."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest

from doow_serverless import _engine
from doow_serverless._config import Config
from doow_serverless._delivery.breaker import KEY_REFUSED_HOLD_S
from doow_serverless._delivery.credentials import (
    FIRST_REFUSED_HOLD_S,
    REFRESH_S,
    Credentials,
)
from doow_serverless._delivery.results import Failed, Settled
from doow_serverless._delivery.sender import Sender
from doow_serverless._process.fetching import RETRY_S
from doow_serverless.errors import DoowError
from doow_serverless.testing import MemoryTransport
from tests.batches import batch
from tests.clock import Clock
from tests.network import KEY

if TYPE_CHECKING:
    from collections.abc import Callable

OTHER = "dk_" + "B2" * 32
VARIABLE = "DOOW_TRACK_API_KEY_SECRET_ARN"
WHERE = f"the API key could not be read from Secrets Manager, where {VARIABLE} points"
SILENT = f"{WHERE} (no answer yet: see that this network has a route to it)"
CACHED, ANEW = ("secret", "arn:doow", False, False), ("secret", "arn:doow", True, False)


class Secret:
    """A place where secrets are kept: counts how it is asked."""

    def __init__(self, *texts: str | Exception) -> None:
        self._texts = list(texts)
        self.asked: list[tuple[str, str, bool, bool]] = []

    def __call__(self, kind: str, place: str, anew: bool, is_previous: bool) -> str:
        self.asked.append((kind, place, anew, is_previous))
        text = self._texts.pop(0)
        if isinstance(text, Exception):
            raise text
        return text


class SilentSecret:
    """A place that answers once it is released; counts how often it was asked."""

    def __init__(self) -> None:
        self.is_released = threading.Event()
        self.asked = 0

    def __call__(self, *_: object) -> str:
        self.asked += 1
        assert self.is_released.wait(20)
        return KEY


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine may take long to start a thread."""
    for name in ("WAIT_S", "AGAIN_WAIT_S", "REFRESH_WAIT_S"):
        monkeypatch.setattr(f"doow_serverless._delivery.credentials.{name}", 20.0)


@pytest.fixture
def keep() -> Callable[..., tuple[Secret, Credentials]]:
    def keep(*texts: str | Exception) -> tuple[Secret, Credentials]:
        secret = Secret(*texts)
        return secret, Credentials(None, (VARIABLE, "arn:doow"), secret)

    return keep


def test_a_given_key() -> None:
    """It is there at once, and there is no other to be had."""
    given = Credentials(KEY)
    assert (given.current(), given.replace(KEY)) == (KEY, False)


def test_no_key() -> None:
    """Without a key or a place for one, the error says what to set."""
    none = Credentials(None)
    with pytest.raises(DoowError, match="there is no API key: set DOOW_TRACK_API_KEY") as caught:
        none.current()
    assert caught.value.kind == "AUTH_FAILURE"


def test_a_fetched_key_is_kept(keep: Callable[..., tuple[Secret, Credentials]]) -> None:
    """It is fetched when it is first needed, from a cache if there is one, and once."""
    secret, credentials = keep(KEY)
    assert secret.asked == []
    assert [credentials.current(), credentials.current()] == [KEY, KEY]
    assert secret.asked == [("secret", "arn:doow", False, False)]


@pytest.mark.parametrize(
    "text",
    [KEY, f"{KEY}\n", json.dumps({"api_key": KEY}), json.dumps({"user": "u", "nested": [KEY]})],
)
def test_where_in_the_secret_the_key_is(
    keep: Callable[..., tuple[Secret, Credentials]], text: str
) -> None:
    """A secret may be the key alone, or JSON that holds it under whatever name."""
    assert keep(text)[1].current() == KEY


def test_a_refused_key_is_fetched_anew(keep: Callable[..., tuple[Secret, Credentials]]) -> None:
    """Past all caches; whoever was refused with the old key meanwhile gets the new one for free."""
    secret, credentials = keep(KEY, OTHER)
    assert credentials.current() == KEY
    assert [credentials.replace(KEY), credentials.replace(KEY)] == [True, True]
    assert credentials.current() == OTHER
    assert secret.asked == [
        ("secret", "arn:doow", False, False),
        ("secret", "arn:doow", True, False),
    ]


def test_a_key_that_was_not_rotated(keep: Callable[..., tuple[Secret, Credentials]]) -> None:
    """The same key again is no other key."""
    _, credentials = keep(KEY, KEY)
    credentials.current()
    assert credentials.replace(KEY) is False


def test_a_secret_without_a_key(keep: Callable[..., tuple[Secret, Credentials]]) -> None:
    """The message names the variable, and nothing of what the secret holds."""
    _, credentials = keep('{"password": "hunter2"}')
    with pytest.raises(DoowError) as caught:
        credentials.current()
    assert (str(caught.value), caught.value.kind) == (
        f"{VARIABLE} points to a secret that holds no SDK key (dk_ and 64 hex digits)",
        "AUTH_FAILURE",
    )


def test_a_place_that_cannot_be_read() -> None:
    """The platform's own words are passed on, on one line; a failure is shared for a while."""
    secret, clock = Secret(PermissionError("not\nallowed"), KEY), Clock()
    credentials = Credentials(None, (VARIABLE, "arn:doow"), secret, clock)
    for _ in range(3):
        with pytest.raises(DoowError) as caught:
            credentials.current()
        assert (str(caught.value), caught.value.kind) == (
            f"{WHERE} (PermissionError: not allowed)",
            "AUTH_FAILURE",
        )
    assert secret.asked == [CACHED]
    clock.now += RETRY_S
    assert credentials.current() == KEY
    assert secret.asked == [CACHED, CACHED]


def test_a_place_that_is_silent_costs_its_first_seconds_only() -> None:
    """Every later attempt fails at once, names variable and service, and starts no other thread."""
    secret, clock, transport = SilentSecret(), Clock(), MemoryTransport()
    credentials = Credentials(None, (VARIABLE, "arn:doow"), secret, clock)
    with pytest.raises(DoowError):
        credentials.current(0.01)
    clock.now += 20.0
    sender = Sender(lambda: transport, credentials)
    for result in (sender.prepare(), sender.send(batch())):
        assert isinstance(result, Failed)
        assert (result.reason, result.message, result.hold_s, result.is_ambiguous) == (
            "AUTH_FAILURE",
            SILENT,
            0.0,
            False,
        )
    assert (secret.asked, transport.batches) == (1, [])
    secret.is_released.set()
    credentials._fetched.wait(60.0, 60.0)
    assert (sender.prepare(), credentials.current()) == (None, KEY)


def test_after_a_failure_a_probe_waits_no_longer_than_its_flush(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first fetch may take a while; the next ones go on without anybody who waits."""
    waits: list[float] = []
    clock = Clock()
    secret = Secret(PermissionError("no"), PermissionError("no"))
    credentials = Credentials(None, (VARIABLE, "arn:doow"), secret, clock)
    wait = credentials._fetched.wait

    def noted(missing_s: float, old_s: float) -> None:
        waits.append(missing_s)
        wait(20.0, 20.0)

    monkeypatch.setattr("doow_serverless._delivery.credentials.WAIT_S", 1.5)
    monkeypatch.setattr("doow_serverless._delivery.credentials.AGAIN_WAIT_S", 0.2)
    monkeypatch.setattr(credentials._fetched, "wait", noted)
    for _ in range(2):
        with pytest.raises(DoowError):
            credentials.current()
        clock.now += RETRY_S
    assert (waits, secret.asked) == ([1.5, 0.2], [CACHED, CACHED])


def test_all_threads_share_one_fetch() -> None:
    """However many need the key at once."""
    secret, found = SilentSecret(), []
    credentials = Credentials(None, (VARIABLE, "arn:doow"), secret)
    threads = [
        threading.Thread(target=lambda: found.append(credentials.current())) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    secret.is_released.set()
    for thread in threads:
        thread.join()
    assert (found, secret.asked) == ([KEY] * 8, 1)


def test_after_a_restore_a_failure_is_forgotten(
    keep: Callable[..., tuple[Secret, Credentials]],
) -> None:
    """A snapshot may be months old: the next call fetches at once."""
    secret, credentials = keep(PermissionError("no"), KEY)
    with pytest.raises(DoowError):
        credentials.current()
    credentials.expire()
    assert credentials.current() == KEY
    credentials.expire()
    assert (credentials.current(), secret.asked) == (KEY, [CACHED, CACHED])


def test_a_thread_may_ask_before_the_modules_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """That failure is not shared any more once they are imported."""
    secret = SilentSecret()
    secret.is_released.set()
    monkeypatch.setattr("doow_serverless._secrets.import_module", lambda _: Platform(secret))
    credentials = Credentials(None, (VARIABLE, "arn:doow"), clock=Clock())
    with pytest.raises(DoowError, match="the modules that fetch it are not imported yet"):
        credentials.current()
    credentials.load()
    assert credentials.current() == KEY


def test_a_child_fetches_although_a_thread_of_its_parent_did() -> None:
    """A fork leaves that thread behind; a key that was fetched stays."""
    has_begun, is_over = threading.Event(), threading.Event()

    def fetch(*_: object) -> str:
        if not has_begun.is_set():
            has_begun.set()
            assert is_over.wait(20)
            return OTHER
        return KEY

    credentials = Credentials(None, (VARIABLE, "arn:doow"), fetch, Clock())
    with pytest.raises(DoowError):
        credentials.current(0.0)
    assert has_begun.wait(20)
    credentials.reset_after_fork()
    assert credentials.current() == KEY
    credentials.reset_after_fork()
    assert credentials.current() == KEY
    is_over.set()


def test_a_restored_engine_forgets_a_failure() -> None:
    """Its first flush fetches the key, and delivers."""
    clock, secret = Clock(), Secret(PermissionError("no"), KEY)
    config = Config(environ={VARIABLE: "arn:doow"}, license_id="lic_1", warm_up=False)
    engine = _engine.Engine(config, MemoryTransport(), clock)
    kept = engine._credentials.kept
    assert kept is not None
    kept._fetch = secret
    with pytest.raises(DoowError):
        engine._credentials.current()
    engine.after_restore()
    engine.outside.record("tokens")
    outcome = engine.flush(engine.unattended, 20.0)
    assert (outcome.accepted, secret.asked) == (1, [CACHED, CACHED])


def test_the_init_phase_is_held_once_whatever_the_number_of_trackers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A place that is silent costs it `INIT_WAIT_S`, and the next tracker nothing."""
    secret = SilentSecret()
    monkeypatch.setattr("doow_serverless._secrets.import_module", lambda _: Platform(secret))
    monkeypatch.setattr("doow_serverless._process.init_phase.is_on", lambda: True)
    monkeypatch.setattr(_engine, "INIT_WAIT_S", 0.2)
    config = Config(environ={VARIABLE: "arn:doow"}, license_id="lic_1")
    _engine.Engine(config, MemoryTransport(), Clock())
    used_up = _engine._waited_s
    monkeypatch.setattr(_engine, "INIT_WAIT_S", used_up)
    waits: list[float] = []
    monkeypatch.setattr(threading.Thread, "join", lambda _, limit_s: waits.append(limit_s))
    _engine.Engine(config, MemoryTransport(), Clock())
    monkeypatch.undo()
    secret.is_released.set()
    assert (used_up >= 0.2, waits) == (True, [0.0])


class Platform:
    """Stands for the module that fetches."""

    def __init__(self, secret: SilentSecret) -> None:
        self.load_fetch = lambda: secret


# ── a key that the server refuses ───────────────────────────────────────────────────────────────


def test_refusals_share_one_fetch() -> None:
    """Requests that are refused at the same time find the same key; a later one fetches again."""
    secret, clock = Secret(KEY, KEY, OTHER), Clock()
    credentials = Credentials(None, (VARIABLE, "arn:doow"), secret, clock)
    credentials.current()
    assert [credentials.replace(KEY) for _ in range(4)] == [False] * 4
    assert secret.asked == [CACHED, ANEW]
    clock.now += REFRESH_S
    assert (credentials.replace(KEY), credentials.current()) == (True, OTHER)
    assert secret.asked == [CACHED, ANEW, ANEW]


def test_a_refused_key_whose_place_cannot_be_read() -> None:
    """The message has both reasons; the key stays, and the next failure is shared, too."""
    secret = Secret(KEY, TimeoutError("no route"))
    credentials = Credentials(None, (VARIABLE, "arn:doow"), secret, Clock())
    sender = Sender(lambda: MemoryTransport(lambda _: 401), credentials)
    for _ in range(2):
        result = sender.send(batch())
        assert isinstance(result, Failed)
        assert (result.reason, result.message, result.hold_s) == (
            "AUTH_FAILURE",
            f"Doow refused the API key, and {WHERE} (TimeoutError: no route)",
            0.0,
        )
    assert (credentials.current(), secret.asked) == (KEY, [CACHED, ANEW])


def test_a_refused_key_whose_place_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refresh goes on without anybody who waits, and is not begun twice."""
    secret = SilentSecret()
    credentials = Credentials(None, (VARIABLE, "arn:doow"), secret, Clock())
    secret.is_released.set()
    credentials.current()
    secret.is_released.clear()
    monkeypatch.setattr("doow_serverless._delivery.credentials.REFRESH_WAIT_S", 0.01)
    for _ in range(2):
        with pytest.raises(DoowError) as caught:
            credentials.replace(KEY)
        assert str(caught.value) == f"Doow refused the API key, and {SILENT}"
    secret.is_released.set()
    credentials._fetched.wait(20.0, 20.0)
    assert (credentials.replace(KEY), secret.asked) == (False, 2)


def test_an_updated_secret_is_found_soon() -> None:
    """A fetched key that was refused is tried again after 30 s at most, then half as often."""
    clock = Clock()
    secret = Secret(*[KEY] * 9)
    credentials = Credentials(None, (VARIABLE, "arn:doow"), secret, clock, lambda: 1.0)
    sender = Sender(lambda: MemoryTransport(lambda _: 401), credentials)
    holds = []
    for _ in range(8):
        result = sender.send(batch())
        assert isinstance(result, Failed)
        holds.append(result.hold_s)
        clock.now += result.hold_s or 0.0
    assert holds == [30.0, 30.0, 60.0, 120.0, 240.0, 480.0, 900.0, 900.0]
    assert secret.asked == [CACHED, *[ANEW] * 8]


def test_a_fleet_does_not_try_again_at_once() -> None:
    """The time is shorter by up to a half, at random."""
    least = Credentials(None, (VARIABLE, "arn:doow"), None, Clock(), lambda: 0.0)
    assert least.refused_hold_s() == FIRST_REFUSED_HOLD_S / 2


def test_a_given_key_that_is_refused() -> None:
    """There is no other to be found, so it is tried again seldom, should it be restored."""
    result = Sender(lambda: MemoryTransport(lambda _: 401), Credentials(KEY)).send(batch())
    assert isinstance(result, Failed)
    assert result.hold_s == KEY_REFUSED_HOLD_S


def test_another_refusal_begins_anew() -> None:
    """Once another key was found, or long after the last refusal."""
    clock = Clock()
    secret = Secret(KEY, KEY, OTHER, OTHER, OTHER)
    credentials = Credentials(None, (VARIABLE, "arn:doow"), secret, clock, lambda: 1.0)
    answers = MemoryTransport([401, 401, 202, 401, 401])
    sender = Sender(lambda: answers, credentials)
    holds = []
    for pause_s in (300.0, 300.0, 2_000.0, 0.0):
        result = sender.send(batch())
        holds.append(result.hold_s if isinstance(result, (Failed, Settled)) else None)
        clock.now += pause_s
    assert holds == [30.0, 0.0, 30.0, 30.0]


def test_the_key_is_not_shown(keep: Callable[..., tuple[Secret, Credentials]]) -> None:
    """The repr tells whether there is a key, and where from."""
    _, credentials = keep(KEY)
    before = repr(credentials)
    credentials.current()
    assert (before, repr(credentials), repr(Credentials(KEY))) == (
        f"Credentials(None, ('{VARIABLE}', 'arn:doow'))",
        f"Credentials(dk_…, ('{VARIABLE}', 'arn:doow'))",
        "Credentials(dk_…, None)",
    )
