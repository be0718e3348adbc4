"""Ten messages by sentry-sdk, whose integration flushes when the handler returns."""

import os

import sentry_sdk
from sentry_sdk.integrations.aws_lambda import AwsLambdaIntegration

sentry_sdk.init(
    dsn=os.environ["BENCHMARK_URL"].replace("://", "://key@") + "/1",
    integrations=[AwsLambdaIntegration()],
)


def handler(_event: object, _context: object) -> str:
    for number in range(10):
        sentry_sdk.capture_message(f"tokens {number}")
    return "done"
