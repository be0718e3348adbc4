"""The key: given or fetched, fetched anew once when it is refused, and shown to nobody."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from doow_serverless._delivery.credentials import Credentials
from doow_serverless.errors import DoowError
from tests.network import KEY

if TYPE_CHECKING:
    from collections.abc import Callable

OTHER = "dk_" + "B2" * 32
VARIABLE = "DOOW_TRACK_API_KEY_SECRET_ARN"


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


def test_a_place_that_cannot_be_read(keep: Callable[..., tuple[Secret, Credentials]]) -> None:
    """The platform's own words are passed on, on one line; the next call tries again."""
    secret, credentials = keep(PermissionError("not\nallowed"), KEY)
    with pytest.raises(DoowError) as caught:
        credentials.current()
    where = f"the API key could not be read from where {VARIABLE} points"
    assert (str(caught.value), caught.value.kind, caught.value.__suppress_context__) == (
        f"{where} (PermissionError: not allowed)",
        "AUTH_FAILURE",
        True,
    )
    assert credentials.current() == KEY
    assert len(secret.asked) == 2


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
