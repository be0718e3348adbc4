"""Cuts JSON documents out of text that comes piece by piece: pretty-printed, or side by side.

A document is parsed when it is whole. Until then a small automaton follows its tokens, so that text
which is no JSON is given up at the first token that no document can have there.
"""

from __future__ import annotations

import json
import re
from typing import Any

from doow_serverless._frames.unpacking import next_json, restore_quotes

from .export_bytes import Unreadable

LONGEST_DOCUMENT = 256 * 1024 * 1024
"""Characters of one document, which is held in memory as a whole."""
_DEEPEST = 500
# json raises RecursionError a little beyond.
_STRING = r'"[^"\\\n]*(?:\\.[^"\\\n]*)*"'
_TOKEN = re.compile(rf'[ \t\r\n]*(?:([{{}}\[\],:])|({_STRING})|(")|([-+.0-9A-Za-z]+))')
_REST_OF_STRING = re.compile(r'[^"\\\n]*(?:\\.[^"\\\n]*)*')
_SPACE = re.compile(r"[ \t\r\n]*")
_SCALAR = re.compile(r"-?[0-9][-+.0-9eE]*|true|false|null")
_LONGEST_SCALAR = 64
_FOLLOWERS = {"^": "{[", "{": "v}", "{,": "v", "[": "v{[]", ",": "v{[", ":": "v{[", "v": ",:}]"}
# Tokens that may follow one another: v is a value that is complete, ^ the beginning, and {, the
# comma of an object.
_PARTNER = {"}": "{", "]": "["}
_DECODER = json.JSONDecoder()


class NoDocument(Exception):
    """The text is no JSON."""


def parsed(text: str) -> Any:
    """Return the value of a JSON document.

    Raises:
        NoDocument: It is none, or nested too deeply.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise NoDocument from None


def values_in(line: str) -> list[tuple[Any, str]] | None:
    """Return the documents side by side in ``line`` with their text; None if it is not all JSON.

    Azure's hosts on Linux write objects with single quotes into records of a function app.
    """
    found: list[tuple[Any, str]] = []
    at = 0
    try:
        while at < len(line):
            value, end = _DECODER.raw_decode(line, at)
            found.append((value, line[at:end]))
            space = _SPACE.match(line, end)
            at = space.end() if space else end
    except (ValueError, RecursionError):
        return _requoted(line) if "{'" in line else None
    return found


def _requoted(line: str) -> list[tuple[Any, str]] | None:
    restored = restore_quotes(line)
    try:
        value, end = next_json(restored, 0, unique_names=True)
    except ValueError:
        return None
    return [(value, line)] if end == len(restored) else None


class Documents:
    """Cuts a text into documents; lines end with a newline, and pieces may end anywhere."""

    def __init__(self) -> None:
        self._held: list[str] = []
        self._size = 0
        self._open: list[str] = []
        self._last = "^"
        self._in_string = False
        self._is_escaped = False
        self._carried = ""

    @property
    def is_open(self) -> bool:
        """Whether a document has begun and not ended."""
        return bool(self._open)

    def held(self) -> str:
        """Return the text of the document that has not ended."""
        return "".join(self._held) + self._carried

    def feed(self, piece: str) -> list[str]:
        """Take in ``piece``; return the texts of the documents that it completes.

        Raises:
            NoDocument: The text is no JSON. ``held()`` is as it was before ``piece``.
            Unreadable: A document is too long.
        """
        text, at, start = self._carried + piece, 0, 0
        held, carried, done = self._held, "", []
        while at < len(text):
            if self._in_string:
                at = self._end_of_string(text, at)
                continue
            token = _TOKEN.match(text, at)
            if token is None:
                if not text[at:].isspace():
                    raise NoDocument
                break
            if token.end() == len(text) and token[4]:
                carried = text[at:]  # A number or a word that may go on.
                if len(carried.strip()) > _LONGEST_SCALAR:
                    raise NoDocument
                break
            self._step(token)
            at = token.end()
            if not self._open:
                done.append("".join((*held, text[start:at])))
                held, self._size, self._last, start = [], 0, "^", at
        self._held, self._carried = held, carried
        if self._open:
            self._hold(text[start : len(text) - len(carried)])
        return done

    def _hold(self, text: str) -> None:
        self._size += len(text)
        if self._size > LONGEST_DOCUMENT:
            size = LONGEST_DOCUMENT // (1024 * 1024)
            raise Unreadable(f"a JSON document of more than {size} MB: export in smaller files")
        self._held.append(text)

    def _step(self, token: re.Match[str]) -> None:
        mark = token[1] or "v"
        if mark not in _FOLLOWERS[self._last] or (token[4] and not _SCALAR.fullmatch(token[4])):
            raise NoDocument
        self._last = mark
        if mark in "{[":
            if len(self._open) >= _DEEPEST:
                raise NoDocument
            self._open.append(mark)
        elif mark in "}]":
            if self._open.pop() != _PARTNER[mark]:
                raise NoDocument
            self._last = "v"
        elif mark == "," and self._open[-1] == "{":
            self._last = "{,"
        self._in_string = token[3] is not None

    def _end_of_string(self, text: str, at: int) -> int:
        """Return where the string ends that was open at the end of the piece before, or goes on."""
        if self._is_escaped and text[at] != "\n":
            at, self._is_escaped = at + 1, False
        rest = _REST_OF_STRING.match(text, at)
        at = rest.end() if rest else at
        if text[at : at + 1] == '"':
            self._in_string = False
            return at + 1
        if at >= len(text):
            return at
        if at == len(text) - 1 and text[at] == "\\":
            self._is_escaped = True
            return at + 1
        raise NoDocument  # A string holds no newline.
