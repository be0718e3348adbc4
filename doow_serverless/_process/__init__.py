"""The process that all trackers share: its clock, threads, forks, end, and log.

Read ``clock``, ``init_phase`` (what is dear is done there), ``whole_imports`` (no other thread is
handed half a package), ``timers`` (calls back before a deadline), ``workers`` (threads that are
kept), ``fetching`` (one thread fetches a key; others wait for it within bounds), ``signals`` (what
their handlers raise), ``machine`` (how much of a core there is), ``forks`` (processes that begin
anew), ``snapshots`` (Lambda's SnapStart makes such, too),
``orphans`` (engines that were dropped with events in hand), ``shutdown`` (the last flush),
``children`` (which hear of no exit), and ``log`` (warnings, and contained faults).
"""
