"""How the commands that deliver end: their exit statuses."""

from __future__ import annotations

ALL_DELIVERED = 0
INCOMPLETE = 1
"""All was tried, and something was damaged, malformed, rejected, or could not be read."""
UNUSABLE = 2
"""Wrong arguments, or a configuration that cannot be used."""
NOT_DELIVERED = 3
"""The server did not decide on everything in the time given."""
INTERRUPTED = 130
