"""Delivery by log: a batch is written to standard output, and that is all there is to be done.

No network and nothing to wait for: a relay reads the log, and brings it to Doow. Only a log key
that is kept elsewhere is waited for, and not for long.
"""

from __future__ import annotations

import time
from typing import Any

from doow_serverless._frames.format import BY_LOG, frames_of
from doow_serverless._frames.stdout import StandardOutput
from doow_serverless._redaction import show
from doow_serverless.errors import DoowError, ErrorKind

from .results import Failed, Settled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from doow_serverless._config import Config
    from doow_serverless._frames.keys import LogKey
    from doow_serverless._process.clock import Clock
    from doow_serverless._sealing import Batch

    from .results import Result


class LogSender:
    """Does for the log what `Sender` does for the network, with the same methods.

    A pipe that takes no lines is silent, as a server may be, and treated as one is: a flush waits
    no longer than its budget, and the batch is kept until its lines are out.

    Args:
        config: How long a line may be, and of which level.
        log_key: Signs the lines.
        wall_clock: Unix seconds.
    """

    is_ready = False
    reuses_connection = staticmethod(bool)

    def __init__(self, config: Config, log_key: LogKey, wall_clock: Clock = time.time) -> None:
        self._log_key = log_key
        self._output = StandardOutput()
        self._limit = config.record_limit
        self._least_level = config.least_level
        self._wall_clock = wall_clock

    def __repr__(self) -> str:
        return f"LogSender({self._output!r})"

    def connect(self) -> None:
        """There is nothing to connect to."""

    def prepare(self) -> Failed | None:
        """Wait for the log key if that is needed; return why it is missing.

        Then nothing is written, since a relay would refuse it: the batch stays in the backlog.
        """
        try:
            self._log_key.prepare()
        except DoowError as problem:
            return self._unsigned(str(problem))
        return None

    def _unsigned(self, why: str) -> Failed:
        said = f"{why}, and nothing is written unsigned"
        return Failed(ErrorKind.AUTH_FAILURE, said, hold_s=0.0)

    def abort(self, _batch_id: str) -> None:
        """A write cannot be cut off: once the pipe takes it, it is done."""

    def send(self, batch: Batch, *, reason: ErrorKind | str = BY_LOG, **_: Any) -> Result:
        """Write ``batch``; blocks. Never raises an Exception.

        Args:
            batch: The batch.
            reason: Another one than LOG if its first frame was that of a dead letter.
        """
        if self._log_key.is_missing:
            return self._unsigned(self._log_key.trouble)
        try:
            records = frames_of(
                batch,
                reason,
                self._wall_clock(),
                limit=self._limit,
                least_level=self._least_level,
                key=self._log_key.signing_key(),
            )
            trouble = self._output.write(records)
        except Exception as problem:
            trouble = problem
        if trouble is None:
            return Settled(batch, ErrorKind.TRANSPORT_ERROR, "written to the log", [])
        said = f"the log cannot be written to: {show(trouble, 200)}"
        return Failed(ErrorKind.TRANSPORT_ERROR, said, hold_s=0.0)
