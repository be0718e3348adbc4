"""The transport of an outbox: given, or HTTP, whose imports a thread of the application makes.

No thread of this library imports modules that the application may be importing at the same time.
If two threads import parts of one package in different orders, they wait for each other, and
CPython resolves the deadlock by handing one of them half a module. Then the application's own
``import requests`` fails.
https://github.com/python/cpython/blob/main/Lib/importlib/_bootstrap.py (_DeadlockError)
"""

from __future__ import annotations

import threading

from doow_serverless._config import NO_ENDPOINT
from doow_serverless._process.whole_imports import whole
from doow_serverless._redaction import show
from doow_serverless.errors import ConfigurationError, DoowError, ErrorKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from doow_serverless._config import Config

    from .sender import Transport
    from .transport import HttpTransport

NOT_IMPORTED = (
    "nothing can be sent yet, since requests is not imported: the first flush imports it; leave "
    "warm_up on, or call doow.configure() while your module loads"
)
_PACKAGES = [
    "requests",
    "urllib3",
    "certifi",
    "charset_normalizer",
    "chardet",
    "idna",
    "simplejson",
]
"""The packages that are imported with requests, if they are installed."""
_http_transport: type[HttpTransport] | None = None
"""Set once its module, and with it requests, is imported; a forked child inherits it."""


class LateTransport:
    """Makes the transport when it is needed.

    Args:
        config: Where to send.
        given: Sends instead of HTTP.

    Attributes:
        loading: Held while requests is imported. A fork waits for it: the child would find the
            module locked by a thread that it does not have.
    """

    def __init__(self, config: Config, given: Transport | None) -> None:
        self._config = config
        self._given = given
        self._http: HttpTransport | None = None
        self._trouble: str = NOT_IMPORTED
        self._making = threading.Lock()
        self.loading = threading.Lock()

    def __repr__(self) -> str:
        return f"LateTransport({self._given or self._http!r})"

    @property
    def is_loaded(self) -> bool:
        """Whether the transport has been given or made."""
        return bool(self._given or self._http)

    def load(self) -> None:
        """Import requests and make the transport. Only for threads of the application.

        Raises:
            Exception: That fails; :meth:`loaded` will say why.
        """
        if self._given is not None:
            import email.utils  # noqa: F401  # It reads the dates of answers; requests has it.

            return
        try:
            with self.loading:
                http_transport()
        except Exception as problem:
            self._trouble = f"the HTTP transport cannot be imported: {show(problem, 200)}"
            raise
        self.loaded()

    def loaded(self) -> Transport:
        """Return the transport; the first call reads certificates. Imports nothing.

        Raises:
            DoowError: The imports have not been made.
        """
        if self._given is not None:
            return self._given
        with self._making:
            if self._http is None:
                if self._config.endpoint is None:  # The breaker stays open: nobody should ask.
                    raise ConfigurationError(NO_ENDPOINT)
                if _http_transport is None:
                    raise DoowError(self._trouble, ErrorKind.NOT_READY)
                self._http = _http_transport(
                    self._config.endpoint,
                    timeout_s=self._config.timeout_s,
                    ca_bundle=self._config.ca_bundle,
                )
            return self._http

    def close_idle(self) -> None:
        """Close the connections that are kept, if any are; no locks are taken."""
        if self._http is not None:
            self._http.close_idle()


def http_transport() -> type[HttpTransport]:
    """Return the transport that speaks HTTP; the first call imports requests, as a whole."""
    global _http_transport
    if _http_transport is None:
        with whole(*_PACKAGES):
            from .transport import HttpTransport
        _http_transport = HttpTransport
    return _http_transport
