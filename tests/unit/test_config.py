"""Arguments and variables: which wins, what is refused, what is ignored, and what never shows."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest

from doow_serverless import Tracker, configure
from doow_serverless._config import Config
from doow_serverless._values import seconds
from doow_serverless.errors import ConfigurationError
from tests.network import KEY

OTHER = "dk_" + "b2" * 32
ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:doow"


def config(*args: Any, env: dict[str, str] | None = None, **options: Any) -> Config:
    return Config(*args, **{"environ": env or {}, **options})


def env(**variables: str) -> dict[str, str]:
    return {f"DOOW_TRACK_{name}": value for name, value in variables.items()}


def test_the_defaults() -> None:
    """Without a word the protocol's own values count."""
    plain = config(KEY)
    seen = {name: value for name, value in vars(plain).items() if not name.startswith("_")}
    expected: dict[str, Any] = {
        "endpoint": "https://api.doow.co",
        "license_id": None,
        "attribution": {},
        "budget_s": 2.0,
        "reserve_s": 0.25,
        "timeout_s": 10.0,
        "enabled": True,
        "strict": False,
        "debug": False,
        "warm_up": True,
        "flush_at": 500,
        "max_queue_size": 10_000,
        "max_queue_bytes": 16 * 1024 * 1024,
        "max_backlog_bytes": 16 * 1024 * 1024,
        "max_payload_bytes": 460_800,
        "compress": True,
        "on_error": None,
        "on_flush": None,
        "ca_bundle": None,
        "api_key": KEY,
        "key_place": None,
        "problems": [],
        "removed": [],
    }
    assert {name: seen[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("variable", "value", "options", "attribute", "expected"),
    [
        ("ENDPOINT", "https://eu.doow.co/", {"endpoint": "https://us.doow.co"}, "endpoint",
         "https://eu.doow.co"),
        ("LICENSE_ID", "lic_env", {"license_id": "lic_code"}, "license_id", "lic_env"),
        ("ATTRIBUTION", '{"team": "env", "n": 1}', {"attribution": {"team": "code", "app": "x"}},
         "attribution", {"team": "env", "n": 1, "app": "x"}),
        ("BUDGET", "500", {"budget": 1.0}, "budget_s", 0.5),
        ("BUDGET", "0", {"budget": 1.0}, "budget_s", 0.0),
        ("BUDGET", "1.5e3", {"budget": 1.0}, "budget_s", 1.5),
        ("DISABLED", "TRUE", {"enabled": True}, "enabled", False),
        ("DISABLED", "yes", {}, "enabled", False),
        ("DISABLED", "1", {}, "enabled", False),
        ("DISABLED", "On", {}, "enabled", False),
        ("DISABLED", "false", {}, "enabled", True),
        ("DISABLED", "0", {"enabled": False}, "enabled", False),
        ("STRICT", "true", {"strict": False}, "strict", True),
        ("STRICT", "false", {"strict": True}, "strict", False),
        ("DEBUG", "off", {"debug": True}, "debug", False),
        ("FLUSH_AT", "20", {"flush_at": 100}, "flush_at", 20),
        ("FLUSH_AT", "5000", {}, "flush_at", 500),
        ("FLUSH_AT", "  7 ", {}, "flush_at", 7),
        ("LICENSE_ID", " ", {"license_id": "lic_code"}, "license_id", "lic_code"),
    ],
)  # fmt: skip
def test_the_environment_wins(
    variable: str, value: str, options: dict[str, Any], attribute: str, expected: Any
) -> None:
    """A variable that can be understood beats the argument; an empty one is none."""
    made = config(KEY, env=env(**{variable: value}), **options)
    assert (getattr(made, attribute), made.problems) == (expected, [])


@pytest.mark.parametrize(
    ("given", "argument", "expected"),
    [
        ({}, KEY, KEY),
        ({"API_KEY": OTHER}, KEY, OTHER),
        ({"API_KEY": f" {OTHER}\n"}, None, OTHER),
        ({"API_KEY": "nonsense"}, KEY, KEY),
        ({"API_KEY": OTHER, "API_KEY_SECRET_ARN": ARN}, None, OTHER),
        ({}, f"{KEY}\n", KEY),
    ],
)
def test_the_key(given: dict[str, str], argument: str | None, expected: str) -> None:
    """The variable wins if it holds a key, and what surrounds a key is trimmed."""
    assert config(argument, env=env(**given)).api_key == expected


@pytest.mark.parametrize(
    ("platform", "limit"), [({}, 4_094), ({"VERCEL": "1"}, 3_800), ({"VERCEL": ""}, 4_094)]
)
def test_delivery_by_log(platform: dict[str, str], limit: int) -> None:
    """Nothing is in its way, and a packed batch is no larger than a line of the platform's log."""
    made = Config(environ={**platform, "DOOW_TRACK_DELIVERY": "log", "DOOW_TRACK_ENDPOINT": "no"})
    assert (made.obstacle, made.can_send, made.needs_network) == (None, True, False)
    assert made.record_limit == limit
    assert made.max_packed_bytes is not None
    assert limit - 562 < made.max_packed_bytes * 4 / 3 <= limit - 560
    assert made.max_payload_bytes == 20 * 1024
    direct = Config(KEY, environ=platform, delivery="direct")
    assert (direct.max_packed_bytes, direct.max_payload_bytes) == (None, 450 * 1024)


@pytest.mark.parametrize("variable", ["API_KEY_SECRET_ARN", "API_KEY_SSM_PARAMETER"])
def test_a_place_for_the_key(variable: str) -> None:
    """A place that the environment names is preferred to an argument, and asked later."""
    made = config(KEY, env=env(**{variable: "/doow/key"}))
    assert (made.api_key, made.key_place) == (None, (f"DOOW_TRACK_{variable}", "/doow/key"))


TEXT = "must be a non-empty string of at most 256 characters, not"
URL = "endpoint must be an https URL such as https://api.doow.co, or http to 127.0.0.1 or localhost"
MALFORMED = "is no SDK key (dk_ and 64 hex digits), and is never sent: copy it anew from Doow"
NO_KEY = (
    "there is no API key, so usage events are kept and not sent: set "
    "DOOW_TRACK_API_KEY to an SDK key (Doow: Settings, API Keys, SDK Keys)"
)


@pytest.mark.parametrize(
    ("given", "argument", "problems"),
    [
        ({}, None, [NO_KEY]),
        ({}, "", [NO_KEY]),
        ({}, "sk_123", [f"the argument api_key {MALFORMED}"]),
        ({}, 5, [f"the argument api_key {MALFORMED}"]),
        ({}, KEY + "0", [f"the argument api_key {MALFORMED}"]),
        ({"API_KEY": "sk_123"}, None, [f"DOOW_TRACK_API_KEY {MALFORMED}"]),
        ({"API_KEY": KEY[:-1]}, OTHER, [f"DOOW_TRACK_API_KEY {MALFORMED}"]),
        ({"DISABLED": "true"}, None, []),
        ({"DELIVERY": "log"}, None, []),
    ],
)
def test_no_usable_key(given: dict[str, str], argument: Any, problems: list[str]) -> None:
    """A wrong key never raises; the problem names where it stands, and not what it is."""
    made = config(argument, env=env(**given))
    assert [text for _, text in made.problems] == problems
    assert made.has_key == (argument == OTHER)


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("BUDGET", "soon", "must be milliseconds from 0 up, such as 500, not 'soon'"),
        ("BUDGET", "-1", "must be milliseconds from 0 up, such as 500, not '-1'"),
        ("BUDGET", "inf", "must be milliseconds from 0 up, such as 500, not 'inf'"),
        ("BUDGET", "nan", "must be milliseconds from 0 up, such as 500, not 'nan'"),
        ("BUDGET", "1e999", "must be milliseconds from 0 up, such as 500, not '1e999'"),
        ("BUDGET", "9" * 5_000, f"must be milliseconds from 0 up, such as 500, not '{'9' * 59}…"),
        ("DISABLED", "maybe", "must be true or false, not 'maybe'"),
        ("DEBUG", "2", "must be true or false, not '2'"),
        ("STRICT", "ja", "must be true or false, not 'ja'"),
        ("FLUSH_AT", "many", "must be a whole number from 1 up, not 'many'"),
        ("FLUSH_AT", "0", "must be a whole number from 1 up, not '0'"),
        ("FLUSH_AT", "1.5", "must be a whole number from 1 up, not '1.5'"),
        ("FLUSH_AT", "9" * 5_000, f"must be a whole number from 1 up, not '{'9' * 59}…"),
        ("ATTRIBUTION", "team=ai", 'must be a JSON object, such as {"team": "ai"}'),
        ("ATTRIBUTION", "[1]", 'must be a JSON object, such as {"team": "ai"}'),
        ("ATTRIBUTION", '{"team": []}',
         ": attribution['team'] must be a string, number or bool, not []"),
        ("LICENSE_ID", "l" * 300, f"{TEXT} '{'l' * 59}…"),
        ("LICENSE_ID", KEY, "looks like a credential, and was not recorded"),
    ],
)  # fmt: skip
def test_a_malformed_variable_is_ignored(variable: str, value: str, problem: str) -> None:
    """It is reported once, by name, and never takes the function down."""
    made = config(KEY, env=env(**{variable: value}))
    name = f"DOOW_TRACK_{variable}"
    between = "" if problem.startswith(":") else " "
    assert made.problems == [(name, f"{name}{between}{problem}; the variable is ignored")]
    plain = config(KEY)
    assert (made.budget_s, made.enabled, made.flush_at, made.attribution, made.license_id) == (
        plain.budget_s,
        plain.enabled,
        plain.flush_at,
        plain.attribution,
        plain.license_id,
    )


SECONDS = "must be a number of seconds from 0 up, such as 0.5, not"
COUNT = "must be a whole number from 1 up, not"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": -1}, f"budget {SECONDS} -1"),
        ({"budget": True}, f"budget {SECONDS} True"),
        ({"budget": math.nan}, f"budget {SECONDS} nan"),
        ({"budget": math.inf}, f"budget {SECONDS} inf"),
        ({"budget": 10**400}, f"budget {SECONDS} 1{'0' * 59}…"),
        ({"budget": "2"}, f"budget {SECONDS} '2'"),
        ({"budget": None}, f"budget {SECONDS} None"),
        ({"reserve": -0.1}, f"reserve {SECONDS} -0.1"),
        ({"timeout": "x"}, f"timeout {SECONDS} 'x'"),
        ({"timeout": 0}, "timeout must be greater than 0 seconds"),
        ({"enabled": 1}, "enabled must be True or False, not 1"),
        ({"strict": "yes"}, "strict must be True or False, not 'yes'"),
        ({"debug": None}, "debug must be True or False, not None"),
        ({"disable_compression": 0}, "disable_compression must be True or False, not 0"),
        (
            {"warm_up": "later"},
            "warm_up must be True, False or 'connect', not 'later'",
        ),
        ({"flush_at": 0}, f"flush_at {COUNT} 0"),
        ({"flush_at": True}, f"flush_at {COUNT} True"),
        ({"flush_at": 1.0}, f"flush_at {COUNT} 1.0"),
        ({"max_queue_size": -5}, f"max_queue_size {COUNT} -5"),
        ({"max_backlog_bytes": None}, f"max_backlog_bytes {COUNT} None"),
        ({"max_payload_bytes": 100}, "max_payload_bytes must be 4096 to 460800, not 100"),
        ({"max_payload_bytes": 10**6}, "max_payload_bytes must be 4096 to 460800, not 1000000"),
        ({"on_error": "print"}, "on_error must be a function of one argument, not 'print'"),
        ({"on_flush": 5}, "on_flush must be a function of one argument, not 5"),
        ({"license_id": ""},
         "license_id must be a non-empty string of at most 256 characters, not ''"),
        ({"license_id": KEY}, "license_id looks like a credential, and was not recorded"),
        ({"attribution": "x"},
         "attribution must be a mapping such as {'team': 'search'}, not 'x'"),
        ({"endpoint": "http://api.doow.co"},
         f"{URL}, not 'http://api.doow.co': the API key must not be read along"),
        ({"endpoint": "http://10.0.0.1"},
         f"{URL}, not 'http://10.0.0.1': the API key must not be read along"),
        ({"endpoint": "http://localhost.evil.co"},
         f"{URL}, not 'http://localhost.evil.co': the API key must not be read along"),
        ({"endpoint": "ftp://localhost"},
         f"{URL}, not 'ftp://localhost': the API key must not be read along"),
        ({"endpoint": "https://user:secret@api.doow.co"},
         f"{URL}, without user name, query and fragment"),
        ({"endpoint": "http://localhost@evil.co"}, f"{URL}, without user name, query and fragment"),
        ({"endpoint": "https://api.doow.co?a=b"}, f"{URL}, without user name, query and fragment"),
        ({"endpoint": "https://api.doow.co?"}, f"{URL}, without user name, query and fragment"),
        ({"endpoint": "https://api.doow.co/#x"}, f"{URL}, without user name, query and fragment"),
        ({"endpoint": "https://"}, f"{URL}, without user name, query and fragment"),
        ({"endpoint": "api.doow.co"}, f"{URL}, without user name, query and fragment"),
        ({"endpoint": "https://api.doow.co:99999"}, f"{URL}, not 'https://api.doow.co:99999'"),
        ({"endpoint": "https://u:secret@a:99999"}, f"{URL}, without user name, query and fragment"),
        ({"endpoint": "https://[::1"}, f"{URL}, not 'https://[::1'"),
        ({"endpoint": 5}, f"{URL}, not 5"),
        ({"endpoint": ""}, f"{URL}, without user name, query and fragment"),
    ],
)  # fmt: skip
def test_a_wrong_argument(options: dict[str, Any], message: str) -> None:
    """The error names the argument, its value, and what to pass instead."""
    with pytest.raises(ConfigurationError) as caught:
        config(KEY, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("endpoint", "kept"),
    [
        ("http://127.0.0.1:8787", "http://127.0.0.1:8787"),
        ("http://127.8.9.1/", "http://127.8.9.1"),
        ("http://[::1]:8787/base/", "http://[::1]:8787/base"),
        ("http://LOCALHOST:1", "http://LOCALHOST:1"),
        (" https://eu.doow.co/v1/ ", "https://eu.doow.co/v1"),
        ("HTTPS://api.doow.co", "HTTPS://api.doow.co"),
    ],
)
def test_an_endpoint(endpoint: str, kept: str) -> None:
    """Https anywhere, http to this machine alone."""
    assert config(KEY, endpoint=endpoint).endpoint == kept


def test_certificates_come_from_the_usual_variables() -> None:
    """Requests' own variables count, in its order."""
    names = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"]
    whole = {name: f"/{name}" for name in names}
    found = []
    for name in names:
        found.append(config(KEY, environ=dict(whole)).ca_bundle)
        del whole[name]
    assert found == [f"/{name}" for name in names]


def test_credentials_in_attribution_are_named_and_removed() -> None:
    """Neither code nor environment can make a credential an attribute of every event."""
    made = config(KEY, env=env(ATTRIBUTION=f'{{"a": "{KEY}"}}'), attribution={"b": OTHER, "c": 1})
    assert (made.attribution, made.removed) == ({"c": 1}, ["attribution.b", "attribution.a"])


def test_an_unknown_option_is_named() -> None:
    """A misspelt option is told by its name."""
    with pytest.raises(ConfigurationError) as caught:
        configure(KEY, endpont="https://api.doow.co", environ={})  # type: ignore[call-arg]
    assert str(caught.value) == "configure() has no option 'endpont': did you mean 'endpoint'?"


def test_problems_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """Each is one line of warning when the tracker is made, and none later."""
    variables = env(API_KEY="wrong", BUDGET="soon")
    with caplog.at_level(logging.WARNING, "doow_serverless"):
        tracker = Tracker(environ=variables, warm_up=False, license_id="lic_1")
        tracker.track("tokens")
    budget = "DOOW_TRACK_BUDGET must be milliseconds from 0 up, such as 500, not 'soon'"
    # Threads of trackers of other tests may speak meanwhile.
    assert [message for message in caplog.messages if "DOOW_TRACK" in message] == [
        f"{budget}; the variable is ignored",
        f"DOOW_TRACK_API_KEY {MALFORMED}",
    ]


def test_a_disabled_tracker_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    """What is off complains of nothing."""
    Tracker(environ=env(API_KEY="wrong", DISABLED="true"))
    assert not [message for message in caplog.messages if "DOOW_TRACK" in message]


@pytest.mark.parametrize("given", [KEY, f"{KEY}x", f"x{KEY}"])
def test_the_key_shows_nowhere(given: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in a repr nor in a log line, well-formed or not, wherever it comes from."""
    with caplog.at_level(logging.DEBUG):
        for tracker in (
            Tracker(given, environ={}, warm_up=False, license_id="lic_1", debug=True),
            Tracker(environ=env(API_KEY=given), warm_up=False),
        ):
            shown = [
                repr(tracker),
                repr(tracker.engine.config),
                repr(tracker.engine),
                repr(tracker.engine._credentials),
            ]
            assert not [text for text in shown if KEY[3:] in text]
    assert KEY[3:] not in caplog.text
    assert repr(tracker) == "Tracker(endpoint='https://api.doow.co', license_id=None, enabled=True)"


@pytest.mark.parametrize(("value", "expected"), [(0, 0.0), (1, 1.0), (0.25, 0.25), (1e300, 1e300)])
def test_seconds(value: float, expected: float) -> None:
    """Any finite number from zero up will do."""
    assert seconds("budget", value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(True, True), (False, False), ("connect", "connect"), ("import", True)],
)
def test_warm_up(value: Any, expected: Any) -> None:
    """The imports are made at once, wherever the process runs, whichever way that is asked for."""
    assert config(KEY, warm_up=value).warm_up == expected
    assert config(KEY, environ={"DOOW_TRACK_WARM_UP": str(value).lower()}).warm_up == expected
