"""The exceptions and the kinds."""

from __future__ import annotations

import json
import logging

import pytest

from doow_serverless.errors import ConfigurationError, DoowError, ErrorKind, InvalidEvent

KINDS = [
    "AUTH_FAILURE",
    "RATE_LIMITED",
    "PARTIAL_ACCEPT",
    "NETWORK_ERROR",
    "TIMEOUT",
    "DROPPED_EVENTS",
    "TRANSPORT_ERROR",
    "NOT_READY",
    "INVALID_EVENT",
]


def test_the_kinds() -> None:
    """These are all, under the names that Doow's SDKs give them."""
    assert [kind.name for kind in ErrorKind] == KINDS


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_is_its_name(name: str) -> None:
    """It equals its name, prints as it, hashes as it and is JSON as it."""
    kind = ErrorKind(name)
    assert kind == name
    assert (str(kind), f"{kind}", "%s" % kind) == (name,) * 3  # noqa: UP031
    assert {name: 1}[kind] == 1
    assert json.dumps(kind) == json.dumps(name)


def test_what_an_error_carries() -> None:
    """Its kind, the events, and the wait that was asked for."""
    error = DoowError("why", ErrorKind.RATE_LIMITED, ["a", "b"], 30.0)
    assert (str(error), error.kind, error.event_ids, error.retry_after_s) == (
        "why",
        "RATE_LIMITED",
        ("a", "b"),
        30.0,
    )
    bare = DoowError("why")
    assert (bare.kind, bare.event_ids, bare.retry_after_s) == ("TRANSPORT_ERROR", (), None)


def test_the_family() -> None:
    """All are DoowErrors; what is wrong with an argument or a field is a ValueError too."""
    assert issubclass(ConfigurationError, (DoowError, ValueError))
    assert issubclass(InvalidEvent, DoowError)
    assert issubclass(InvalidEvent, ValueError)
    refused = InvalidEvent("why", ["a"])
    assert (refused.kind, refused.event_ids, str(refused)) == ("INVALID_EVENT", ("a",), "why")


def test_an_error_logs_as_its_message(caplog: pytest.LogCaptureFixture) -> None:
    """``%s`` of an error is what happened."""
    with caplog.at_level(logging.WARNING):
        logging.getLogger("app").warning("%s", InvalidEvent("quantity must be …"))
    assert caplog.messages == ["quantity must be …"]
