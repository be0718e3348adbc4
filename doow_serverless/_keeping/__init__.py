"""Keep: what is not delivered, or not yet, in memory, in the log and on disk.

Read ``dead_letters`` (writes to the log, or into a directory) with ``log_lines`` (the log),
``dead_letter_format``, ``dead_letter_reader`` and ``refolding`` (fewer events of it),
and ``journal`` (survives a crash) with ``journal_file`` and ``journal_format``.
"""
