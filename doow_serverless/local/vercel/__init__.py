"""Vercel's own bootstrap on this machine, and what Vercel's build makes of a file.

Read ``runtime`` over its two modes (``ipc_mode``, ``lambda_mode``), with ``sandbox``,
``invocation`` and ``http1``; and ``entry_point``.
"""
