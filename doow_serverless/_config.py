"""The configuration, from arguments and from the environment, which only this file reads."""

from __future__ import annotations

import json
import os
import sys

from ._delivery.credentials import Credentials
from ._recording.event import check_attribution, check_text
from ._redaction import API_KEY, show
from ._sealing import MAX_BYTES, MAX_EVENTS
from .errors import ConfigurationError, DoowError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Literal

    from ._outcome import Outcome

ENDPOINT = "https://api.doow.co"

_TRUE = {"true", "1", "yes", "on"}
_FALSE = {"false", "0", "no", "off"}
_SMALLEST_PAYLOAD = 4_096

FLUSH_MODES = ("before_response", "after_response")


class Config:
    """What a tracker goes by. The environment wins over arguments, as in Doow's SDKs.

    Args:
        api_key: An SDK key, ``dk_`` and 64 hex digits. ``DOOW_TRACK_API_KEY``, or the name of a
            secret in ``DOOW_TRACK_API_KEY_SECRET_ARN`` or ``DOOW_TRACK_API_KEY_SSM_PARAMETER``.
        endpoint: The URL of the API; https, or http to loopback. ``DOOW_TRACK_ENDPOINT``.
        license_id: The license of events that name none. ``DOOW_TRACK_LICENSE_ID``.
        attribution: Attribution of all events, under their own. ``DOOW_TRACK_ATTRIBUTION`` (a
            JSON object) is laid over it.
        budget: Seconds that a flush may hold the response. ``DOOW_TRACK_BUDGET`` (milliseconds).
        reserve: Seconds before the platform's deadline that are left to the handler.
        timeout: Seconds of silence after which a request in the background is given up.
        enabled: False records and sends nothing. ``DOOW_TRACK_DISABLED``.
        strict: True has ``track`` raise for a bad event. ``DOOW_TRACK_STRICT``.
        debug: True logs one line for every flush. ``DOOW_TRACK_DEBUG``.
        warm_up: True imports what sending needs in the background, ``"connect"`` also opens a
            connection, False does neither before the first flush.
        flush_at: Events, at most 500, with which a batch leaves before the end of the invocation.
            ``DOOW_TRACK_FLUSH_AT``.
        flush_interval: Seconds after which what a websocket session has recorded leaves, although
            the session goes on; 0 for not before its end. ``DOOW_TRACK_FLUSH_INTERVAL``
            (milliseconds).
        flush_mode: ``"before_response"``, or ``"after_response"`` to have the platform wait for the
            flush once the response has gone back, where it can: on Vercel, through ``wait_until``.
        max_queue_size: Events that one invocation, and the backlog, may hold in memory.
        max_backlog_bytes: Compressed bytes that the backlog may hold.
        max_payload_bytes: Bytes of JSON in one POST, before compression.
        disable_compression: True sends plain JSON.
        dead_letter: Where to write down batches that are not delivered when their invocation
            returns: ``"log"`` (standard output), a directory, or ``"off"``.
            ``DOOW_TRACK_DEAD_LETTER``.
        journal: True keeps recorded events in a file until they are settled, under the temporary
            folder, or in the directory given, for the next process to recover after a crash.
        on_error: Receives a :class:`~doow_serverless.errors.DoowError` for events that were
            refused or not delivered, on the thread that noticed.
        on_flush: Receives the :class:`Outcome` of every flush that had events.
        environ: The environment; ``os.environ`` unless given.

    ``problems`` lists what the environment says that cannot be understood, and was ignored.

    Raises:
        ConfigurationError: An argument is wrong. A wrong variable or key never raises.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        endpoint: str | None = None,
        license_id: str | None = None,
        attribution: Mapping[str, Any] | None = None,
        budget: float = 2.0,
        reserve: float = 0.25,
        timeout: float = 10.0,
        enabled: bool = True,
        strict: bool = False,
        debug: bool = False,
        warm_up: bool | Literal["connect"] = True,
        flush_at: int = MAX_EVENTS,
        flush_interval: float = 10.0,
        flush_mode: str = FLUSH_MODES[0],
        max_queue_size: int = 10_000,
        max_backlog_bytes: int = 16 * 1024 * 1024,
        max_payload_bytes: int = MAX_BYTES,
        disable_compression: bool = False,
        dead_letter: str | os.PathLike[str] = "log",
        journal: bool | str | os.PathLike[str] = False,
        on_error: Callable[[DoowError], object] | None = None,
        on_flush: Callable[[Outcome], object] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.problems: list[str] = []
        self.removed: list[str] = []
        self._environ = os.environ if environ is None else environ

        self.endpoint = self._from("DOOW_TRACK_ENDPOINT", _url) or _url("endpoint", endpoint)
        self.license_id = _argument("license_id", license_id, check_text)
        self.license_id = self._from("DOOW_TRACK_LICENSE_ID", check_text) or self.license_id
        self.attribution = _argument("attribution", attribution, self._attribution)
        self.attribution = {
            **(self.attribution or {}),
            **(self._from("DOOW_TRACK_ATTRIBUTION", self._attribution_json) or {}),
        }
        self.budget_s = self._first("DOOW_TRACK_BUDGET", _milliseconds, seconds("budget", budget))
        self.reserve_s = seconds("reserve", reserve)
        self.timeout_s = seconds("timeout", timeout)
        if not self.timeout_s:
            raise ConfigurationError("timeout must be greater than 0 seconds")
        disabled = self._from("DOOW_TRACK_DISABLED", _flag)
        self.enabled = _bool("enabled", enabled) and not disabled
        self.strict = self._first("DOOW_TRACK_STRICT", _flag, _bool("strict", strict))
        self.debug = self._first("DOOW_TRACK_DEBUG", _flag, _bool("debug", debug))
        if warm_up not in (True, False, "connect"):
            raise ConfigurationError(
                f"warm_up must be True, False or 'connect', not {show(warm_up)}"
            )
        self.warm_up = warm_up
        at_most = _count("flush_at", flush_at)
        self.flush_at = min(MAX_EVENTS, self._first("DOOW_TRACK_FLUSH_AT", _count, at_most))
        interval_s = seconds("flush_interval", flush_interval)
        self.flush_interval_s = self._first("DOOW_TRACK_FLUSH_INTERVAL", _milliseconds, interval_s)
        self.flush_mode = one_of("flush_mode", flush_mode, FLUSH_MODES)
        self.max_queue_size = _count("max_queue_size", max_queue_size)
        self.max_backlog_bytes = _count("max_backlog_bytes", max_backlog_bytes)
        self.max_payload_bytes = _count("max_payload_bytes", max_payload_bytes)
        if not _SMALLEST_PAYLOAD <= self.max_payload_bytes <= MAX_BYTES:
            raise ConfigurationError(
                f"max_payload_bytes must be {_SMALLEST_PAYLOAD} to {MAX_BYTES}, "
                f"not {max_payload_bytes}"
            )
        self.compress = not _bool("disable_compression", disable_compression)
        self.dead_letter = self._first(
            "DOOW_TRACK_DEAD_LETTER", _place, _place("dead_letter", dead_letter)
        )
        self.journal = journal if isinstance(journal, bool) else _place("journal", journal)
        self.on_error = _callable("on_error", on_error)
        self.on_flush = _callable("on_flush", on_flush)
        self.ca_bundle = (
            self._environ.get("REQUESTS_CA_BUNDLE")
            or self._environ.get("CURL_CA_BUNDLE")
            or self._environ.get("SSL_CERT_FILE")
        )
        self.credentials = self._credentials(api_key)

    def _credentials(self, api_key: str | None) -> Credentials:
        malformed = "is no SDK key (dk_ and 64 hex digits), and is never sent"
        given = self._environ.get("DOOW_TRACK_API_KEY")
        if given:
            if API_KEY.fullmatch(given.strip()):
                return Credentials(given.strip())
            self.problems.append(f"DOOW_TRACK_API_KEY {malformed}: copy the key anew from Doow")
        for variable in ("DOOW_TRACK_API_KEY_SECRET_ARN", "DOOW_TRACK_API_KEY_SSM_PARAMETER"):
            place = self._environ.get(variable)
            if place:
                return Credentials(None, variable, place)
        if isinstance(api_key, str) and API_KEY.fullmatch(api_key.strip()):
            return Credentials(api_key.strip())
        if api_key:
            self.problems.append(f"the argument api_key {malformed}: copy the key anew from Doow")
        elif not given and self.enabled:
            self.problems.append(
                "there is no API key, so usage events are kept and not sent: set "
                "DOOW_TRACK_API_KEY to an SDK key (Doow: Settings, API Keys, SDK Keys)"
            )
        return Credentials(None)

    def _from(self, variable: str, read: Callable[[str, Any], Any]) -> Any:
        """The variable's value, or None where it is not set, empty, or cannot be understood."""
        text = self._environ.get(variable, "").strip()
        if not text:
            return None
        try:
            return read(variable, text)
        except DoowError as problem:
            self.problems.append(f"{problem}; the variable is ignored")
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


def _bool(name: str, value: Any) -> bool:
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
