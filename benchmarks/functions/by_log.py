"""Tells as many times that something was used: to nobody, to the log, or to CloudWatch Metrics."""

import os
from typing import Any

MODE = os.environ["BENCHMARK_MODE"]

if MODE == "metrics":
    from aws_lambda_powertools import Metrics

    metrics = Metrics(namespace="shop", service="checkout")

    @metrics.log_metrics
    def handler(event: dict[str, Any], _: object) -> Any:
        for number in range(event["events"]):
            metrics.add_metric("tokens", "Count", number + 1)
        return event["events"]

else:
    import doow_serverless as doow

    if MODE == "untracked":
        doow.configure(enabled=False)

    def record(event: dict[str, Any], _: object) -> Any:
        for number in range(event["events"]):
            doow.track("tokens", number + 1)
        return event["events"]

    handler = record if MODE == "untracked" else doow.tracked(record)
