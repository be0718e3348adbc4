"""Where the commands send to: the endpoint and the key of the environment, and a patient sender."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from doow_serverless._config import (
    API_KEY_VARIABLE,
    ENDPOINT_VARIABLE,
    KEY_REMEDY,
    NO_ENDPOINT,
    NO_KEY,
    NOT_SENT,
    Config,
)
from doow_serverless._delivery.credentials import Credentials
from doow_serverless._delivery.sender import Sender
from doow_serverless._delivery.transport import HttpTransport
from doow_serverless.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

ALL_DELIVERED = 0
INCOMPLETE = 1
"""All was tried, and something was damaged, malformed, rejected, or could not be read."""
UNUSABLE = 2
"""Wrong arguments, or a configuration that cannot be used."""
NOT_DELIVERED = 3
"""The server did not decide on everything in the time given."""
INTERRUPTED = 130


def checked_config(*, needs_key: bool = True) -> tuple[Config, str]:
    """The configuration and its endpoint; what a function would do without is an error.

    Raises:
        ConfigurationError: The key is missing, or it or the endpoint cannot be used.
    """
    config = Config()
    needed = {ENDPOINT_VARIABLE, API_KEY_VARIABLE} if needs_key else {ENDPOINT_VARIABLE}
    for variable, problem in config.problems:
        if variable in needed:
            raise ConfigurationError(problem.removesuffix(NOT_SENT))
    if config.endpoint is None:
        raise ConfigurationError(NO_ENDPOINT)
    if not config.has_key and needs_key:
        raise ConfigurationError(f"{NO_KEY}: {KEY_REMEDY}")
    return config, config.endpoint


@contextmanager
def sending(config: Config, endpoint: str) -> Iterator[Sender]:
    """What makes the attempts; answers that drip are cut off, which no timeout of a socket does."""
    transport = HttpTransport(endpoint, timeout_s=config.timeout_s, ca_bundle=config.ca_bundle)
    is_over = threading.Event()

    def reap() -> None:
        while not is_over.wait(1.0):
            transport.abort()

    threading.Thread(target=reap, daemon=True).start()
    try:
        yield Sender(lambda: transport, Credentials(config.api_key, config.key_place))
    finally:
        is_over.set()
