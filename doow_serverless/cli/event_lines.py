"""Lines of JSON become events: as Doow's own command line takes them, checked as ``track`` does."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from doow_serverless._recording.buffer import Buffer
from doow_serverless._recording.event import Defaults
from doow_serverless._recording.scope import Life, Scope
from doow_serverless._redaction import show
from doow_serverless.errors import InvalidEvent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from doow_serverless._config import Config
    from doow_serverless._recording.event import Event
    from doow_serverless._recording.rules import LeftOut

MAX_LINE_BYTES = 1024 * 1024
"""Of a line; as Doow's own."""
_LABELS = ("license_id", "unit", "attribution", "kind", "source_system", "metric_tuple_hint")
_FIELDS = {"metric", "quantity", "metadata", "timestamp", "event_id", *_LABELS}


class Events:
    """Takes events until they are to be sent.

    Args:
        config: License and attribution of events that name none.

    Attributes:
        left_out: What was left out of events that go on without it, until it is told.
        ignored: Names of fields that mean nothing here.
    """

    def __init__(self, config: Config) -> None:
        self.left_out: list[LeftOut] = []
        self.ignored: set[str] = set()
        remedy = "give it, or set DOOW_TRACK_LICENSE_ID"
        defaults = Defaults(config.license_id, config.attribution, self.left_out, remedy=remedy)
        self._buffer = Buffer(10**9)
        self._scope = Scope(_Strict(self._buffer, defaults), self._buffer, defaults, None, Life())

    def add_line(self, line: bytes) -> None:
        """Take the event of a line.

        Raises:
            InvalidEvent: It is no JSON object, or breaks a rule of events.
        """
        if len(line) > MAX_LINE_BYTES:
            raise InvalidEvent(f"longer than {MAX_LINE_BYTES:,} bytes")
        try:
            fields = json.loads(
                line.decode("utf-8-sig"), parse_float=Decimal, parse_constant=_no_constant
            )
        except UnicodeDecodeError:
            raise InvalidEvent("not UTF-8") from None
        except (ValueError, ArithmeticError, RecursionError) as problem:
            raise InvalidEvent(f"not JSON ({problem})") from None
        if not isinstance(fields, dict):
            raise InvalidEvent(f"not a JSON object, but {show(fields)}")
        self.add(fields)

    def add(self, fields: Mapping[str, Any]) -> None:
        """Take an event whose fields are those of ``track``; a null is as if it were not there.

        Raises:
            InvalidEvent: It breaks a rule of events.
        """
        said = {name: value for name, value in fields.items() if value is not None}
        self.ignored.update(map(str, said.keys() - _FIELDS))
        if "metric" not in said:
            raise InvalidEvent("metric is missing")
        labels: Any = (*(said.get(name) for name in _LABELS[:3]), said.get("kind", "USAGE"),
                       said.get("source_system"), said.get("metric_tuple_hint"))  # fmt: skip
        self._scope.record(
            said["metric"],
            said.get("quantity", 1),
            labels,
            said.get("metadata"),
            said.get("timestamp"),
            said.get("event_id"),
        )

    @property
    def waiting(self) -> int:
        """How many were taken, and are to be sent."""
        return self._buffer.in_hand

    def take(self) -> list[Event]:
        """All that were taken, once."""
        events = self._buffer.take()
        self._buffer.count(-len(events))
        return events


class _Strict:
    """What recording asks of an engine: refuses by raising, and keeps everything."""

    enabled = strict = True
    flush_at = 10**9

    def __init__(self, buffer: Buffer, defaults: Defaults) -> None:
        self.unattended = buffer
        self.defaults = defaults

    @property
    def outside(self) -> Any:
        return None

    def send_early(self, buffer: Buffer) -> None:
        pass

    def end_transaction(self, transaction: Buffer, *, discard: bool) -> None:
        pass

    def refuse(self, problem: InvalidEvent, event_id: object) -> None:  # noqa: ARG002
        raise problem

    def report_removed(self, left_out: list[LeftOut]) -> None:
        pass  # The command tells it, with the line.


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no number of JSON")
