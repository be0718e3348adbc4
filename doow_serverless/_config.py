"""The configuration, from arguments and from the environment, which only this file reads."""

from __future__ import annotations

import json
import os

from ._recording.plain import guarded, plain
from ._recording.rules import check_attribution, check_text
from ._redaction import API_KEY, show
from ._sealing import (
    LINE_HEAD,
    LINE_LIMIT,
    LINE_LIMIT_ON_VERCEL,
    MAX_BYTES,
    MAX_BYTES_IN_LOG,
    MAX_EVENTS,
)
from ._secrets import places
from ._values import (
    argument,
    as_it_is,
    count,
    delivery,
    flag,
    flush_mode,
    fold,
    fold_text,
    hook,
    log_key,
    milliseconds,
    place,
    seconds,
    true_or_false,
    url,
    warm_up,
    why_no_log_key,
)
from .errors import ConfigurationError, DoowError, ErrorKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from typing import Any, Literal

    from typing_extensions import TypedDict, Unpack

    from ._outcome import Outcome
    from ._recording.rules import LeftOut

    _Take = Callable[[str, Any], Any]

    class ConfigOptions(TypedDict, total=False):
        """What each means, says ``doow_serverless.configure``."""

        delivery: Literal["direct", "log"]
        endpoint: str | None
        license_id: str | None
        attribution: Mapping[str, Any] | None
        fold: bool | Collection[str]
        budget: float
        reserve: float
        timeout: float
        enabled: bool
        strict: bool
        debug: bool
        warm_up: bool | Literal["connect", "import"]
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
        log_key: str | None
        on_error: Callable[[DoowError], object] | None
        on_flush: Callable[[Outcome], object] | None
        environ: Mapping[str, str] | None


_SMALLEST_PAYLOAD = 4_096

API_KEY_VARIABLE = "DOOW_TRACK_API_KEY"
KEY_PLACES = places(API_KEY_VARIABLE)
"""The variables that say where the key is kept, by precedence."""
LOG_KEY_VARIABLE = "DOOW_TRACK_LOG_KEY"
PREVIOUS_LOG_KEY_VARIABLE = "DOOW_TRACK_LOG_KEY_PREVIOUS"
LOG_KEY_VARIABLES = (LOG_KEY_VARIABLE, *places(LOG_KEY_VARIABLE), PREVIOUS_LOG_KEY_VARIABLE)
_IGNORED = "; the variable is ignored"
NO_KEY = "there is no API key"
KEY_REMEDY = f"set {API_KEY_VARIABLE} to an SDK key (Doow: Settings, API Keys, SDK Keys)"
DELIVERY_VARIABLE = "DOOW_TRACK_DELIVERY"
ENDPOINT_VARIABLE = "DOOW_TRACK_ENDPOINT"
NO_ENDPOINT = f"{ENDPOINT_VARIABLE} is wrong"
NOT_SENT = "; usage events are kept and not sent"


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
        """The option of this name, read by `plain`, or ``default``."""
        self._known.append(name)
        return plain(self._left.pop(name, default))

    def close(self) -> None:
        """Refuse what nobody took; raises ConfigurationError."""
        if not self._left:
            return
        from difflib import get_close_matches

        name = next(iter(self._left))
        close = get_close_matches(name, self._known, 1)
        remedy = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(self._known)}"
        raise ConfigurationError(f"{self._called}() has no option {name!r}: {remedy}")


def _read_environ(environ: Any) -> Mapping[str, str]:
    """A copy, whose methods cannot raise."""
    copy = guarded(dict, environ)
    if type(copy) is not dict:
        raise ConfigurationError(f"environ must be a mapping of strings, not {show(copy)}")
    return {name: text for name, text in copy.items() if type(text) is str}


class Config:
    """What an engine goes by: options and variables, checked. The environment wins.

    Args:
        api_key: An SDK key. ``DOOW_TRACK_API_KEY``, or the name of a secret in
            ``DOOW_TRACK_API_KEY_SECRET_ARN`` or ``DOOW_TRACK_API_KEY_SSM_PARAMETER``, wins.
        **options: As of :func:`doow_serverless.configure`.

    Attributes:
        problems: What the environment says that cannot be understood, and was ignored: pairs of
            the variable, or ``"api_key"``, and of a line about it.
        is_of_process: True if the variables are those of the process.
        endpoint: Where to send; None where its variable is wrong. That one is not ignored, since
            what is meant for a test server must not be billed.
        removed: Names of attributes that looked like credentials, until they are reported.
        api_key: The key, well-formed, or None.
        key_place: The variable that says where to fetch the key instead, and what it says; or None.
        log_key, log_key_place: The same of the key that signs lines of the log.
        previous_log_key: Another key whose signatures readers accept, or None.

    All else is named as the option is; what has a unit, with ``_s`` for seconds.

    Raises:
        ConfigurationError: An argument is wrong, or is no option. A wrong variable or key never
            raises.
    """

    def __init__(self, api_key: str | None = None, **options: Unpack[ConfigOptions]) -> None:
        given = Given("configure", options)
        environ = given.take("environ", None)
        self.problems: list[tuple[str, str]] = []
        self.removed: list[LeftOut] = []
        self.is_of_process = environ is None
        self._environ = os.environ if environ is None else _read_environ(environ)
        self._read_platform()
        self._read_where(given.take)
        self._read_modes(given.take)
        self._read_times(given.take)
        self._read_bounds(given.take)
        self.on_error = hook("on_error", given.take("on_error", None))
        self.on_flush = hook("on_flush", given.take("on_flush", None))
        self.ca_bundle = (
            self._from("REQUESTS_CA_BUNDLE", as_it_is)
            or self._from("CURL_CA_BUNDLE", as_it_is)
            or self._from("SSL_CERT_FILE", as_it_is)
        )
        self.api_key: str | None = None
        self.key_place: tuple[str, str] | None = None
        self._find_key(api_key)
        self._find_log_key(given.take)
        given.close()

    def __repr__(self) -> str:
        return (
            f"Config(endpoint={self.endpoint!r}, budget_s={self.budget_s}, enabled={self.enabled})"
        )

    @property
    def has_key(self) -> bool:
        """Whether there is a key, or a place to fetch one from."""
        return self.api_key is not None or self.key_place is not None

    @property
    def obstacle(self) -> tuple[ErrorKind, str] | None:
        """Why nothing can be sent, as an error kind and in words; None where it can."""
        if self.delivery == "log":
            return None
        if self.endpoint is None:
            return ErrorKind.TRANSPORT_ERROR, NO_ENDPOINT
        return None if self.has_key else (ErrorKind.AUTH_FAILURE, NO_KEY)

    @property
    def can_send(self) -> bool:
        """Whether there is nothing in the way of sending."""
        return self.obstacle is None

    @property
    def needs_network(self) -> bool:
        """Whether sending takes a key and a connection, and nothing is in the way."""
        return self.delivery == "direct" and self.obstacle is None

    def _read_where(self, take: _Take) -> None:
        """Where events go, and what they carry where they say nothing themselves."""
        way = delivery("delivery", take("delivery", "direct"))
        self.delivery = self._first(DELIVERY_VARIABLE, delivery, way)
        self.endpoint: str | None = url("endpoint", take("endpoint", None))
        self._read_endpoint()
        self.license_id = argument("license_id", take("license_id", None), check_text)
        self.license_id = self._from("DOOW_TRACK_LICENSE_ID", check_text) or self.license_id
        self.attribution = argument("attribution", take("attribution", None), self._attribution)
        self.attribution = {
            **(self.attribution or {}),
            **(self._from("DOOW_TRACK_ATTRIBUTION", self._attribution_json) or {}),
        }
        self.fold = self._first("DOOW_TRACK_FOLD", fold_text, fold("fold", take("fold", False)))

    def _read_endpoint(self) -> None:
        try:
            self.endpoint = self._read(ENDPOINT_VARIABLE, url) or self.endpoint
        except ConfigurationError as problem:
            self.endpoint = None
            self._note(ENDPOINT_VARIABLE, f"{problem}{NOT_SENT}")

    def _read_modes(self, take: _Take) -> None:
        """Whether and how anything is done at all."""
        disabled = self._from("DOOW_TRACK_DISABLED", flag)
        self.enabled = true_or_false("enabled", take("enabled", True)) and not disabled
        self.strict = self._first(
            "DOOW_TRACK_STRICT", flag, true_or_false("strict", take("strict", False))
        )
        self.debug = self._first(
            "DOOW_TRACK_DEBUG", flag, true_or_false("debug", take("debug", False))
        )
        self.warm_up = self._first(
            "DOOW_TRACK_WARM_UP", warm_up, warm_up("warm_up", take("warm_up", True))
        )
        mode = flush_mode("flush_mode", take("flush_mode", "before_response"))
        self.flush_mode = self._first("DOOW_TRACK_FLUSH_MODE", flush_mode, mode)
        self.compress = not true_or_false("disable_compression", take("disable_compression", False))
        self.dead_letter = self._first(
            "DOOW_TRACK_DEAD_LETTER", place, place("dead_letter", take("dead_letter", "log"))
        )
        journal = take("journal", False)
        self.journal = journal if isinstance(journal, bool) else place("journal", journal)

    def _read_times(self, take: _Take) -> None:
        """How long things may take, in seconds."""
        self.budget_s = self._first(
            "DOOW_TRACK_BUDGET", milliseconds, seconds("budget", take("budget", 2.0))
        )
        self.reserve_s = seconds("reserve", take("reserve", 0.25))
        self.timeout_s = seconds("timeout", take("timeout", 10.0))
        if not self.timeout_s:
            raise ConfigurationError("timeout must be greater than 0 seconds")
        interval_s = seconds("flush_interval", take("flush_interval", 10.0))
        self.flush_interval_s = self._first("DOOW_TRACK_FLUSH_INTERVAL", milliseconds, interval_s)

    def _read_bounds(self, take: _Take) -> None:
        """How many events, and how many bytes."""
        at_most = count("flush_at", take("flush_at", MAX_EVENTS))
        self.flush_at = min(MAX_EVENTS, self._first("DOOW_TRACK_FLUSH_AT", count, at_most))
        self.max_queue_size = count("max_queue_size", take("max_queue_size", 10_000))
        self.max_queue_bytes = count("max_queue_bytes", take("max_queue_bytes", 16 * 1024 * 1024))
        self.max_backlog_bytes = count(
            "max_backlog_bytes", take("max_backlog_bytes", 16 * 1024 * 1024)
        )
        self.max_payload_bytes = count("max_payload_bytes", take("max_payload_bytes", MAX_BYTES))
        if not _SMALLEST_PAYLOAD <= self.max_payload_bytes <= MAX_BYTES:
            raise ConfigurationError(
                f"max_payload_bytes must be {_SMALLEST_PAYLOAD} to {MAX_BYTES}, "
                f"not {self.max_payload_bytes}"
            )
        self.max_packed_bytes: int | None = None
        if self.delivery == "log":
            # A batch that is one line cannot be torn apart. Base64 makes four characters of three
            # bytes.
            self.max_packed_bytes = (self.record_limit - LINE_HEAD) * 3 // 4
            self.max_payload_bytes = min(self.max_payload_bytes, MAX_BYTES_IN_LOG)

    def _read_platform(self) -> None:
        """What the log keeps of a line, and which it keeps."""
        self.record_limit = LINE_LIMIT_ON_VERCEL if self._environ.get("VERCEL") else LINE_LIMIT
        self.least_level = ""
        if self._environ.get("AWS_LAMBDA_LOG_FORMAT") == "JSON":
            self.least_level = self._environ.get("AWS_LAMBDA_LOG_LEVEL", "")

    def _find_key(self, api_key: str | None) -> None:
        malformed = (
            "is no SDK key (dk_ and 64 hex digits), and is never sent: copy it anew from Doow"
        )
        given = self._from(API_KEY_VARIABLE, as_it_is)
        if given:
            if API_KEY.fullmatch(given):
                self.api_key = given
                return
            self._note(API_KEY_VARIABLE, f"{API_KEY_VARIABLE} {malformed}")
        for variable in KEY_PLACES:
            name = self._from(variable, as_it_is)
            if name:
                self.key_place = variable, name
                return
        api_key = plain(api_key)
        if type(api_key) is str and API_KEY.fullmatch(api_key.strip()):
            self.api_key = api_key.strip()
        elif api_key is not None and api_key != "":
            self._note("api_key", f"the argument api_key {malformed}")
        elif not given and self.enabled and self.delivery == "direct":
            self._note("api_key", f"{NO_KEY}, so usage events are kept and not sent: {KEY_REMEDY}")

    def _find_log_key(self, take: _Take) -> None:
        option = argument("log_key", take("log_key", None), log_key)
        given = {name: self._log_key_from(name) for name in LOG_KEY_VARIABLES}
        named = ((name, given[name]) for name in places(LOG_KEY_VARIABLE))
        place = next(((name, text) for name, text in named if text), None)
        variable = given[LOG_KEY_VARIABLE]
        self.log_key_place: tuple[str, str] | None = None if variable else place
        self.log_key: str | None = variable or (None if place else option)
        self.previous_log_key: str | None = given[PREVIOUS_LOG_KEY_VARIABLE]

    def _log_key_from(self, variable: str) -> str | None:
        """The variable's value; None if it is not set or empty, or cannot be a key or its place.

        Not even white space may stand for "no key": whoever has set the variable means one.
        """
        text = self._environ.get(variable, "")
        try:
            return log_key(variable, text) if text else None
        except ConfigurationError:
            self._note(variable, f"{why_no_log_key(variable, text)}{_IGNORED}")
            return None

    def _note(self, name: str, problem: str) -> None:
        self.problems.append((name, problem))

    def _read(self, variable: str, read: Callable[[str, Any], Any]) -> Any:
        """The variable's value, or None where it is not set or empty.

        Raises:
            ConfigurationError: It cannot be understood, whatever is wrong with it.
        """
        try:
            text = self._environ.get(variable, "").strip()
            return read(variable, text) if text else None
        except DoowError as problem:
            raise ConfigurationError(str(problem)) from None
        except Exception as problem:
            # What nobody has thought of, such as JSON of 100,000 brackets, is wrong all the same.
            raise ConfigurationError(
                f"{variable} cannot be read ({type(problem).__name__})"
            ) from None

    def _from(self, variable: str, read: Callable[[str, Any], Any]) -> Any:
        """The variable's value, or None where it is not set, empty, or cannot be understood."""
        try:
            return self._read(variable, read)
        except ConfigurationError as problem:
            self._note(variable, f"{problem}{_IGNORED}")
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


def environment_configures() -> bool:
    """Return whether the environment alone says how to deliver: it names a key, or the log."""
    names_key = any(os.environ.get(name) for name in (API_KEY_VARIABLE, *KEY_PLACES))
    return names_key or os.environ.get(DELIVERY_VARIABLE, "").strip() == "log"


def checked_config(*, needs_key: bool = True) -> tuple[Config, str]:
    """The configuration and its endpoint; what a function would do without is an error.

    A reader without the log key that somebody meant to give it would accept anyone's usage.

    Raises:
        ConfigurationError: The key is missing, or it, a log key or the endpoint cannot be used.
    """
    config = Config()
    needed = {ENDPOINT_VARIABLE, *LOG_KEY_VARIABLES}
    if needs_key:
        needed.add(API_KEY_VARIABLE)
    for variable, problem in config.problems:
        if variable in needed:
            raise ConfigurationError(problem.removesuffix(NOT_SENT).removesuffix(_IGNORED))
    if config.endpoint is None:
        raise ConfigurationError(NO_ENDPOINT)
    if not config.has_key and needs_key:
        raise ConfigurationError(f"{NO_KEY}: {KEY_REMEDY}")
    return config, config.endpoint
