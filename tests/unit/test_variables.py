"""Variables that cannot be used: each is contained by itself; a wrong endpoint sends nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from doow_serverless import Tracker
from doow_serverless._config import Config
from doow_serverless.errors import ConfigurationError, DoowError, ErrorKind
from doow_serverless.testing import MemoryTransport
from tests.network import KEY

ENDPOINT = "DOOW_TRACK_ENDPOINT"
KEPT = "; usage events are kept and not sent"
URL = "must be an https URL such as https://api.doow.co, or http to 127.0.0.1 or localhost"
WRONG_ENDPOINTS = {
    "http://ingest.test": f"{URL}, not 'http://ingest.test': the API key must not be read along",
    "htps://ingest.test": f"{URL}, not 'htps://ingest.test': the API key must not be read along",
    "ingest.test:8787": f"{URL}, without user name, query and fragment",
    '"http://127.0.0.1:8787"': f"{URL}, without user name, query and fragment",
    "https://ingest.test:87870": f"{URL}, not 'https://ingest.test:87870'",
    "https://in gest.test": f"{URL}, not 'https://in gest.test'",
    "https://ingest\udcff.test": f"{URL}, not 'https://ingest\\udcff.test'",
}

VARIABLES = {
    "API_KEY": "api_key",
    "ATTRIBUTION": "attribution",
    "BUDGET": "budget_s",
    "DEAD_LETTER": "dead_letter",
    "DEBUG": "debug",
    "DELIVERY": "delivery",
    "DISABLED": "enabled",
    "FLUSH_AT": "flush_at",
    "FLUSH_INTERVAL": "flush_interval_s",
    "FLUSH_MODE": "flush_mode",
    "LICENSE_ID": "license_id",
    "STRICT": "strict",
    "WARM_UP": "warm_up",
}
"""Each variable that is ignored where it is wrong, and what it would set."""

HOSTILE: dict[str, Any] = {
    "brackets": "[" * 100_000,
    "nested objects": '{"a":' * 100_000,
    "digits": "9" * 100_000,
    "a huge number": '{"a": ' + "9" * 5_000 + "}",
    "half of a surrogate pair": "\udcff",
    "the same in an object": '{"team": "\udcff"}',
    "no text": 5,
    "null": '"\0"',
}


def config(environ: dict[str, Any], **options: Any) -> Config:
    return Config(KEY, environ=environ, **options)


@pytest.mark.parametrize("given", WRONG_ENDPOINTS)
@pytest.mark.parametrize("options", [{}, {"endpoint": "https://eu.doow.co"}])
def test_a_wrong_endpoint_is_none(given: str, options: dict[str, Any]) -> None:
    """It falls back neither to production nor to the argument, and the problem names it."""
    made = config({ENDPOINT: given}, **options)
    assert made.endpoint is None
    assert made.problems == [(ENDPOINT, f"{ENDPOINT} {WRONG_ENDPOINTS[given]}{KEPT}")]


def test_an_argument_is_checked_also_where_the_variable_wins() -> None:
    """What is wrong in the code is told where it stands."""
    with pytest.raises(ConfigurationError, match="endpoint must be an https URL"):
        config({ENDPOINT: "https://eu.doow.co"}, endpoint="http://ingest.test")


@pytest.mark.parametrize("warm_up", [False, "connect"])
def test_a_wrong_endpoint_sends_nothing(
    warm_up: Any, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Events are kept, written down and told with the reason, as without a key."""
    errors: list[DoowError] = []
    transport = MemoryTransport()
    tracker = Tracker(
        KEY,
        transport=transport,
        license_id="lic_1",
        warm_up=warm_up,
        on_error=errors.append,
        environ={ENDPOINT: "http://ingest.test"},
    )
    tracker.track("tokens", event_id="evt_1")
    outcome = tracker.flush()
    letter = json.loads(capfd.readouterr().out)
    assert (outcome.accepted, outcome.unsent, outcome.backlog) == (0, {"TRANSPORT_ERROR": 1}, 1)
    assert (transport.batches, letter["reason"]) == ([], "TRANSPORT_ERROR")
    (error,) = errors
    assert (error.kind, error.event_ids) == (ErrorKind.TRANSPORT_ERROR, ("evt_1",))
    assert str(error) == f"1 event not delivered: holding off after: {ENDPOINT} is wrong"
    assert caplog.messages == [f"{ENDPOINT} {WRONG_ENDPOINTS['http://ingest.test']}{KEPT}"]


def test_nothing_can_be_sent_by_accident() -> None:
    """There is no URL that a request could go to."""
    tracker = Tracker(KEY, environ={ENDPOINT: "http://ingest.test"}, warm_up=False)
    with pytest.raises(ConfigurationError, match=f"{ENDPOINT} is wrong"):
        tracker.engine.outbox._transport.load()


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("name", [*VARIABLES, "ENDPOINT"])
def test_each_is_contained_by_itself(name: str, value: Any) -> None:
    """Whatever one says, it costs no other, and where it says nothing that counts, it is named."""
    variable = f"DOOW_TRACK_{name}"
    good = {
        "DOOW_TRACK_LICENSE_ID": "lic_1",
        "DOOW_TRACK_BUDGET": "500",
        "DOOW_TRACK_FLUSH_AT": "7",
        ENDPOINT: "https://eu.doow.co",
    }
    expected, made = config(good), config({**good, variable: value})
    kept = ["license_id", "budget_s", "flush_at", "endpoint", "api_key", "attribution", "enabled"]
    if name in VARIABLES and VARIABLES[name] in kept:
        kept.remove(VARIABLES[name])
    kept = [each for each in kept if (name, each) != ("ENDPOINT", "endpoint")]
    assert [getattr(made, each) for each in kept] == [getattr(expected, each) for each in kept]
    assert [problem[0] for problem in made.problems] in ([], [variable])
    assert all(problem[1].startswith(variable) for problem in made.problems)


def test_deep_json_is_named() -> None:
    """The parser's own limit is no exception to the rule."""
    made = config({"DOOW_TRACK_ATTRIBUTION": "[" * 100_000, "DOOW_TRACK_BUDGET": "500"})
    ((variable, problem),) = made.problems
    assert (variable, made.budget_s) == ("DOOW_TRACK_ATTRIBUTION", 0.5)
    assert problem.startswith("DOOW_TRACK_ATTRIBUTION ")
    assert problem.endswith("; the variable is ignored")


def test_the_place_of_a_key_may_be_any_text() -> None:
    """A journal is told apart by it, in whatever bytes the environment gave it."""
    environ = {"DOOW_TRACK_API_KEY_SSM_PARAMETER": "/doow/\udcff", "DOOW_TRACK_LICENSE_ID": "lic_1"}
    tracker = Tracker(environ=environ, warm_up=False, journal=True)
    assert tracker.engine.config.license_id == "lic_1"
