"""The layer, the variables, the permission and the alarm, with the CDK: copy what you need.

pip install aws-cdk-lib && make -C .. layer && npx cdk deploy --app "python app.py"
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from aws_cdk import App, CfnParameter, Duration, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_secretsmanager as secretsmanager

if TYPE_CHECKING:
    from constructs import Construct

HERE = Path(__file__).parent
EXAMPLE = HERE.parent


class MeteredStack(Stack):
    """The API's function, metered."""

    def __init__(self, scope: Construct, name: str) -> None:
        super().__init__(scope, name)
        arn = CfnParameter(
            self,
            "DoowApiKeySecretArn",
            description="The secret whose value is the Doow SDK key",
        )
        key = secretsmanager.Secret.from_secret_complete_arn(self, "Key", arn.value_as_string)
        layer = lambda_.LayerVersion(
            self,
            "DoowServerless",
            code=lambda_.Code.from_asset(str(EXAMPLE / ".layer")),
            compatible_architectures=[lambda_.Architecture.ARM_64, lambda_.Architecture.X86_64],
            compatible_runtimes=[lambda_.Runtime.PYTHON_3_12],
            license="MIT",
        )
        log_group = logs.LogGroup(self, "Logs", retention=logs.RetentionDays.ONE_MONTH)
        function = lambda_.Function(
            self,
            "Api",
            runtime=lambda_.Runtime.PYTHON_3_12,
            architecture=lambda_.Architecture.ARM_64,
            handler="app.handler",
            code=lambda_.Code.from_asset(str(EXAMPLE / "api"), exclude=["events", "__pycache__"]),
            memory_size=256,
            timeout=Duration.seconds(10),
            layers=[layer],
            log_group=log_group,
            logging_format=lambda_.LoggingFormat.JSON,
            environment={
                "DOOW_TRACK_API_KEY_SECRET_ARN": key.secret_arn,
                "DOOW_TRACK_FLUSH_MODE": "before_response",
                "POWERTOOLS_SERVICE_NAME": "summaries",
            },
        )
        key.grant_read(function)
        undelivered = logs.MetricFilter(
            self,
            "UndeliveredUsage",
            log_group=log_group,
            filter_pattern=logs.FilterPattern.literal(
                '"doow_dead_letter" -"usage events for a relay"'
            ),
            metric_namespace="DoowServerless",
            metric_name=f"{name}-undelivered",
            metric_value="1",
            default_value=0,
        )
        cloudwatch.Alarm(
            self,
            "UndeliveredUsageAlarm",
            alarm_description="Doow did not confirm usage in time: see doow-serverless replay",
            metric=undelivered.metric(statistic="Sum", period=Duration.minutes(5)),
            threshold=1,
            evaluation_periods=1,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )


app = App()
MeteredStack(app, "doow-example")
app.synth()
