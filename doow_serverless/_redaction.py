"""Finds values that look like credentials, so that they never leave as metering data."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

API_KEY = re.compile(r"dk_[0-9A-Fa-f]{64}")
"""An SDK key of Doow: ``dk_`` and 64 hex digits."""

# Where a word begins: in JSON, and in a repr, also after an escape such as \n.
_START = r"(?:\b|(?<=\\[bfnrtv])|(?<=\\u[0-9a-f]{4}))"
_CREDENTIAL = re.compile(
    rf"""
      {_START}dk_(?:live_|test_)?[0-9A-Za-z]{{16,}}                   # Doow
    | {_START}(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{{16}}\b                 # AWS access key id
    | (?:(?<![0-9A-Za-z/+])|(?<=\\[bfnrtv])|(?<=\\u[0-9a-f]{{4}}))
      (?=[^"]{{0,39}}[A-Z])(?=[^"]{{0,39}}[a-z])(?=[^"]{{0,39}}[0-9/+])
      [0-9A-Za-z/+]{{40}}(?![0-9A-Za-z/+=])                           # AWS secret access key
    | -----BEGIN[ ][A-Z0-9 ]+-----                                  # PEM block
    | {_START}[Bb][Ee][Aa][Rr][Ee][Rr](?:\s|\\[fnrtv])+[^\s"]{{6,}}   # Authorization header
    """,
    re.VERBOSE,
)

_TOKEN_LETTERS = re.compile(r"[0-9A-Za-z_.-]+")
_TOKEN_START = re.compile(rf"{_START}eyJ[0-9A-Za-z_-]{{5}}")

_SHORTEST_PART = 5
_SHORTEST = 12
# No credential is shorter, and most values are: they need no search.


def looks_secret(text: str) -> bool:
    """Whether ``text`` (a value, or JSON of many) holds something that looks like a credential."""
    if len(text) <= _SHORTEST:
        return False
    return _CREDENTIAL.search(text) is not None or ("eyJ" in text and _holds_token(text))


def _holds_token(text: str) -> bool:
    """Whether ``text`` holds a JSON Web Token: three parts, of which the first begins with eyJ.

    In one pass over the text: a pattern for the whole would search from each beginning to the end.
    """
    for letters in _TOKEN_LETTERS.finditer(text):
        at = letters.start()
        first, *others = letters.group().split(".")
        for second in others[:-1]:
            end = at + len(first)
            if len(second) >= _SHORTEST_PART and _TOKEN_START.search(text, at, end):
                return True
            at, first = end + 1, second
    return False


def scrub(value: Any, name: str, removed: list[str]) -> Any:
    """A copy of JSON ``value`` without the entries that look like credentials.

    The names of what was taken out are appended to ``removed``, as paths below ``name``; a name
    that is itself a credential is not repeated.
    """
    if isinstance(value, dict):
        kept = {}
        for key, item in value.items():
            label = f"{name}.{key}"
            if isinstance(key, str) and looks_secret(key):
                removed.append(f"a key of {name}")
            elif isinstance(item, str) and looks_secret(item):
                removed.append(label)
            else:
                kept[key] = scrub(item, label, removed)
        return kept
    if isinstance(value, (list, tuple)):
        items = []
        for index, item in enumerate(value):
            label = f"{name}[{index}]"
            if isinstance(item, str) and looks_secret(item):
                removed.append(label)
            else:
                items.append(scrub(item, label, removed))
        return items
    return value


def show(value: object, limit: int = 60) -> str:
    """``repr(value)`` for a message: short, on one line, and without anything that looks secret."""
    try:
        text = repr(value)
    except Exception:
        # The caller's own __repr__ is broken; the type still helps to find the line.
        text = f"<{type(value).__name__}>"
    if looks_secret(text):
        return f"<{type(value).__name__} that looks like a credential>"
    text = clean(text, limit)
    return text if len(text) < limit else f"{text}…"


def clean(text: str, limit: int = 200) -> str:
    """Foreign text made safe for a log line: printable, on one line, at most ``limit`` long."""
    return "".join(c if c.isprintable() else " " for c in text[:limit]).strip()
