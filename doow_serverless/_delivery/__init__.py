"""Deliver: sealed batches go out, and something becomes of each.

Read ``flushing`` (a flush as its caller sees it), ``flush`` (a worker makes it), ``hooks`` (the
user is told of it), ``sealer`` (events become batches), ``outbox_state`` (facts in, orders out),
whose accounts are ``ledger`` (where each batch stands) and ``flight`` (what a flush waits for), and
which asks ``pace`` (how quick the server is), ``breaker`` (whether sending is worth a try) and
``blame`` (who is at fault); then ``outbox`` (its driver, with the threads), ``sender`` (one POST of
one batch), ``results`` (what became of it), ``answers`` (what a server's answer means),
``transport`` and ``connection`` (HTTP), ``late_transport`` (imports them at the first use),
``credentials`` (the key), ``log_sender`` (the log instead of all these), ``async_wait`` (waiting
without blocking an event loop), and ``guard`` (before a deadline kills). ``patient`` sends for
relays, ``replay`` and ``send``.
"""
