"""The log as a wire: sealed batches as lines of standard output, and back.

Read ``format`` (a frame: one line that holds a batch or a part of one), ``keys`` (the log key,
which signs it), ``stdout`` (writes whole lines), ``reader`` (a text is a frame or it is none) and
``assembly`` (parts to batches). ``envelopes`` takes off what platforms wrap around a line, with
``unpacking`` (gzip, base64 and JSON, within bounds) and ``kpl`` (aggregated records of Kinesis).
"""
