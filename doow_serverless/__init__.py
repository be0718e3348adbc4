"""Usage events reach Doow before a serverless function returns.

import doow_serverless as doow

@doow.tracked
def handler(event, context):
    doow.track("tokens", 812, license_id="lic_acme", unit="tokens")
    return {"statusCode": 200}
"""

from __future__ import annotations

from . import errors
from ._delivery.credentials import sources as _sources
from ._engine import Tracker
from ._handlers import platform as _platform
from ._outcome import Outcome
from ._platforms import aws as _aws
from ._platforms import azure as _azure
from ._platforms import vercel as _vercel
from ._tracker import Current as _Current
from ._tracker import configure
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
    "tracked",
    "transaction",
]

_platform.deadlines += (_aws.find_deadline, _azure.find_deadline, _vercel.find_deadline)
_platform.identities += (_aws.find_identity, _azure.find_identity, _vercel.find_identity)
_platform.after_response.append(_vercel.after_response)
_platform.preparations.append(_azure.prepare)
_platform.adapters["http.server.BaseHTTPRequestHandler"] = _vercel.adapt
_platform.adapters[_azure.BUILDER] = _azure.adapt
_platform.adapters[_azure.REGISTRY] = _azure.refuse_app
_platform.protocols["asgi"] = f"{__name__}.asgi"
_platform.protocols["wsgi"] = f"{__name__}.wsgi"
_sources["DOOW_TRACK_API_KEY_SECRET_ARN"] = _aws.secret
_sources["DOOW_TRACK_API_KEY_SSM_PARAMETER"] = _aws.parameter

_current = _Current()
track = _current.track
track_all = _current.track_all
tracked = _current.tracked
transaction = _current.transaction
flush = _current.flush
aflush = _current.aflush
