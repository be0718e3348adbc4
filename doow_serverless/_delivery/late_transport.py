"""The transport of an outbox: given, or made at its first use, since that imports requests."""

from __future__ import annotations

import threading

from doow_serverless._config import NO_ENDPOINT
from doow_serverless.errors import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from doow_serverless._config import Config

    from .sender import Transport
    from .transport import HttpTransport


class LateTransport:
    """Has the transport at hand.

    Args:
        config: Where to send.
        given: Sends instead of HTTP.

    Attributes:
        loading: Held while it is made; a fork must not come in between.
    """

    def __init__(self, config: Config, given: Transport | None) -> None:
        self._config = config
        self._given = given
        self._http: HttpTransport | None = None
        self.loading = threading.Lock()

    def __repr__(self) -> str:
        return f"LateTransport({self._given or self._http!r})"

    @property
    def is_loaded(self) -> bool:
        """Whether it is at hand."""
        return bool(self._given or self._http)

    def loaded(self) -> Transport:
        """The transport; its first use may take long."""
        if self._given is not None:
            return self._given
        with self.loading:
            if self._http is None:
                from .transport import HttpTransport

                if self._config.endpoint is None:  # The breaker stays open: nobody should ask.
                    raise ConfigurationError(NO_ENDPOINT)
                self._http = HttpTransport(
                    self._config.endpoint,
                    timeout_s=self._config.timeout_s,
                    ca_bundle=self._config.ca_bundle,
                )
            return self._http

    def close_idle(self) -> None:
        """Close the connections that are kept, if any are; no locks are taken."""
        if self._http is not None:
            self._http.close_idle()
