"""The log key: at hand or fetched, replaced by another in time, and shown to nobody."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from doow_serverless._config import Config, checked_config
from doow_serverless._frames.keys import READER_RETRY_S, READER_WAIT_S, LogKey
from doow_serverless._process.fetching import DOUBT_S, FRESH_S, RETRY_S
from doow_serverless.errors import ConfigurationError, DoowError
from tests.clock import Clock

ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:log-key"
VARIABLE = "DOOW_TRACK_LOG_KEY_SECRET_ARN"
WHERE = f"the log key could not be read from Secrets Manager, where {VARIABLE} points"
REMEDY = (
    "see that the secret is there and that this identity may read it, or remove the variable to "
    "accept unsigned lines"
)
MISSING_S = 20.0
FORBIDDEN = PermissionError("no")
EMPTY = "must be a text that is not empty, such as 32 random bytes in hex digits"
UNRESOLVED = "is a reference to a secret that the platform has not resolved"


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


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine may take long to start a thread."""
    for name in ("MISSING_WAIT_S", "AGAIN_WAIT_S", "OLD_WAIT_S"):
        monkeypatch.setattr(f"doow_serverless._frames.keys.{name}", MISSING_S)


def kept(secret: Secret, previous: str | None = None, clock: Clock | None = None) -> LogKey:
    return LogKey(None, (VARIABLE, ARN), previous, secret, clock or Clock())


# ── where it comes from ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("environ", "option", "expected"),
    [
        ({}, None, []),
        ({}, "from code", [b"from code"]),
        ({"": "from a variable"}, "from code", [b"from a variable"]),
        ({"": ""}, None, []),
        ({"": ""}, "from code", [b"from code"]),
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


def refreshed(key: LogKey) -> bytes | None:
    """The key after a fetch aside, if one is due."""
    key.fetch_aside()
    key._current.wait(20.0, 20.0)
    return key.signing_key()


def test_a_writer_gets_none_until_it_is_fetched() -> None:
    """Asking never fetches; preparing does, once."""
    secret = Secret(" key \n")
    key = kept(secret)
    before = key.signing_key(), key.is_missing, list(secret.asked)
    key.prepare()
    key.prepare()
    assert (before, key.signing_key(), key.is_missing) == ((None, True, []), b"key", False)
    assert secret.asked == ["cached"]


def test_after_a_failure_a_probe_waits_no_longer_than_its_flush(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first fetch may take a while; the next ones go on without anybody who waits."""
    waits: list[float] = []
    secret, clock = Secret(FORBIDDEN), Clock()
    key = kept(secret, clock=clock)
    wait = key._current.wait

    def noted(missing_s: float, old_s: float) -> None:
        waits.append(missing_s)
        wait(MISSING_S, old_s)

    monkeypatch.setattr("doow_serverless._frames.keys.AGAIN_WAIT_S", 0.2)
    monkeypatch.setattr(key._current, "wait", noted)
    for _ in range(2):
        with pytest.raises(DoowError):
            key.prepare()
        clock.now += RETRY_S
    assert (waits, secret.asked) == ([MISSING_S, 0.2], ["cached", "cached"])


def test_nothing_is_fetched_where_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is given, or none at all, asks no other thread."""
    asked: list[object] = []
    monkeypatch.setattr("doow_serverless._process.fetching.FetchedKeys.ask", asked.append)
    for key in (LogKey(), LogKey("given")):
        key.load()
        key.prepare()
        key.fetch_aside()
    assert asked == []


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (PermissionError("not\nallowed"), f"{WHERE} (PermissionError: not allowed)"),
        (" \n", f"the secret to which {VARIABLE} points {EMPTY}"),
        ("{{resolve:secretsmanager:arn}}", f"the secret to which {VARIABLE} points {UNRESOLVED}"),
        (None, f"{WHERE} (there is no such version)"),
    ],
)
def test_a_secret_that_is_no_key(found: Any, message: str) -> None:
    """The error says where; whoever comes within half a minute gets the same, unasked."""
    secret = Secret(found)
    key = kept(secret)
    said = []
    for _ in range(3):
        with pytest.raises(DoowError) as caught:
            key.prepare()
        said.append(str(caught.value))
    assert (said, key.trouble, secret.asked) == ([message] * 3, message, ["cached"])
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
        seen.append((refreshed(key), len(secret.asked)))
    assert seen == [(b"one", 1), (b"one", 1), (b"one", 2), (b"one", 2), (b"two", 3), (b"two", 3)]
    assert secret.asked == ["cached", "anew", "anew"]


def test_an_old_key_does_not_sign_before_it_is_fetched_again() -> None:
    """Nor one from a snapshot: another may have replaced it, and then another that one."""
    is_waited_for = threading.Event()

    class Slow(Secret):
        """Takes so long that only who waits for it gets it."""

        def __call__(self, *arguments: Any) -> str | None:
            assert is_waited_for.wait(20)
            return super().__call__(*arguments)

    secret, clock = Slow("one"), Clock()
    key = kept(secret, clock=clock)
    wait = key._current.wait

    def waited(missing_s: float, old_s: float) -> None:
        is_waited_for.set()
        wait(missing_s, old_s)
        is_waited_for.clear()

    key._current.wait = waited  # type: ignore[method-assign]
    key.prepare()
    seen = []
    for name in ("two", "three"):
        secret.current = name
        if name == "two":
            key.expire()
        else:
            clock.now += FRESH_S
        key.prepare()
        seen.append(key.signing_key())
    assert seen == [b"two", b"three"]


def test_an_old_key_signs_if_it_cannot_be_fetched_again() -> None:
    """A reader accepts the key before the current one."""
    secret = Secret("one")
    key = kept(secret)
    key.prepare()
    key.expire()
    secret.current = FORBIDDEN
    key.prepare()
    assert key.signing_key() == b"one"


def test_loading_forgives_a_failure() -> None:
    """A thread may have asked before the modules were imported that fetch the key."""
    secret = Secret(FORBIDDEN)
    key = kept(secret)
    with pytest.raises(DoowError):
        key.prepare()
    secret.current = "key"
    key.load()
    key.prepare()
    assert key.signing_key() == b"key"


def test_a_child_keeps_the_key() -> None:
    """And asks nobody as long as it is fresh."""
    secret = Secret("key")
    key = kept(secret)
    key.prepare()
    key.reset_after_fork()
    assert (key.signing_key(), refreshed(key), secret.asked) == (b"key", b"key", ["cached"])


# ── readers ─────────────────────────────────────────────────────────────────────────────────────


def test_a_reader_accepts_the_version_before() -> None:
    """The current one first, then the secret's previous version, then the variable's key."""
    secret = Secret("new", "old")
    key = kept(secret, "oldest")
    assert key.verifying_keys() == key.verifying_keys() == [b"new", b"old", b"oldest"]
    assert (secret.asked, key.signing_key()) == (["anew", "previous"], b"new")


def test_a_version_before_that_is_no_key_is_left_out() -> None:
    """It may be the mistake that the current version corrects."""
    assert kept(Secret("new", " ")).verifying_keys() == [b"new"]


def test_a_reader_asks_again_after_a_rotation() -> None:
    """When it is told to: a frame is signed by a key that it does not know."""
    secret = Secret("one")
    key = kept(secret)
    before = key.verifying_keys()
    secret.current, secret.previous = "two", "one"
    assert (before, key.verifying_keys()) == ([b"one"], [b"one"])
    assert key.verifying_keys(anew=True) == key.verifying_keys() == [b"two", b"one"]


def test_a_reader_asks_again_after_an_hour() -> None:
    """What was AWSPREVIOUS then may be a leaked key."""
    secret, clock = Secret("two", "leaked"), Clock()
    key = kept(secret, clock=clock)
    before = key.verifying_keys()
    secret.current, secret.previous = "three", "two"
    clock.now += FRESH_S
    assert (before, key.verifying_keys()) == ([b"two", b"leaked"], [b"three", b"two"])


def test_forged_signatures_cause_one_fetch_a_minute() -> None:
    """The first of them counts, also just after the keys were read."""
    secret, clock = Secret("key"), Clock()
    key = kept(secret, clock=clock)
    key.verifying_keys()
    for _ in range(50):
        key.verifying_keys(anew=True)
    assert secret.asked == ["anew", "previous"] * 2
    clock.now += DOUBT_S
    key.verifying_keys(anew=True)
    assert secret.asked == ["anew", "previous"] * 3


def test_a_reader_goes_on_with_the_keys_that_it_has(caplog: pytest.LogCaptureFixture) -> None:
    """If they cannot be read again it says so once, and tries again in a minute."""
    secret, clock = Secret("key"), Clock()
    key = kept(secret, clock=clock)
    key.verifying_keys()
    secret.current = FORBIDDEN
    found = [key.verifying_keys(anew=True)]
    clock.now += READER_RETRY_S - 1
    found += [key.verifying_keys()]
    clock.now += 1
    found += [key.verifying_keys()]
    assert found == [[b"key"]] * 3
    assert secret.asked == ["anew", "previous", "anew", "anew"]
    assert caplog.messages == [
        f"{WHERE} (PermissionError: no): the keys that were read before stay in use"
    ]
    secret.current = "other"
    clock.now += READER_RETRY_S
    assert key.verifying_keys() == [b"other"]


def test_a_reader_with_keys_never_waits_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even after a fetch was lost: anyone can make it fetch them."""
    secret, clock = Secret("key"), Clock()
    key = kept(secret, clock=clock)
    limits: list[tuple[float, float]] = []
    wait = key._versions.wait

    def waited(missing_s: float, old_s: float) -> None:
        limits.append((missing_s, old_s))
        wait(missing_s, old_s)

    monkeypatch.setattr(key._versions, "wait", waited)
    key.verifying_keys()
    key.verifying_keys(anew=True)
    assert limits == [(READER_WAIT_S, MISSING_S), (MISSING_S, MISSING_S)]


@pytest.mark.parametrize(
    "versions", [(PermissionError("no"), None), ("key", PermissionError("no"))]
)
def test_a_reader_never_goes_on_without(versions: tuple[Any, Any]) -> None:
    """What cannot be read raises, each time, with the remedy, also for the version before."""
    secret = Secret(*versions)
    key = kept(secret)
    for _ in range(2):
        with pytest.raises(ConfigurationError) as caught:
            key.verifying_keys()
        assert str(caught.value) == f"{WHERE} (PermissionError: no): {REMEDY}"
    assert key.is_configured is True
    secret.current, secret.previous = "key", None
    assert key.verifying_keys() == [b"key"]


def test_a_reader_without_the_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Powertools is missing, it raises as well."""

    def fail(_: str) -> None:
        raise ImportError("No module named 'aws_lambda_powertools'")

    monkeypatch.setattr("doow_serverless._secrets.import_module", fail)
    with pytest.raises(ConfigurationError) as caught:
        LogKey(None, (VARIABLE, ARN)).verifying_keys()
    said = "ImportError: No module named 'aws_lambda_powertools'"
    assert str(caught.value) == f"{WHERE} ({said}): {REMEDY}"


# ── variables that are no key ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (" ", EMPTY),
        ("\t\n", EMPTY),
        ("\u00a0", EMPTY),
        (" {{resolve:secretsmanager:arn}}", UNRESOLVED),
        ("@Microsoft.KeyVault(SecretUri=https://vault/secrets/log)", UNRESOLVED),
    ],
)
@pytest.mark.parametrize("ending", ["", "_SECRET_ARN", "_SSM_PARAMETER", "_PREVIOUS"])
def test_a_variable_that_is_no_key(
    monkeypatch: pytest.MonkeyPatch, ending: str, text: str, why: str
) -> None:
    """A writer reports it and goes on; a reader would accept what anyone writes, and refuses."""
    variable = f"DOOW_TRACK_LOG_KEY{ending}"
    config = Config(environ={variable: text}, delivery="log")
    assert config.problems == [(variable, f"{variable} {why}; the variable is ignored")]
    assert (config.log_key, config.log_key_place, config.previous_log_key) == (None, None, None)
    monkeypatch.setenv(variable, text)
    with pytest.raises(ConfigurationError) as caught:
        checked_config(needs_key=False)
    assert str(caught.value) == f"{variable} {why}"
