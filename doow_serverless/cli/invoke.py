"""The command ``doow-serverless invoke``: the answer, the time, and the events that arrived."""

from __future__ import annotations

from typing import TYPE_CHECKING

from doow_serverless.local import Ingest
from doow_serverless.local.lambda_runtime import LambdaRuntimeError

from .arrived import arrived
from .console import console, number, safe
from .invoking import Invoked, NotInvokable, Target

if TYPE_CHECKING:
    from rich.console import Console

_LONGEST_LOG = 20


def run(target: Target, *, license_id: str | None) -> int:
    """Invoke ``target``; 0 where the handler answered, 1 where it failed, 2 where it cannot be."""
    screen = console()
    env = {"DOOW_TRACK_LICENSE_ID": license_id} if license_id else {}
    with Ingest() as ingest:
        try:
            done = target.invoke(ingest.url, env)
        except (NotInvokable, LambdaRuntimeError) as problem:
            console(stderr=True).print(safe(f"Error: {problem}"))
            return 2
        show(screen, done)
        events = ingest.events()
    screen.print()
    if events:
        screen.print(f"{number(len(events), 'event')} arrived:")
        screen.print(arrived(events))
    else:
        screen.print("no event arrived")
    return 0 if done.ok else 1


def show(screen: Console, done: Invoked) -> None:
    """The answer, and how long it took."""
    delivery = "" if done.flush_s is None else f", of which delivery {done.flush_s * 1e3:.1f} ms"
    state = "answered" if done.ok else "failed"
    screen.print(f"{done.platform}: {state} in {done.took_s * 1e3:.1f} ms{delivery}")
    for line in done.answer.splitlines():
        screen.print(safe(line))
    if not done.ok:
        for line in done.log.splitlines()[-_LONGEST_LOG:]:
            screen.print(safe(line), style="dim")
