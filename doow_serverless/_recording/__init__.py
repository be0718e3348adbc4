"""Record: a call of ``track`` becomes an event, which waits in the buffer of its invocation.

Read ``plain`` (the one place that reads values of the user's), ``rules`` (what a field may say),
``labels`` (what becomes of a label that cannot be said), ``misuse`` (calls with wrong arguments),
``llm`` (what a model's answer says of its usage), ``event`` (checked fields become a plain tuple),
``ids``, ``quantities`` and ``folding`` (events that say the same become one),
``buffer`` (where events wait), ``scope`` (which buffer the running code records into), ``outside``
(the one for code that no invocation can be seen for), ``generators`` and ``replays`` (code that is
suspended, or runs again), ``transaction``, and ``interfaces`` (what these ask of the engine).
"""
