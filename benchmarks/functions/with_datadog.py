"""Ten points by datadog-lambda, whose wrapper flushes when the handler returns."""

import os

os.environ.update(
    DATADOG_HOST=os.environ["BENCHMARK_URL"],
    DD_API_KEY="0" * 32,
    DD_FLUSH_TO_LOG="false",
    DD_TRACE_ENABLED="false",
)

from datadog_lambda.metric import lambda_metric
from datadog_lambda.wrapper import datadog_lambda_wrapper


@datadog_lambda_wrapper
def handler(_event: object, _context: object) -> str:
    for number in range(10):
        lambda_metric(f"tokens.{number}", number + 1)
    return "done"
