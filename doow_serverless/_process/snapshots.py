"""Snapshots: Lambda's SnapStart resumes many sandboxes from the image of one that was initialised.

Its hooks for Python come with Lambda's own runtime client, as ``snapshot_restore_py``:
https://docs.aws.amazon.com/lambda/latest/dg/snapstart-runtime-hooks-python.html
"""

from __future__ import annotations

from importlib import import_module

from . import init_phase
from .forks import after_restore, before_snapshot
from .log import report_fault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HOOKS = "snapshot_restore_py"
_is_guarded = False


def guard_snapshots() -> None:
    """Have the members told of snapshot and restore, once for the process, where there are any.

    Hooks before a snapshot run in the reverse order of registration: those of the application that
    are registered later run before ours, so that what they record is delivered.
    """
    global _is_guarded
    if _is_guarded or not init_phase.precedes_snapshot():
        return
    _is_guarded = True
    try:
        hooks: Any = import_module(_HOOKS)
        hooks.register_before_snapshot(before_snapshot)
        hooks.register_after_restore(after_restore)
    except ModuleNotFoundError:
        pass  # Another runtime client: who brings no hooks takes no snapshots.
    except Exception as fault:
        report_fault("registering for snapshots", fault)
