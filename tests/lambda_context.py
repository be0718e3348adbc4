"""What Lambda passes as context, for handlers that are called in this process."""

from __future__ import annotations

import time


class LambdaContext:
    """The context of one invocation, whose time passes from when it is made.

    Args:
        remaining_ms: The time that is left.
        request_id: What names the invocation, and its retries.
        function_name: The function's.
    """

    memory_limit_in_mb = "128"

    def __init__(
        self,
        remaining_ms: float = 30_000,
        request_id: str = "request-1",
        function_name: str = "metered",
    ) -> None:
        self.aws_request_id = request_id
        self.function_name = function_name
        self.invoked_function_arn = (
            f"arn:aws:lambda:eu-west-1:123456789012:function:{function_name}"
        )
        self._ends_at = time.monotonic() + remaining_ms / 1000

    def get_remaining_time_in_millis(self) -> int:
        return int((self._ends_at - time.monotonic()) * 1000)
