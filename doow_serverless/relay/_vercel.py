"""The relay for Vercel: what a log drain posts, signed."""

from __future__ import annotations

import hmac
import os
from typing import Any

from doow_serverless._frames.envelopes import from_vercel
from doow_serverless._keeping.dead_letters import DeadLetters
from doow_serverless._redaction import show
from doow_serverless.errors import ConfigurationError

from ._relay import Undelivered, shared

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from doow_serverless._frames.assembly import DeadLetter

LIMIT_S = 8.0
"""Seconds that a delivery may take: a drain does not wait for long."""
MAX_BODY = 16 * 1024 * 1024
"""Bytes of a request."""


class VercelDrain:
    """A WSGI application that a log drain of Vercel posts to, and that brings the frames to Doow.

    It answers 200 only if all batches are delivered or kept; 403 if the signature is not Vercel's;
    503 if Doow did not decide in time, so that the drain comes again. GET and HEAD, by which Vercel
    verifies an endpoint, are answered if ``verify`` is given.
    https://vercel.com/docs/drains/security

    Args:
        secret: The drain's signature secret.
        keep: A directory for what cannot be delivered in time: the drain is answered 200 then, and
            ``doow-serverless replay`` reads it. Default: nothing is kept.
        verify: The value of ``x-vercel-verify`` that Vercel shows when the drain is set up.

    Raises:
        ConfigurationError: The secret is empty.
    """

    def __init__(
        self,
        secret: str,
        *,
        keep: str | os.PathLike[str] | None = None,
        verify: str | None = None,
    ) -> None:
        if not secret or not secret.strip():
            raise ConfigurationError(
                f"secret must be the signature secret of the drain (Vercel: Settings, Drains), "
                f"not {show(secret)}"
            )
        self._secret = secret.encode()
        self._letters = None if keep is None else DeadLetters(os.fspath(keep))
        self._headers = [("Content-Type", "text/plain; charset=utf-8")]
        self._verify = verify
        if verify:
            self._headers.append(("x-vercel-verify", verify))

    def __repr__(self) -> str:
        return f"VercelDrain({self._letters!r})"

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer a request, as WSGI has it."""
        status, said = self._answer(environ)
        body = f"{said}\n".encode()
        start_response(status, [*self._headers, ("Content-Length", str(len(body)))])
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [body]

    def _answer(self, environ: dict[str, Any]) -> tuple[str, str]:
        method = environ.get("REQUEST_METHOD")
        if method in {"GET", "HEAD"} and self._verify:
            return "200 OK", "verified"  # It reads the header, and knows nothing else.
        if method != "POST":
            return "405 Method Not Allowed", "a drain posts"
        try:
            length = int(environ.get("CONTENT_LENGTH") or 0)
        except ValueError:
            length = -1
        if length < 0 or "HTTP_TRANSFER_ENCODING" in environ:
            return "411 Length Required", "how long is it?"
        if length > MAX_BODY:
            return "413 Content Too Large", f"at most {MAX_BODY} bytes"
        body = environ["wsgi.input"].read(length)
        if not self._is_signed(body, environ.get("HTTP_X_VERCEL_SIGNATURE", "")):
            return "403 Forbidden", "the signature is wrong"
        return self._deliver(body)

    def _is_signed(self, body: bytes, signature: str) -> bool:
        # SHA-1 is Vercel's choice; what is known against it does not touch HMAC.
        expected = hmac.new(self._secret, body, "sha1").hexdigest()
        return hmac.compare_digest(expected.encode(), signature.strip().lower().encode())

    def _deliver(self, body: bytes) -> tuple[str, str]:
        relay = shared()
        intake = relay.intake()
        joined = relay.join(intake.read(from_vercel(body)))
        intake.report()
        relay.report_incomplete(joined.new)
        try:
            relay.deliver([letter.batch for letter in joined.letters], LIMIT_S)
        except Undelivered as problem:
            if self._letters is None:
                return "503 Service Unavailable", "Doow did not decide"
            self._keep([one for one in joined.letters if one.batch.id in problem.batch_ids])
        return "200 OK", "done"

    def _keep(self, letters: list[DeadLetter]) -> None:
        assert self._letters is not None
        for letter in letters:
            self._letters.write(letter.batch, letter.reason)
        self._letters.wait(LIMIT_S)
