"""What ``doctor`` asks of the environment and of Doow: key, name, TLS, clock, and one event."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import certifi
from requests.utils import get_environ_proxies

from doow_serverless._config import (
    API_KEY_VARIABLE,
    ENDPOINT_VARIABLE,
    KEY_REMEDY,
    NO_KEY,
    Config,
)
from doow_serverless._delivery.answers import describe, rejections
from doow_serverless._delivery.credentials import Credentials
from doow_serverless._delivery.transport import HttpTransport
from doow_serverless._frames.keys import LogKey
from doow_serverless._sealing import seal
from doow_serverless.errors import DoowError, InvalidEvent

from .doctor_check import Check
from .event_lines import Events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from doow_serverless._delivery.answers import Answer

LIMIT_S = 10.0
"""Seconds for which one question to the network may stay without an answer."""
LARGEST_SKEW_S = 60.0
_PLATFORMS = {
    "AWS_LAMBDA_FUNCTION_NAME": "AWS Lambda",
    "VERCEL": "Vercel",
    "FUNCTIONS_WORKER_RUNTIME": "Azure Functions",
}
"""Variables that a platform sets, and its name."""


def service_checks(metric: str, license_id: str | None, *, is_event_sent: bool) -> Iterator[Check]:
    """From the environment outwards; what cannot be reached ends the way there.

    Args:
        metric: The metric of the test event.
        license_id: Its license. Default: that of the environment.
        is_event_sent: Whether one is sent.
    """
    config = Config()
    yield _platform()
    yield from _log_key(config)
    if config.delivery == "log":
        said = "by the log, for a relay: neither an API key nor the way to Doow is needed here"
        yield Check("delivery", True, said)
        yield from _variables(config)
        return
    key, check = _key(config)
    yield check
    yield from _variables(config)
    for check in _way(config):
        yield check
        if not check.ok:
            return
    if key is not None and config.endpoint is not None:
        transport = HttpTransport(config.endpoint, timeout_s=LIMIT_S, ca_bundle=config.ca_bundle)
        yield from _service(transport, key)
        if is_event_sent:
            yield _event(transport, key, config, metric, license_id)


def _platform() -> Check:
    here = [name for variable, name in _PLATFORMS.items() if variable in os.environ]
    return Check("platform", True, here[0] if here else "none: this is no function's environment")


def _key(config: Config) -> tuple[str | None, Check]:
    """The key, if there is one, and where it comes from."""
    if config.api_key is not None:
        return config.api_key, Check("key", True, f"well-formed, from {API_KEY_VARIABLE}")
    if config.key_place is not None:
        variable, place = config.key_place
        try:
            key = _within(LIMIT_S, partial(_fetched, Credentials(None, config.key_place)))
        except DoowError as problem:
            remedy = "see that the secret is there, and that this identity may read it"
            return None, Check("key", False, str(problem), remedy)
        return key, Check("key", True, f"well-formed, read from {place} ({variable})")
    said = [problem for name, problem in config.problems if name in {API_KEY_VARIABLE, "api_key"}]
    return None, Check("key", False, said[0].partition(":")[0] if said else NO_KEY, KEY_REMEDY)


def _variables(config: Config) -> Iterator[Check]:
    """What the other variables say that cannot be understood."""
    for variable, problem in config.problems:
        if variable not in {API_KEY_VARIABLE, ENDPOINT_VARIABLE, "api_key"}:
            yield Check("variable", False, problem, f"correct {variable}, or remove it")


def _log_key(config: Config) -> Iterator[Check]:
    """The key that signs what is written to the log, if there is one."""
    log_key = LogKey.of(config)
    if not log_key.is_configured:
        return
    try:
        keys = _within(LIMIT_S, log_key.verifying_keys)
    except DoowError as problem:
        said, _, remedy = str(problem).rpartition(": ")
        yield Check("log key", False, said or str(problem), remedy)
        return
    where = "" if config.log_key_place is None else f", read from {config.log_key_place[1]}"
    more = f"; {len(keys) - 1} more accepted when reading" if len(keys) > 1 else ""
    yield Check("log key", True, f"lines of the log are signed{where}{more}")


def _fetched(credentials: Credentials) -> str:
    with suppress(Exception):
        credentials.load()  # What is wrong, says the next line.
    return credentials.current(LIMIT_S / 2)  # Its own error names the place.


def _way(config: Config) -> Iterator[Check]:
    """From the endpoint's name to a connection."""
    if config.endpoint is None:
        said = next(problem for name, problem in config.problems if name == ENDPOINT_VARIABLE)
        yield Check("endpoint", False, said, f"correct {ENDPOINT_VARIABLE}, or remove it")
        return
    parts = urlsplit(config.endpoint)
    host, is_secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if is_secure else 80)
    proxies = get_environ_proxies(config.endpoint) if is_secure else {}
    if proxies:
        yield Check("endpoint", True, f"{config.endpoint}, by the proxy of the environment")
        return
    try:
        found = _within(LIMIT_S, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except DoowError as problem:
        remedy = "see the name in DOOW_TRACK_ENDPOINT, and whether this network resolves it"
        yield Check("endpoint", False, f"{host} does not resolve ({problem})", remedy)
        return
    yield Check("endpoint", True, f"{config.endpoint} is at {found[0][4][0]}")
    if is_secure:
        yield _tls(host, port, config.ca_bundle)


def _tls(host: str, port: int, ca_bundle: str | None) -> Check:
    bundle = ca_bundle or certifi.where()
    is_folder = os.path.isdir(bundle)
    context = ssl.create_default_context(
        cafile=None if is_folder else bundle, capath=bundle if is_folder else None
    )

    def greet() -> str:
        with (
            socket.create_connection((host, port), LIMIT_S) as raw,
            context.wrap_socket(raw, server_hostname=host) as secured,
        ):
            return secured.version() or "TLS"

    try:
        return Check("TLS", True, f"{_within(LIMIT_S, greet)}, the certificate is trusted")
    except DoowError as problem:
        remedy = (
            "behind a proxy that breaks TLS open, name its certificate in REQUESTS_CA_BUNDLE; "
            "else see that this network lets port 443 through"
        )
        return Check("TLS", False, str(problem), remedy)


def _service(transport: HttpTransport, key: str) -> Iterator[Check]:
    """What Doow says to the key, and what its clock says to ours."""
    try:
        answer = _within(LIMIT_S, lambda: transport.heartbeat(key))
    except DoowError as problem:
        remedy = "see that this network lets requests through; doow.co tells of outages"
        yield Check("heartbeat", False, str(problem), remedy)
        return
    yield _clock(answer)
    if 200 <= answer.status < 300:
        yield Check("heartbeat", True, "the key is known")
    else:
        remedy = KEY_REMEDY if answer.status in {401, 403} else "try again in a while"
        yield Check("heartbeat", False, describe(answer), remedy)


def _clock(answer: Answer) -> Check:
    try:
        theirs = parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return Check("clock", True, "the answer has no date to compare with")
    skew_s = time.time() - theirs
    if abs(skew_s) <= LARGEST_SKEW_S:
        return Check("clock", True, f"within {abs(skew_s):.0f} s of Doow's")
    where = "ahead of" if skew_s > 0 else "behind"
    detail = f"{abs(skew_s):,.0f} s {where} Doow's: events would count at the wrong time"
    return Check("clock", False, detail, "set this machine's clock, or have it synchronized")


def _event(
    transport: HttpTransport, key: str, config: Config, metric: str, license_id: str | None
) -> Check:
    """One test event, of quantity 1."""
    events = Events(config)
    try:
        events.add({"metric": metric, "license_id": license_id, "attribution": {"test": "doctor"}})
    except InvalidEvent as problem:
        remedy = "say --metric and --license-id, or --no-send to leave the event out"
        return Check("event", False, str(problem), remedy)
    [batch] = seal(events.take())
    try:
        answer = _within(LIMIT_S, lambda: transport.post(batch, key))
    except DoowError as problem:
        return Check("event", False, str(problem), "try again in a while")
    license_id = license_id or config.license_id
    refused = rejections(answer, batch.event_ids) if answer.status == 207 else []
    if 200 <= answer.status < 300 and not refused:
        return Check("event", True, f"{metric} for {license_id} was accepted")
    detail = refused[0][1] if refused else describe(answer)
    remedy = "say with --metric and --license-id what Doow knows" if refused else "see the answer"
    return Check("event", False, f"{metric} for {license_id} was not accepted: {detail}", remedy)


def _within(limit_s: float, ask: Callable[[], Any]) -> Any:
    """What ``ask`` returns, within so many seconds; whatever goes wrong, as a DoowError."""
    found: list[Any] = []

    def call() -> None:
        try:
            found.append(ask())
        except Exception as problem:
            found.append(problem)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(limit_s)
    if not found:
        raise DoowError(f"no answer in {limit_s:g} s")
    if isinstance(found[0], DoowError):
        raise found[0]
    if isinstance(found[0], Exception):
        problem = found[0]
        raise DoowError(
            getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
        )
    return found[0]
