"""The sandbox of a Lambda function: AWS's runtime client, its Runtime API, and their deadline."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from doow_serverless.local import _cgroups
from doow_serverless.local._lambda_api import RuntimeApi
from doow_serverless.local._sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from doow_serverless.local._lambda_invocation import Turn
    from doow_serverless.local._output import Output


@dataclass(frozen=True)
class Limits:
    """What a sandbox may use: None for as much as the machine has.

    Attributes:
        memory_mb: Megabytes of memory.
        cpu_share: Of one core, from the first event on.
        init_cpu_share: Of one core, until then.
    """

    memory_mb: int | None = None
    cpu_share: float | None = None
    init_cpu_share: float | None = None


class LambdaSandbox(Sandbox):
    """One process and the Runtime API that only it talks to, from its start to its death.

    Args:
        output: Takes what the process writes.
        freezes: Whether the process stands still while it waits for an event.
        restored: Called where a snapshot of the process would be taken, while it stands still.
        limits: What holds it besides.

    Attributes:
        init_s: From the start until the first request for an event, in seconds.
    """

    def __init__(
        self,
        output: Output,
        *,
        freezes: bool,
        limits: Limits,
        restored: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(output)
        self._limits = limits
        self.init_s = 0.0
        self._freezes = freezes
        self._is_begun = False
        self._started_s = 0.0
        self._restored = restored
        self._api = RuntimeApi(
            on_idle=self._idle, on_change=self.notify, restore=self._freeze_for_snapshot
        )

    @property
    def init_error(self) -> dict[str, Any] | None:
        """The error document of a module that could not be imported."""
        return self._api.init_error

    def start(self, command: list[str], env: Mapping[str, str], directory: Path) -> None:
        """Start the process."""
        self._api.listen()
        self._started_s = time.monotonic()
        self.launch(command, {**env, "AWS_LAMBDA_RUNTIME_API": self._api.address}, directory)
        if self._limits.memory_mb is not None:
            self.confine(_cgroups.memory(self._limits.memory_mb))
        if self._limits.init_cpu_share is not None:
            self.confine(_cgroups.cpu_share(self._limits.init_cpu_share))
        # Only now, since the process may ask before this thread comes to know it.
        self._api.start()

    def await_init(self, limit_s: float) -> str | None:
        """Wait until the process asks for its first event, or tells an error of its init.

        Returns:
            Why it never will; such a process is dead by then.
        """
        if self.wait(lambda: self._api.is_polled, self._started_s + limit_s):
            return None
        too_slow = self.alive
        self.kill()
        if self.init_error is not None:
            return None
        return f"after {limit_s:g} s" if too_slow else self.state

    def run(self, turn: Turn) -> None:
        """Deliver ``turn``, enforce its deadline, and leave a process that waits, or none."""
        if self._limits.cpu_share is not None and not self._is_begun:
            self.confine(_cgroups.cpu_share(self._limits.cpu_share))
        self._is_begun = True
        turn.start()
        self.thaw()
        self._api.deliver(turn)
        self.wait(lambda: turn.answered_s is not None, turn.due_s)
        # Only the next request says that the process is done, and Lambda's deadline covers it.
        if not self.wait(lambda: self._api.is_polled, turn.due_s):
            timed_out = self.alive
            self.kill()
            if turn.answered_s is None:
                turn.fail(self._death(turn, timed_out=timed_out))
        self._api.withdraw()

    def close(self) -> None:
        """Kill the process, and stop serving it."""
        super().close()
        self._api.close()

    def _freeze_for_snapshot(self) -> None:
        """The process is ready for its snapshot: what goes on from there is that very process."""
        self.freeze()
        if self._restored is not None:
            self._restored()
        self.thaw()

    def _idle(self) -> None:
        """The process asks for an event, on the server's thread."""
        self.init_s = self.init_s or time.monotonic() - self._started_s
        if self._freezes:
            self.freeze()

    def _death(self, turn: Turn, *, timed_out: bool) -> dict[str, Any]:
        if timed_out:
            kind = "Sandbox.Timedout"
            reason = f"Task timed out after {turn.timeout_s:.2f} seconds"
        else:
            kind = "Runtime.ExitError"
            reason = f"Runtime exited with error: {self.state}"
        return {
            "errorType": kind,
            "errorMessage": f"RequestId: {turn.request_id} Error: {reason}",
        }
