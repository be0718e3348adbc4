"""The end of the process: one last bounded flush, at SIGTERM and when the interpreter exits.

Lambda sends SIGTERM only where an extension is registered; Azure kills its workers outright; Vercel
sends it, and does not let the interpreter exit in an orderly way, so that only the signal is heard.
"""

from __future__ import annotations

import _thread
import atexit
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from types import BuiltinFunctionType

from .clock import Budget
from .forks import members, reset_in_child
from .log import report_fault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

SIGTERM_LIMIT_S = 0.25
"""Seconds for the last flush at SIGTERM: Lambda grants 300 ms, Vercel 500 ms."""
EXIT_LIMIT_S = 2.0
"""Seconds for the last flush when the interpreter exits."""
_PATIENCE_S = 1.0
"""Seconds that writing down may take beyond that, where a platform grants them."""
_PAUSE_S = 0.001
_LONGEST_PAUSE_S = 0.05
_MAX_TRIES = 100
_ECHO_S = 1.0
"""Seconds within which a signal that comes after all is over is still one of our own."""
_WITH_LOCKS = tuple(
    f"doow_serverless.{room}" for room in ("_recording.buffer", "_delivery", "_keeping", "_process")
)
"""Modules whose code holds locks; those that call handlers are others."""

_is_installed = False
_is_listening = False
_serves = False
"""Whether an invocation has begun on the main thread of this process."""
_is_passing = False
"""Whether the application is being passed a signal: its handler may call the one it has found."""
_ending: _Ending | None = None
"""What a signal has begun."""
_knocked_at = float("-inf")
"""When a thread of ours has signalled last."""
_may_echo = False
"""Whether such a signal may still come, after the application has been passed its own."""
_masks: dict[int, Any] = {}
"""Of each thread that is just forking: the signals that it had blocked before."""


class _Ending:
    """What goes on between a signal and its passing on to the application.

    Attributes:
        is_delivered: Whether the last flush is over, but for what was recorded meanwhile.
        tries: How often the signal has found the main thread at work in this library.
        is_swept: Whether what was recorded during the last flush has had one of its own.
    """

    def __init__(self) -> None:
        self.is_delivered = False
        self.tries = 0
        self.is_swept = False
        self._patient_until = time.monotonic() + SIGTERM_LIMIT_S + _PATIENCE_S
        # Threads take turns where this library holds a lock, if they may not do so elsewhere.
        self._interval_s = sys.getswitchinterval()
        sys.setswitchinterval(_PAUSE_S / 100)

    def patience_s(self) -> float:
        """Seconds of patience that are left for writing down what came meanwhile."""
        return max(0.0, self._patient_until - time.monotonic())

    def end(self) -> None:
        """The signal is passed on."""
        sys.setswitchinterval(self._interval_s)


def install() -> None:
    """Have all members flush once more when the process ends.

    Once for the process. A handler of SIGTERM that is there already runs afterwards; so does one
    that the application sets later, if it does so before the first invocation.
    """
    global _is_installed
    if not _is_installed:
        _is_installed = True
        atexit.register(flush_at_exit)
        _guard_forks()
    if not _is_listening:
        _listen()


def serve() -> None:
    """Hear of SIGTERM again, since an invocation begins: servers set their handler before that."""
    global _serves
    if not _serves and _is_installed and threading.get_ident() == threading.main_thread().ident:
        _serves = True
        _listen()


def _listen() -> None:
    """Set our handler before the one that is there, unless it is ours."""
    global _is_listening
    # None is a handler that C code has set, which could not be called on.
    earlier = signal.getsignal(signal.SIGTERM)
    if earlier not in (None, signal.SIG_IGN) and not _is_set():
        # Only the main thread may set a handler: where another comes first, the next time counts.
        # That is asked of the system, since under eventlet `threading` knows no main thread.
        with suppress(ValueError):
            signal.signal(signal.SIGTERM, _Handler(earlier))
            _is_listening = True


def _is_set() -> bool:
    return isinstance(signal.getsignal(signal.SIGTERM), _Handler)


class _Handler:
    """Our handler of SIGTERM, and the one that it stands before.

    A server may set its own between two of ours, put the first of them back at its end, or call it:
    so each knows its own predecessor.

    Args:
        earlier: As `signal.getsignal` returns it.
    """

    def __init__(self, earlier: Any) -> None:
        self._earlier = earlier

    def __call__(self, number: int, frame: FrameType | None) -> None:
        global _is_passing
        if not _is_passing and not _is_delivered(number, frame):
            return
        was_passing, _is_passing = _is_passing, True
        try:
            if callable(self._earlier):
                self._earlier(number, frame)
            else:
                # The default ends the process, and tells its parent that it was this signal.
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
        finally:
            _is_passing = was_passing


def flush_at_exit() -> None:
    """Deliver what waits, or write it down: nothing of the application runs any more."""
    ends_at = time.monotonic() + SIGTERM_LIMIT_S + _PATIENCE_S
    while _ending is not None and time.monotonic() < ends_at:
        time.sleep(0.001)  # The signal comes again, and may end the process otherwise.
    if not _flush_within(EXIT_LIMIT_S, _PATIENCE_S):
        # CPython 3.12.0 and 3.12.1 start no threads at this stage. No lock can be held here.
        _flush(EXIT_LIMIT_S, _PATIENCE_S)


def _flush_within(limit_s: float, patience_s: float) -> bool:
    """Flush on another thread, and wait for it; False where none can be started.

    Not by `threading`, whose own locks may be held by the code that a signal has interrupted.
    """
    done = _thread.allocate_lock()
    done.acquire()

    def flush() -> None:
        try:
            _flush(limit_s, patience_s)
        finally:
            done.release()

    try:
        _thread.start_new_thread(flush, ())
    except RuntimeError:
        return False
    done.acquire(timeout=limit_s + patience_s)
    return True


def _flush(limit_s: float, patience_s: float) -> None:
    """One flush of every member, all within ``limit_s`` seconds, and ``patience_s`` for writing."""
    budget = Budget(limit_s)
    for member in members():
        try:
            member.last_flush(budget.remaining(), patience_s)
        except Exception as fault:
            report_fault("the last flush", fault)


def _is_delivered(number: int, frame: FrameType | None) -> bool:
    """Flush on another thread, which sends the signal once more; return whether this is that one.

    The code that is interrupted goes on meanwhile: it may hold any lock that a flush needs, so that
    nothing is waited for, and no lock taken. Only once it is interrupted outside of this library,
    what it has recorded meanwhile is delivered before it ends.
    """
    global _ending, _may_echo
    if _ending is None and _may_echo and time.monotonic() - _knocked_at < _ECHO_S:
        _may_echo = False
        return False
    ending = _ending or _Ending()
    try:
        if _ending is None:
            _ending = ending
            _thread.start_new_thread(_deliver_and_signal, (number, ending))
            return False
        if not ending.is_delivered:
            return False  # Another signal meanwhile: the application gets one soon.
        if _are_threads_green():
            if not ending.is_swept:
                ending.is_swept = True
                _thread.start_new_thread(_deliver_and_signal, (number, ending))
                return False
        elif ending.tries < _MAX_TRIES and _is_ours(frame):
            ending.tries += 1
            return False  # The thread signals until the handler goes on.
        else:
            _flush_within(SIGTERM_LIMIT_S / 2, ending.patience_s())
    except RuntimeError:
        pass  # No more threads: then nothing can be delivered either.
    ending.end()
    _ending, _may_echo = None, True
    return True


def _are_threads_green() -> bool:
    """Whether gevent or eventlet stand in for threads, so that all of them are this one.

    Such a handler may be called by what has them take turns, where nothing can be waited for.
    """
    return not isinstance(_thread.start_new_thread, BuiltinFunctionType)


def _is_ours(frame: FrameType | None) -> bool:
    """Whether the code that runs in ``frame`` may hold a lock of this library."""
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith(_WITH_LOCKS):
            return True
        frame = frame.f_back
    return False


def _deliver_and_signal(number: int, ending: _Ending) -> None:
    _flush_within(SIGTERM_LIMIT_S, _PATIENCE_S)
    ending.is_delivered = True
    if _are_threads_green():
        _signal(number)
    else:
        _knock(number, lambda: _ending is ending)


def _knock(number: int, is_awaited: Callable[[], bool]) -> None:
    """Signal until the main thread has heard it.

    Once is not enough: Python's handlers run between its steps, and a signal that comes after the
    last of them, just before a system call that blocks, neither interrupts that nor is heard until
    it returns.
    """
    global _knocked_at
    pause_s = _PAUSE_S
    while is_awaited():
        _knocked_at = time.monotonic()
        _signal(number)
        time.sleep(pause_s)
        pause_s = min(1.5 * pause_s, _LONGEST_PAUSE_S)


def _signal(number: int) -> None:
    # Green threads are all in the main thread, whose number they have replaced by one of theirs.
    if hasattr(signal, "pthread_kill") and not _are_threads_green():
        # To the main thread, which may sleep in a system call that others do not end.
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        os.kill(os.getpid(), number)


# ── children of multiprocessing, which pools end by SIGTERM ──────────────────────────────────────


def hear_all() -> None:
    """In such a child, on its main thread: hear of SIGTERM, whatever that thread sleeps in.

    A worker of a pool sleeps in a lock of multiprocessing's. It may just be about to when the
    signal comes, and would not hear it before it wakes: the pool would wait for it for ever. So
    another thread hears of it as well, and signals again.
    """
    if not _is_set() or _are_threads_green():
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    earlier = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    if earlier != -1:  # Somebody else hears of signals: asyncio, say.
        signal.set_wakeup_fd(earlier)
        os.close(reader)
        os.close(writer)
        return
    threading.Thread(target=_wake, args=(reader,), name="doow-signals", daemon=True).start()


def _wake(reader: int) -> None:
    """Have the main thread hear of the first SIGTERM, which it may be sleeping through."""
    while signal.SIGTERM not in os.read(reader, 64):
        pass
    _knock(signal.SIGTERM, _is_unheard)


def _is_unheard() -> bool:
    """Whether no signal has been heard in this process yet."""
    return _ending is None and not _may_echo


def _guard_forks() -> None:
    """Have a child that is ended at once hear of it.

    What signals it between the fork and Python's own work after it is forgotten by Python, where
    the handler is one of Python's: it would live on, and the pool that has ended it wait for ever.
    https://github.com/python/cpython/blob/main/Modules/signalmodule.c (_PySignal_AfterFork)
    """
    if hasattr(os, "register_at_fork") and hasattr(signal, "pthread_sigmask"):
        os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_unblock)


def _block() -> None:
    if _is_listening:
        earlier = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        _masks[threading.get_ident()] = earlier


def _unblock() -> None:
    earlier = _masks.pop(threading.get_ident(), None)
    if earlier is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


@reset_in_child
def _after_fork_in_child() -> None:
    global _ending, _may_echo, _is_passing, _serves
    if _ending is not None:
        _ending.end()
    _ending, _may_echo, _is_passing, _serves = None, False, False, False
