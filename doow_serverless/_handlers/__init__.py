"""Decide when: a handler is wrapped, and its invocation flushes before the response is complete.

Read ``options`` (what ``tracked`` takes), ``wrap`` (which kind of callable is tracked how),
``invocation`` (one call, from its beginning to its flush), ``streams``, ``response`` and ``http1``
(which byte completes a response), and ``platform`` (what is asked of the platform around).
"""
