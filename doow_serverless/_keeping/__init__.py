"""Keep: undelivered and pending batches, in memory, in the log and on disk.

Read ``dead_letters`` (writes to the log, or into a directory), ``refolding`` (folds events that
were read back), and ``journal`` (survives a crash) with ``journal_file`` and ``journal_format``.
"""
