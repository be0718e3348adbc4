"""Azure's host around its own worker libraries, for functions that run on this machine.

Read ``host``, which plays the host; ``application``, ``function_index``, ``triggers``,
``messages``, ``streaming`` and ``invocation`` are its parts, and ``programs`` what runs in other
processes.
"""
