"""Deliver: sealed batches go out, and something becomes of each.

Read ``flush`` (a buffer is emptied and its outcome awaited), ``flight`` (the batches of one flush
on their way), ``attempt`` (one POST of one batch, and what became of it), ``answers`` (what a
server's answer means), ``breaker`` (whether sending is worth a try), ``outbox`` (sends again what
failed), then ``transport`` and ``connection`` (HTTP), ``credentials`` (the key), and ``async_wait``
(waiting without blocking an event loop).
"""
