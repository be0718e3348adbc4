"""The log as a wire: sealed batches as lines of standard output, and back.

Read ``format`` (a frame: one line that holds a batch or a part of one), ``keys`` (the log key signs
it), ``stdout`` (writes whole lines) and ``reader`` (frames back to batches).
"""
