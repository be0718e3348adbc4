"""What the stand-ins for the platforms have in common: their life, and a hand on their process."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from doow_serverless.local._output import Output
from doow_serverless.local._sandbox import Sandbox

if TYPE_CHECKING:
    import signal

    from typing_extensions import Self

AnySandbox = TypeVar("AnySandbox", bound=Sandbox)


class Runtime(Generic[AnySandbox]):
    """A platform that runs a function in a sandbox, within its ``with`` block.

    A subclass starts its process in :meth:`_start`, and keeps the newest one in ``_sandbox``.
    """

    _error_type: ClassVar[type[RuntimeError]] = RuntimeError

    def __init__(self) -> None:
        self._output = Output()
        self._sandbox: AnySandbox | None = None

    def __enter__(self) -> Self:
        self._output.open()
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Kill the process, frozen or not, and stop serving."""
        if self._sandbox is not None:
            self._sandbox.close()
        self._output.close()

    @property
    def stdout(self) -> str:
        """Everything written so far to standard output and standard error, by every process."""
        return self._output.text()

    @property
    def pid(self) -> int:
        """The newest process, which may have ended."""
        return self._current().pid

    def kill(self) -> None:
        """SIGKILL, as when the platform recycles a sandbox, and wait for the end."""
        self._current().kill()

    @property
    def alive(self) -> bool:
        """Whether the newest process runs, or is frozen."""
        return self._sandbox is not None and self._sandbox.alive

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the process and its children; a frozen one hears it once it is thawed."""
        self._current().send_signal(number)

    def freeze(self) -> None:
        """SIGSTOP: no thread of the function runs until :meth:`thaw`, or the next invocation."""
        self._current().freeze()

    def thaw(self) -> None:
        """SIGCONT: the function runs on, until the next invocation is over."""
        self._current().thaw()

    def _current(self) -> AnySandbox:
        if self._sandbox is None:
            name = type(self).__name__
            raise self._error_type(f"not started: use {name} as a context manager")
        return self._sandbox
