"""Templates of events, made from fields as a test gives them."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from doow_serverless._recording.event import Defaults
from doow_serverless.errors import InvalidEvent


def shape(defaults: Defaults | None = None, **fields: Any) -> Any:
    """What is written of an event with these fields, decoded."""
    defaults = defaults or Defaults("lic_1", None, [])
    names = ("license_id", "unit", "attribution", "kind", "source_system", "hint")
    values = {"metric": "tokens", "kind": "USAGE", **fields}
    made = defaults.template(values["metric"], tuple(values.get(name) for name in names))  # type: ignore[arg-type]
    return json.loads("{" + made.before + "1" + made.after + "}", parse_float=Decimal)


def refusal(call: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(InvalidEvent) as caught:
        call(*args, **kwargs)
    assert caught.value.kind == "INVALID_EVENT"
    return str(caught.value)
