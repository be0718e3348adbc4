"""The options of ``tracked`` and of the middlewares: what is wrong is named, with the remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless import asgi, wsgi
from doow_serverless._handlers.options import TrackedOptions
from doow_serverless.azure import track_app
from doow_serverless.errors import ConfigurationError
from doow_serverless.powertools import DoowMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable


class App:
    _function_builders = ("one",)


@pytest.mark.parametrize(
    ("called", "take"),
    [
        ("tracked", doow.tracked),
        ("DoowMiddleware", lambda **options: asgi.DoowMiddleware(None, **options)),  # type: ignore[arg-type]
        ("DoowMiddleware", lambda **options: wsgi.DoowMiddleware(None, **options)),  # type: ignore[arg-type]
        ("DoowMiddleware", DoowMiddleware),
        ("track_app", lambda **options: track_app(App(), **options)),
        ("configure", doow.configure),
        ("configure", doow.Tracker),
    ],
    ids=["tracked", "asgi", "wsgi", "powertools", "track_app", "configure", "Tracker"],
)
def test_a_misspelt_option(called: str, take: Callable[..., Any]) -> None:
    """Whatever takes options refuses one that is none, and says which was meant."""
    with pytest.raises(ConfigurationError) as caught:
        take(bugdet=1)
    assert str(caught.value) == f"{called}() has no option 'bugdet': did you mean 'budget'?"


def test_an_option_that_resembles_none() -> None:
    """Where no option is meant that can be told, all of them are listed."""
    with pytest.raises(ConfigurationError) as caught:
        doow.tracked(zzz=1)  # type: ignore[call-overload]
    assert str(caught.value) == (
        "tracked() has no option 'zzz': there are budget, license_id, attribution, metric, "
        "fold, on_exception, idempotent, flush_mode"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": -1}, "budget must be a number of seconds from 0 up, such as 0.5, not -1"),
        ({"budget": True}, "budget must be a number of seconds from 0 up, such as 0.5, not True"),
        ({"on_exception": "drop"}, "on_exception must be 'flush' or 'discard', not 'drop'"),
        ({"idempotent": 1}, "idempotent must be True or False, not 1"),
        ({"flush_mode": "later"}, ("flush_mode must be 'before_response' or 'after_response', "
         "not 'later'")),
        ({"metric": ""}, ("tracked(): metric must be a non-empty string of at most 256 characters, "
         "not ''")),
    ],
)  # fmt: skip
def test_a_wrong_value(options: dict[str, Any], message: str) -> None:
    """The message names the option, its value and what is allowed."""
    with pytest.raises(ConfigurationError) as caught:
        doow.tracked(**options)
    assert str(caught.value) == message


def test_the_repr_shows_what_was_given() -> None:
    """Options that were left alone are left out."""
    made = TrackedOptions(budget=0.5, license_id="lic_1")
    assert repr(made) == "TrackedOptions(budget_s=0.5, license_id='lic_1')"
