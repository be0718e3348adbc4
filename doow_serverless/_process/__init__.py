"""The process that all trackers share: its clock, threads, forks, end, and log.

Read ``clock``, ``timers`` (calls back before a deadline), ``workers`` (threads that are kept),
``at_work`` (what interrupts a thread stays out of there), ``signals`` (what their handlers raise),
``forks``, ``shutdown`` (the last flush), and ``log`` (warnings, and contained faults).
"""
