"""Deliver: sealed batches go out, and something becomes of each.

Read ``flush`` (a buffer is emptied and its outcome awaited), ``outbox_state`` (what is known of
every batch, and what is done next: facts in, ``orders`` out; its ``flight``, ``kept``, ``pace`` and
``breaker`` are the accounts that it keeps), ``outbox`` (its driver, with the threads), ``sender``
(one POST of one batch), ``results`` (what became of it), ``answers`` (what a server's answer
means), then ``transport`` and ``connection`` (HTTP), ``credentials`` (the key), and ``async_wait``
(waiting without blocking an event loop).
"""
