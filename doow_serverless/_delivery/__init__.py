"""Deliver: sealed batches go out, and something becomes of each.

Read ``flush`` (a buffer is emptied and its outcome awaited), ``departures`` (what has left a buffer
before), ``hooks`` (the user is told of it), ``sealer`` (events become batches), ``outbox_state``
(what is done next: facts in, ``orders`` out), whose accounts are ``ledger`` (where each batch
stands), ``flight`` (what a flush waits for), ``kept`` (the backlog), ``pace`` (how quick the server
is) and ``breaker`` (whether sending is worth a try); then ``outbox`` (its driver, with the
threads), ``sender`` (one POST of one batch), ``results`` (what became of it), ``answers`` (what a
server's answer means), ``transport`` and ``connection`` (HTTP), ``late_transport`` (imports them at
the first use), ``credentials`` (the key), ``log_sender`` (the log instead of all these),
``async_wait`` (waiting without blocking an event loop), and ``guard`` (before a deadline kills).
``patient`` sends what no response waits for.
"""
