"""The command line, ``doow-serverless``, for which the extra ``local`` is needed.

Read ``main`` (the commands), ``console`` (how they print) and ``statuses`` (how they end);
``ingest_lines``; ``replay`` (what that command prints) over ``replaying`` (the work),
``replay_input`` and ``exports`` (frames out of exported logs: ``export_bytes``,
``export_pieces``, ``export_findings``, ``export_documents``, ``export_kinds``, ``export_shapes``,
``export_messages``, ``export_azure``, ``export_unwrapping``, ``export_chunks``,
``export_objects``, ``export_csv``); ``send`` over
``event_lines``; ``doctor`` over ``doctor_service``, ``doctor_files``, ``doctor_relay``,
``doctor_values`` and ``doctor_check``; ``invoke`` over ``invoking`` and ``arrived``.
"""
