"""The command line, ``doow-serverless``, for which the extra ``local`` is needed.

Read ``main`` (the commands), ``replay`` (what that command prints) over ``replaying`` (the work),
``replay_input`` and ``replay_sender``, and ``vercel_check``.
"""
