"""Random ids, from the system's own source, so that no snapshot or fork repeats them."""

from __future__ import annotations

import os


def new_id() -> str:
    """A UUID of version 4 (RFC 9562), without the import of the module uuid."""
    entropy = os.urandom(16)
    digits = entropy.hex()
    variant = "89ab"[entropy[8] & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"
