"""The init phase: what comes before the first invocation, where a platform grants it more CPU.

Lambda imports the handler's module at full speed, whatever the size of the function, and only then
throttles it to a core for every 1,769 MB: at 128 MB, a fourteenth. So what is dear is done there;
a thread that is left over from it would compete with the handler for that share.
https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
"""

from __future__ import annotations

import os

_RUNTIME_API = "AWS_LAMBDA_RUNTIME_API"
"""Set wherever a process of Lambda's asks for its invocations."""
_INITIALIZATION = "AWS_LAMBDA_INITIALIZATION_TYPE"
_is_over = False


def is_on() -> bool:
    """Whether the process is in a phase that costs less than the invocations to come."""
    return not _is_over and is_lambda()


def is_missed() -> bool:
    """Whether the process runs on Lambda, and its init phase is over."""
    return _is_over and is_lambda()


def is_lambda() -> bool:
    """Whether Lambda has this process do its invocations, one at a time."""
    return _RUNTIME_API in os.environ


def precedes_snapshot() -> bool:
    """Whether Lambda takes a snapshot at the end of the phase, to start other sandboxes from."""
    return os.environ.get(_INITIALIZATION) == "snap-start"


def end() -> None:
    """An invocation has begun."""
    global _is_over
    _is_over = True
