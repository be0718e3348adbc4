"""What an option or a variable may say: each reader names it, its value, and the remedy."""

from __future__ import annotations

import os
import sys

from ._redaction import show
from .errors import ConfigurationError, DoowError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

ENDPOINT = "https://api.doow.co"

_TRUE = {"true", "1", "yes", "on"}
_FALSE = {"false", "0", "no", "off"}


def seconds(name: str, value: Any) -> float:
    """``value`` as a finite number of seconds that is not negative."""
    if type(value) not in (int, float) or not 0 <= value < sys.float_info.max:
        raise ConfigurationError(
            f"{name} must be a number of seconds from 0 up, such as 0.5, not {show(value)}"
        )
    return float(value)


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """``value``, which is one of ``choices``."""
    if type(value) is not str or value not in choices:
        listed = " or ".join(map(repr, choices))
        raise ConfigurationError(f"{name} must be {listed}, not {show(value)}")
    return value


def flush_mode(name: str, value: Any) -> str:
    """When to deliver."""
    return one_of(name, value, ("before_response", "after_response"))


def delivery(name: str, value: Any) -> str:
    """How batches leave."""
    return one_of(name, value, ("direct", "log"))


def fold(name: str, value: Any) -> bool | frozenset[str]:
    """Whether events fold, or those of which metrics."""
    if type(value) is bool:
        return value
    try:
        metrics = [] if type(value) in (str, bytes) else [*map(_text, value)]
    except Exception:  # Of their methods.
        metrics = []
    if not all(metrics) or not metrics:
        raise ConfigurationError(
            f"{name} must be True, False or a set of metrics such as {{'tokens'}}, "
            f"not {show(value)}"
        )
    return frozenset(metrics)


def _text(metric: Any) -> str:
    """A metric as plain text; empty if it is none."""
    return str.__str__(metric) if issubclass(type(metric), str) and metric.strip() else ""


def fold_text(variable: str, text: str) -> bool | frozenset[str]:
    """The same from a variable: a flag, or metrics with commas between."""
    if text.lower() in _TRUE | _FALSE:
        return flag(variable, text)
    try:
        return fold(variable, [name.strip() for name in text.split(",") if name.strip()])
    except ConfigurationError:
        raise ConfigurationError(
            f"{variable} must be true, false or metrics such as tokens,api_calls, not {show(text)}"
        ) from None


def as_it_is(_variable: str, text: str) -> str:
    """Any text."""
    return text


_UNRESOLVED = ("@Microsoft.KeyVault(", "{{resolve:")
"""How the references begin that a platform should have replaced by the text of a secret."""


def log_key(name: str, value: Any) -> str:
    """Any text that can be a log key; never shown, whatever it is."""
    why = why_no_log_key(name, value)
    if why is not None:
        raise ConfigurationError(f"{why} (what was passed is not shown)")
    return str.strip(value)


def why_no_log_key(name: str, value: Any) -> str | None:
    """Return why ``value`` is no log key, in a sentence about ``name``; None if it is one."""
    if type(value) is not str or not value.strip():
        return f"{name} must be a text that is not empty, such as 32 random bytes in hex digits"
    if value.strip().startswith(_UNRESOLVED):
        return f"{name} is a reference to a secret that the platform has not resolved"
    return None


def argument(name: str, value: Any, read: Callable[[str, Any], Any]) -> Any:
    """What ``read`` makes of an argument that is not None."""
    try:
        return None if value is None else read(name, value)
    except DoowError as problem:
        raise ConfigurationError(str(problem)) from None


def milliseconds(variable: str, text: str) -> float:
    """Milliseconds as seconds."""
    try:
        return seconds(variable, float(text) / 1000)
    except (ConfigurationError, ValueError, OverflowError):
        raise ConfigurationError(
            f"{variable} must be milliseconds from 0 up, such as 500, not {show(text)}"
        ) from None


def flag(variable: str, text: str) -> bool:
    """A word for true or false."""
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise ConfigurationError(f"{variable} must be true or false, not {show(text)}")


def true_or_false(name: str, value: Any) -> bool:
    """A bool, and nothing that is merely like one."""
    if type(value) is not bool:
        raise ConfigurationError(f"{name} must be True or False, not {show(value)}")
    return value


def count(name: str, value: Any) -> int:
    """A whole number from 1 up; in a variable, its digits."""
    try:
        number = int(value) if type(value) is str else value
    except ValueError:
        number = None
    if type(number) is not int or number < 1:
        raise ConfigurationError(f"{name} must be a whole number from 1 up, not {show(value)}")
    return number


def place(name: str, value: Any) -> str:
    """The path of a directory."""
    try:
        path = os.fspath(value)
    except Exception:  # It is none, or its methods raise.
        path = ""
    if type(path) is not str or not path.strip() or "\0" in path:
        raise ConfigurationError(f"{name} must be the path of a directory, not {show(value)}")
    return path


def warm_up(name: str, value: Any) -> bool | str:
    """A bool or a word for one, or ``"connect"``; ``"import"`` means True."""
    if type(value) is str and value.lower() in _TRUE | _FALSE:
        return flag(name, value)
    if type(value) is str and value == "import":
        return True
    if type(value) is not bool and (type(value) is not str or value != "connect"):
        raise ConfigurationError(f"{name} must be True, False or 'connect', not {show(value)}")
    return value


def hook(name: str, value: Any) -> Any:
    """A function of the user, or None."""
    if value is not None and not callable(value):
        raise ConfigurationError(f"{name} must be a function of one argument, not {show(value)}")
    return value


def url(name: str, value: str | None) -> str:
    """An endpoint without its trailing slash; https, or http where no network is crossed."""
    from urllib.parse import urlsplit  # Not needed at import.

    if value is None:
        return ENDPOINT
    remedy = f"{name} must be an https URL such as {ENDPOINT}, or http to 127.0.0.1 or localhost"
    if type(value) is not str:
        raise ConfigurationError(f"{remedy}, not {show(value)}")
    try:
        text = value.strip()
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = text = ""
    if host is None or any(sign in value for sign in "?#@"):
        # Not shown: such a URL may hold a password.
        raise ConfigurationError(f"{remedy}, without user name, query and fragment")
    if not host or " " in text or not text.isprintable():
        raise ConfigurationError(f"{remedy}, not {show(value)}")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise ConfigurationError(f"{remedy}, not {show(value)}: the API key must not be read along")
    return text.rstrip("/")


def _is_loopback(host: str) -> bool:
    import ipaddress  # Not needed at import.

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
