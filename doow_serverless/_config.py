"""The configuration, from arguments and from the environment, which only this file reads."""

from __future__ import annotations

import json
import os
import sys

from ._recording.rules import check_attribution, check_text
from ._redaction import API_KEY, show
from ._sealing import MAX_BYTES, MAX_EVENTS
from .errors import ConfigurationError, DoowError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Literal

    from typing_extensions import TypedDict, Unpack

    from ._outcome import Outcome

    _Take = Callable[[str, Any], Any]

    class ConfigOptions(TypedDict, total=False):
        """What each means, says ``doow_serverless.configure``."""

        endpoint: str | None
        license_id: str | None
        attribution: Mapping[str, Any] | None
        budget: float
        reserve: float
        timeout: float
        enabled: bool
        strict: bool
        debug: bool
        warm_up: bool | Literal["connect", "import", "background"]
        flush_at: int
        flush_interval: float
        flush_mode: Literal["before_response", "after_response"]
        max_queue_size: int
        max_queue_bytes: int
        max_backlog_bytes: int
        max_payload_bytes: int
        disable_compression: bool
        dead_letter: str | os.PathLike[str]
        journal: bool | str | os.PathLike[str]
        on_error: Callable[[DoowError], object] | None
        on_flush: Callable[[Outcome], object] | None
        environ: Mapping[str, str] | None


ENDPOINT = "https://api.doow.co"

_TRUE = {"true", "1", "yes", "on"}
_FALSE = {"false", "0", "no", "off"}
_SMALLEST_PAYLOAD = 4_096

API_KEY_VARIABLE = "DOOW_TRACK_API_KEY"
KEY_PLACES = ("DOOW_TRACK_API_KEY_SECRET_ARN", "DOOW_TRACK_API_KEY_SSM_PARAMETER")
"""The variables that say where the key is kept, by precedence."""
NO_KEY = "there is no API key"
KEY_REMEDY = f"set {API_KEY_VARIABLE} to an SDK key (Doow: Settings, API Keys, SDK Keys)"

WARM_UPS = ("connect", "import", "background")
FLUSH_MODES = ("before_response", "after_response")


class Given:
    """The options of one call: each is taken once, and what is left over is no option.

    Args:
        called: By which name the user called it, for messages.
        options: By name.
    """

    def __init__(self, called: str, options: Mapping[str, object]) -> None:
        self._called = called
        self._left = dict(options)
        self._known: list[str] = []

    def take(self, name: str, default: Any) -> Any:
        """The option of this name, as given, or ``default``."""
        self._known.append(name)
        return self._left.pop(name, default)

    def close(self) -> None:
        """Refuse what nobody took; raises ConfigurationError."""
        if not self._left:
            return
        from difflib import get_close_matches

        name = next(iter(self._left))
        close = get_close_matches(name, self._known, 1)
        remedy = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(self._known)}"
        raise ConfigurationError(f"{self._called}() has no option {name!r}: {remedy}")


class Config:
    """What an engine goes by: options and variables, checked. The environment wins.

    Args:
        api_key: An SDK key. ``DOOW_TRACK_API_KEY``, or the name of a secret in
            ``DOOW_TRACK_API_KEY_SECRET_ARN`` or ``DOOW_TRACK_API_KEY_SSM_PARAMETER``, wins.
        **options: As of :func:`doow_serverless.configure`.

    Attributes:
        problems: What the environment says that cannot be understood, and was ignored: pairs of
            the variable, or ``"api_key"``, and of a line about it.
        removed: Names of attributes that looked like credentials, until they are reported.
        api_key: The key, well-formed, or None.
        key_place: The variable that says where to fetch the key instead, and what it says; or None.

    All else is named as the option is; what has a unit, with ``_s`` for seconds.

    Raises:
        ConfigurationError: An argument is wrong, or is no option. A wrong variable or key never
            raises.
    """

    def __init__(self, api_key: str | None = None, **options: Unpack[ConfigOptions]) -> None:
        given = Given("configure", options)
        environ = given.take("environ", None)
        self.problems: list[tuple[str, str]] = []
        self.removed: list[str] = []
        self._environ = os.environ if environ is None else environ
        self._read_where(given.take)
        self._read_modes(given.take)
        self._read_times(given.take)
        self._read_bounds(given.take)
        self.on_error = _callable("on_error", given.take("on_error", None))
        self.on_flush = _callable("on_flush", given.take("on_flush", None))
        self.ca_bundle = (
            self._environ.get("REQUESTS_CA_BUNDLE")
            or self._environ.get("CURL_CA_BUNDLE")
            or self._environ.get("SSL_CERT_FILE")
        )
        self.api_key: str | None = None
        self.key_place: tuple[str, str] | None = None
        self._find_key(api_key)
        given.close()

    def __repr__(self) -> str:
        return (
            f"Config(endpoint={self.endpoint!r}, budget_s={self.budget_s}, enabled={self.enabled})"
        )

    @property
    def has_key(self) -> bool:
        """Whether there is a key, or a place to fetch one from."""
        return self.api_key is not None or self.key_place is not None

    def _read_where(self, take: _Take) -> None:
        """Where events go, and what they carry where they say nothing themselves."""
        endpoint = take("endpoint", None)
        self.endpoint = self._from("DOOW_TRACK_ENDPOINT", _url) or _url("endpoint", endpoint)
        self.license_id = _argument("license_id", take("license_id", None), check_text)
        self.license_id = self._from("DOOW_TRACK_LICENSE_ID", check_text) or self.license_id
        self.attribution = _argument("attribution", take("attribution", None), self._attribution)
        self.attribution = {
            **(self.attribution or {}),
            **(self._from("DOOW_TRACK_ATTRIBUTION", self._attribution_json) or {}),
        }

    def _read_modes(self, take: _Take) -> None:
        """Whether and how anything is done at all."""
        disabled = self._from("DOOW_TRACK_DISABLED", _flag)
        self.enabled = true_or_false("enabled", take("enabled", True)) and not disabled
        self.strict = self._first(
            "DOOW_TRACK_STRICT", _flag, true_or_false("strict", take("strict", False))
        )
        self.debug = self._first(
            "DOOW_TRACK_DEBUG", _flag, true_or_false("debug", take("debug", False))
        )
        self.warm_up = self._first(
            "DOOW_TRACK_WARM_UP", _warm_up, _warm_up("warm_up", take("warm_up", True))
        )
        self.flush_mode = one_of("flush_mode", take("flush_mode", FLUSH_MODES[0]), FLUSH_MODES)
        self.compress = not true_or_false("disable_compression", take("disable_compression", False))
        self.dead_letter = self._first(
            "DOOW_TRACK_DEAD_LETTER", _place, _place("dead_letter", take("dead_letter", "log"))
        )
        journal = take("journal", False)
        self.journal = journal if isinstance(journal, bool) else _place("journal", journal)

    def _read_times(self, take: _Take) -> None:
        """How long things may take, in seconds."""
        self.budget_s = self._first(
            "DOOW_TRACK_BUDGET", _milliseconds, seconds("budget", take("budget", 2.0))
        )
        self.reserve_s = seconds("reserve", take("reserve", 0.25))
        self.timeout_s = seconds("timeout", take("timeout", 10.0))
        if not self.timeout_s:
            raise ConfigurationError("timeout must be greater than 0 seconds")
        interval_s = seconds("flush_interval", take("flush_interval", 10.0))
        self.flush_interval_s = self._first("DOOW_TRACK_FLUSH_INTERVAL", _milliseconds, interval_s)

    def _read_bounds(self, take: _Take) -> None:
        """How many events, and how many bytes."""
        at_most = _count("flush_at", take("flush_at", MAX_EVENTS))
        self.flush_at = min(MAX_EVENTS, self._first("DOOW_TRACK_FLUSH_AT", _count, at_most))
        self.max_queue_size = _count("max_queue_size", take("max_queue_size", 10_000))
        self.max_queue_bytes = _count("max_queue_bytes", take("max_queue_bytes", 16 * 1024 * 1024))
        self.max_backlog_bytes = _count(
            "max_backlog_bytes", take("max_backlog_bytes", 16 * 1024 * 1024)
        )
        self.max_payload_bytes = _count("max_payload_bytes", take("max_payload_bytes", MAX_BYTES))
        if not _SMALLEST_PAYLOAD <= self.max_payload_bytes <= MAX_BYTES:
            raise ConfigurationError(
                f"max_payload_bytes must be {_SMALLEST_PAYLOAD} to {MAX_BYTES}, "
                f"not {self.max_payload_bytes}"
            )

    def _find_key(self, api_key: str | None) -> None:
        malformed = (
            "is no SDK key (dk_ and 64 hex digits), and is never sent: copy it anew from Doow"
        )
        given = self._environ.get(API_KEY_VARIABLE)
        if given:
            if API_KEY.fullmatch(given.strip()):
                self.api_key = given.strip()
                return
            self._note(API_KEY_VARIABLE, f"{API_KEY_VARIABLE} {malformed}")
        for variable in KEY_PLACES:
            place = self._environ.get(variable)
            if place:
                self.key_place = variable, place
                return
        if isinstance(api_key, str) and API_KEY.fullmatch(api_key.strip()):
            self.api_key = api_key.strip()
        elif api_key:
            self._note("api_key", f"the argument api_key {malformed}")
        elif not given and self.enabled:
            self._note("api_key", f"{NO_KEY}, so usage events are kept and not sent: {KEY_REMEDY}")

    def _note(self, name: str, problem: str) -> None:
        self.problems.append((name, problem))

    def _from(self, variable: str, read: Callable[[str, Any], Any]) -> Any:
        """The variable's value, or None where it is not set, empty, or cannot be understood."""
        text = self._environ.get(variable, "").strip()
        if not text:
            return None
        try:
            return read(variable, text)
        except DoowError as problem:
            self._note(variable, f"{problem}; the variable is ignored")
            return None

    def _first(self, variable: str, read: Callable[[str, Any], Any], otherwise: Any) -> Any:
        value = self._from(variable, read)
        return otherwise if value is None else value

    def _attribution(self, _name: str, value: Any) -> dict[str, Any]:
        return check_attribution(value, self.removed)

    def _attribution_json(self, variable: str, text: str) -> dict[str, Any]:
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise ConfigurationError(f'{variable} must be a JSON object, such as {{"team": "ai"}}')
        try:
            return check_attribution(value, self.removed)
        except DoowError as problem:
            raise ConfigurationError(f"{variable}: {problem}") from None


def seconds(name: str, value: Any) -> float:
    """``value`` as a finite number of seconds that is not negative."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value < sys.float_info.max:
        raise ConfigurationError(
            f"{name} must be a number of seconds from 0 up, such as 0.5, not {show(value)}"
        )
    return float(value)


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """``value``, which is one of ``choices``."""
    if value not in choices:
        listed = " or ".join(map(repr, choices))
        raise ConfigurationError(f"{name} must be {listed}, not {show(value)}")
    return value  # type: ignore[no-any-return]  # it is one of them


def _argument(name: str, value: Any, read: Callable[[str, Any], Any]) -> Any:
    try:
        return None if value is None else read(name, value)
    except DoowError as problem:
        raise ConfigurationError(str(problem)) from None


def _milliseconds(variable: str, text: str) -> float:
    try:
        return seconds(variable, float(text) / 1000)
    except (ConfigurationError, ValueError, OverflowError):
        raise ConfigurationError(
            f"{variable} must be milliseconds from 0 up, such as 500, not {show(text)}"
        ) from None


def _flag(variable: str, text: str) -> bool:
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise ConfigurationError(f"{variable} must be true or false, not {show(text)}")


def true_or_false(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} must be True or False, not {show(value)}")
    return value


def _count(name: str, value: Any) -> int:
    try:
        number = int(value) if isinstance(value, str) else value
    except ValueError:
        number = None
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ConfigurationError(f"{name} must be a whole number from 1 up, not {show(value)}")
    return number


def _place(name: str, value: Any) -> str:
    try:
        path = os.fspath(value)
    except TypeError:
        path = ""
    if not isinstance(path, str) or not path.strip() or "\0" in path:
        raise ConfigurationError(f"{name} must be the path of a directory, not {show(value)}")
    return path


def _warm_up(name: str, value: Any) -> bool | str:
    if isinstance(value, str) and value.lower() in _TRUE | _FALSE:
        return _flag(name, value)
    if not isinstance(value, bool) and value not in WARM_UPS:
        words = ", ".join(map(repr, WARM_UPS))
        raise ConfigurationError(
            f"{name} must be True, False, or one of {words}, not {show(value)}"
        )
    return value  # type: ignore[no-any-return]  # as has been checked


def environment_names_key() -> bool:
    """Whether the environment holds a key, or says where it is kept."""
    return any(os.environ.get(name) for name in (API_KEY_VARIABLE, *KEY_PLACES))


def _callable(name: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise ConfigurationError(f"{name} must be a function of one argument, not {show(value)}")
    return value


def _url(name: str, value: str | None) -> str:
    """An endpoint without its trailing slash; https, or http where no network is crossed."""
    from urllib.parse import urlsplit  # Not needed at import.

    if value is None:
        return ENDPOINT
    remedy = f"{name} must be an https URL such as {ENDPOINT}, or http to 127.0.0.1 or localhost"
    try:
        parts = urlsplit(value.strip())
        host, _ = parts.hostname, parts.port
    except (AttributeError, ValueError):
        raise ConfigurationError(f"{remedy}, not {show(value)}") from None
    if not host or "?" in value or "#" in value or "@" in parts.netloc:
        # Not shown: such a URL may hold a password.
        raise ConfigurationError(f"{remedy}, without user name, query and fragment")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise ConfigurationError(f"{remedy}, not {show(value)}: the API key must not be read along")
    return value.strip().rstrip("/")


def _is_loopback(host: str) -> bool:
    import ipaddress  # Not needed at import.

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
