"""The log key: at hand or fetched, replaced by another in time, and shown to nobody."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless._config import Config
from doow_serverless._frames.keys import FRESH_S, RETRY_S, LogKey
from doow_serverless.errors import ConfigurationError, DoowError

if TYPE_CHECKING:
    from collections.abc import Callable

ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:log-key"
VARIABLE = "DOOW_TRACK_LOG_KEY_SECRET_ARN"
WHERE = f"the log key could not be read from where {VARIABLE} points"
REMEDY = (
    "see that the secret is there and that this identity may read it, or remove the variable to "
    "accept unsigned lines"
)
FORBIDDEN = PermissionError("no")


class Secret:
    """A secret with versions; each of them may be an exception."""

    def __init__(self, current: Any, previous: Any = None) -> None:
        self.current = current
        self.previous = previous
        self.asked: list[str] = []

    def __call__(self, kind: str, place: str, anew: bool, is_previous: bool) -> str | None:
        assert (kind, place) == ("secret", ARN)
        self.asked.append("previous" if is_previous else "anew" if anew else "cached")
        found = self.previous if is_previous else self.current
        if isinstance(found, Exception):
            raise found
        return None if found is None else str(found)


class Clock:
    """Monotonic seconds, as the test says."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def kept(secret: Secret, previous: str | None = None, clock: Clock | None = None) -> LogKey:
    return LogKey(None, (VARIABLE, ARN), previous, secret, clock or Clock())


class Later:
    """Keeps jobs, for threads that never come."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], None]] = []

    def __call__(self, job: Callable[[], None]) -> bool:
        self.jobs.append(job)
        return True


def at_once(job: Callable[[], None]) -> bool:
    job()
    return True


# ── where it comes from ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("environ", "option", "expected"),
    [
        ({}, None, []),
        ({}, "from code", [b"from code"]),
        ({"": "from a variable"}, "from code", [b"from a variable"]),
        ({"": " \n"}, None, []),
        ({"": " in the middle \n"}, None, [b"in the middle"]),
        ({"": "ключ"}, None, ["ключ".encode()]),
        ({"": "\udcff"}, None, [b"\xff"]),
        ({"": "\ud800"}, None, [b"\xed\xa0\x80"]),
        ({"": "new", "_PREVIOUS": "old"}, None, [b"new", b"old"]),
        ({"": "same", "_PREVIOUS": "same"}, None, [b"same"]),
        ({"_PREVIOUS": "old"}, None, [b"old"]),
        ({"": "given", "_SECRET_ARN": ARN}, None, [b"given"]),
    ],
)
def test_what_is_given(environ: dict[str, str], option: str | None, expected: list[bytes]) -> None:
    """The variable wins over the option; any text but white space is a key, as UTF-8."""
    variables = {f"DOOW_TRACK_LOG_KEY{name}": value for name, value in environ.items()}
    config = Config(environ=variables, log_key=option, delivery="log")
    key = LogKey.of(config)
    assert config.problems == []
    assert key.verifying_keys() == expected
    assert (key.is_missing, key.is_configured) == (False, bool(expected))
    assert key.signing_key() == next((one for one in expected if one != b"old"), None)


@pytest.mark.parametrize("ending", ["_SECRET_ARN", "_SSM_PARAMETER"])
def test_a_place_wins_over_an_argument(ending: str) -> None:
    """As the API key's does; and it is asked later."""
    config = Config(environ={f"DOOW_TRACK_LOG_KEY{ending}": "/doow/log"}, log_key="other")
    assert (config.log_key, config.log_key_place) == (
        None,
        (f"DOOW_TRACK_LOG_KEY{ending}", "/doow/log"),
    )
    assert LogKey.of(config).is_missing is True


@pytest.mark.parametrize("wrong", ["", " \n", b"secret-text", 5, ["secret-text"], object()])
def test_a_wrong_argument_is_not_shown(wrong: Any) -> None:
    """The error names the argument and says what to pass."""
    with pytest.raises(ConfigurationError) as caught:
        Config(environ={}, log_key=wrong)
    assert str(caught.value) == (
        "log_key must be a text that is not empty, such as 32 random bytes in hex digits "
        "(what was passed is not shown)"
    )


def test_it_is_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    """Neither by a repr, nor by an error about something else."""
    environ = {"DOOW_TRACK_LOG_KEY": "hunter2", "DOOW_TRACK_LOG_KEY_PREVIOUS": "hunter2"}
    config = Config(environ=environ, log_key="hunter2")
    fetched = kept(Secret("hunter2", "hunter2"))
    fetched.verifying_keys()
    with pytest.raises(ConfigurationError) as caught:
        Config(environ={}, log_key="hunter2", log_keys="hunter2")  # type: ignore[call-arg]
    shown = [repr(config), repr(LogKey.of(config)), repr(fetched), str(caught.value), caplog.text]
    assert shown == [
        "Config(endpoint='https://api.doow.co', budget_s=2.0, enabled=True)",
        "LogKey(at hand, None)",
        f"LogKey(at hand, KeptText('{VARIABLE}', '{ARN}'))",
        "configure() has no option 'log_keys': did you mean 'log_key'?",
        "",
    ]


# ── writers ─────────────────────────────────────────────────────────────────────────────────────


def test_a_writer_gets_none_until_it_is_fetched() -> None:
    """Asking never fetches; fetching is done once."""
    secret = Secret(" key \n")
    key = kept(secret)
    before = key.signing_key(), key.is_missing, list(secret.asked)
    key.fetch()
    key.fetch()
    assert (before, key.signing_key(), key.is_missing) == ((None, True, []), b"key", False)
    assert secret.asked == ["cached"]


def test_nothing_is_fetched_where_nothing_is_kept() -> None:
    """A key that is given, or none at all, asks no other thread."""
    asked = Later()
    for key in (LogKey(), LogKey("given")):
        key.load()
        key.fetch()
        key.fetch_aside(asked)
    assert asked.jobs == []


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (PermissionError("not\nallowed"), f"{WHERE} (PermissionError: not allowed)"),
        (" \n", f"{VARIABLE} points to a secret that is empty"),
        (None, f"{WHERE} (there is no such version)"),
    ],
)
def test_a_secret_that_is_no_key(found: Any, message: str) -> None:
    """The error says where; whoever could not wait is told the same."""
    key = kept(Secret(found))
    with pytest.raises(DoowError) as caught:
        key.fetch()
    aside = kept(Secret(found))
    aside.fetch_aside(at_once)
    assert (str(caught.value), key.trouble, aside.trouble) == (message, message, message)
    assert (key.signing_key(), key.is_missing) == (None, True)


def test_it_is_fetched_aside_when_it_is_due() -> None:
    """Once an hour, past the cache; after a failure half a minute later, with the old one kept."""
    secret, clock = Secret("one"), Clock()
    key = kept(secret, clock=clock)
    seen = []
    for passes_s, current in (
        (0.0, "one"),
        (FRESH_S - 1, "two"),
        (1.0, PermissionError("down")),
        (RETRY_S - 1, "two"),
        (1.0, "two"),
        (FRESH_S - 1, "three"),
    ):
        clock.now += passes_s
        secret.current = current
        key.fetch_aside(at_once)
        seen.append((key.signing_key(), len(secret.asked)))
    assert seen == [(b"one", 1), (b"one", 1), (b"one", 2), (b"one", 2), (b"two", 3), (b"two", 3)]
    assert secret.asked == ["cached", "anew", "anew"]
    key.expire()
    key.fetch_aside(at_once)
    assert (key.signing_key(), key.trouble) == (b"three", "")


def test_one_thread_fetches_it() -> None:
    """Not each attempt's; and a frozen one is replaced after a while."""
    later = Later()
    secret, clock = Secret("key"), Clock()
    key = kept(secret, clock=clock)
    for _ in range(3):
        key.fetch_aside(later)
    clock.now += RETRY_S
    key.fetch_aside(later)
    assert (len(later.jobs), secret.asked) == (2, [])


def test_what_came_meanwhile_is_not_fetched_again() -> None:
    """The init phase and the first attempt may both ask for it."""
    later = Later()
    secret = Secret("key")
    key = kept(secret)
    key.fetch_aside(later)
    key.fetch()
    for job in later.jobs:
        job()
    assert (key.signing_key(), len(later.jobs), secret.asked) == (b"key", 1, ["cached"])


def test_a_child_fetches_although_a_thread_of_its_parent_did() -> None:
    """A fork leaves that thread behind, with its lock and its turn; a key that is there stays."""
    secret = Secret("key")
    key = kept(secret)
    key.fetch_aside(lambda _: True)
    assert key._lock.acquire(blocking=False)
    key.reset_after_fork()
    key.fetch_aside(at_once)
    key.reset_after_fork()
    assert (key.signing_key(), secret.asked) == (b"key", ["cached"])


# ── readers ─────────────────────────────────────────────────────────────────────────────────────


def test_a_reader_accepts_the_version_before() -> None:
    """The current one first, then the secret's previous version, then the variable's key."""
    secret = Secret("new", "old")
    key = kept(secret, "oldest")
    assert key.verifying_keys() == key.verifying_keys() == [b"new", b"old", b"oldest"]
    assert (secret.asked, key.signing_key()) == (["anew", "previous"], b"new")


def test_a_reader_asks_again_after_a_rotation() -> None:
    """When it is told to: a frame is signed by a key that it does not know."""
    secret = Secret("one")
    key = kept(secret)
    before = key.verifying_keys()
    secret.current, secret.previous = "two", "one"
    assert (before, key.verifying_keys()) == ([b"one"], [b"one"])
    assert key.verifying_keys(anew=True) == key.verifying_keys() == [b"two", b"one"]


@pytest.mark.parametrize(
    "versions", [(PermissionError("no"), None), ("key", PermissionError("no"))]
)
def test_a_reader_never_goes_on_without(versions: tuple[Any, Any]) -> None:
    """What cannot be read raises, each time, with the remedy, also for the version before."""
    key = kept(Secret(*versions))
    for _ in range(2):
        with pytest.raises(ConfigurationError) as caught:
            key.verifying_keys()
        assert str(caught.value) == f"{WHERE} (PermissionError: no): {REMEDY}"
    assert key.is_configured is True


def test_a_reader_without_the_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Powertools is missing, it raises as well."""

    def fail(_: str) -> None:
        raise ImportError("No module named 'aws_lambda_powertools'")

    monkeypatch.setattr("doow_serverless._secrets.import_module", fail)
    with pytest.raises(ConfigurationError) as caught:
        LogKey(None, (VARIABLE, ARN)).verifying_keys()
    said = "ImportError: No module named 'aws_lambda_powertools'"
    assert str(caught.value) == f"{WHERE} ({said}): {REMEDY}"


def test_many_threads_fetch_it_once() -> None:
    """The others wait for the first."""
    secret = Secret("key")
    key = kept(secret)
    threads = [threading.Thread(target=key.fetch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert secret.asked == ["cached"]
