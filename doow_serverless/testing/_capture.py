"""Captures what the functions of the package deliver, whoever configures them and when."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from doow_serverless._config import Config
from doow_serverless._tracker import Tracker, options_of, replace_default, replace_maker

from ._memory import MemoryTransport

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Unpack

    from doow_serverless._config import ConfigOptions
    from doow_serverless._delivery.sender import Transport
    from doow_serverless._process.clock import Clock

LICENSE_ID = "lic_test"
"""The license of events that name none, while they are captured."""


@contextmanager
def captured_events() -> Iterator[MemoryTransport]:
    """What the functions of the package deliver meanwhile, as a :class:`MemoryTransport`.

    For ``unittest``, and wherever else; under pytest it is the fixture ``doow_events``::

        def setUp(self):
            self.doow_events = self.enterContext(captured_events())  # Python 3.11

    The default tracker is another for that time: it is strict, so that a bad event raises where it
    is recorded; events that name no license get ``lic_test``; it needs no key, and neither reads
    the environment nor touches files or the network.

    What the application gives to ``configure``, before or meanwhile, is checked and counts (its
    license, attribution, hooks, ``strict``, ``enabled``…), but for what would leave the process:
    the key, the endpoint, ``warm_up``, ``journal`` and ``environ``. A transport that is given
    meanwhile is used. Import the application before: what it configures when it is imported
    meanwhile is over afterwards.

    A ``Tracker`` that the application makes for itself sends where it says: give it this as its
    ``transport``, and a well-formed key, in the test.
    """
    transport = MemoryTransport()
    earlier_make = replace_maker(partial(_tracker_into, transport))
    earlier = replace_default(None)
    try:
        replace_default(_tracker_into(transport, **options_of(earlier)))
        yield transport
    finally:
        replace_default(earlier)
        replace_maker(earlier_make)


def _tracker_into(
    memory: MemoryTransport,
    api_key: str | None = None,
    *,
    transport: Transport | None = None,
    clock: Clock = monotonic,
    **options: Unpack[ConfigOptions],
) -> Tracker:
    """The tracker that ``configure`` would make of these, but for what would leave the process."""
    options["environ"] = {}
    Config(api_key, **options)  # What is wrong in the application must not wait for production.
    if options.get("license_id") is None:
        options["license_id"] = LICENSE_ID
    options.setdefault("strict", True)
    options.update({"endpoint": None, "warm_up": False, "journal": False})
    return Tracker("dk_" + "0" * 64, transport=transport or memory, clock=clock, **options)
