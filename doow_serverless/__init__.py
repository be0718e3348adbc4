"""Usage events reach Doow before a serverless function returns.

import doow_serverless as doow

@doow.tracked
def handler(event, context):
    doow.track("tokens", 812, license_id="lic_acme", unit="tokens")
    return {"statusCode": 200}
"""

from __future__ import annotations

from . import errors
from ._outcome import Outcome
from ._tracker import Current as _Current
from ._tracker import Tracker, configure
from ._version import __version__

__all__ = [
    "Outcome",
    "Tracker",
    "__version__",
    "aflush",
    "configure",
    "errors",
    "flush",
    "track",
    "track_all",
    "track_llm",
    "tracked",
    "transaction",
]

_current = _Current()
track = _current.track
track_all = _current.track_all
track_llm = _current.track_llm
tracked = _current.tracked
transaction = _current.transaction
flush = _current.flush
aflush = _current.aflush
