"""What ``doctor`` says of a relay's template: each setting that loses usage, and no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from doow_serverless.cli.doctor_files import checks_of

ROOT = Path(__file__).parents[3]
SAM = """
Resources:
  Usage: {Type: AWS::Kinesis::Stream}
  Queue:
    Type: AWS::SQS::Queue
    Properties: {RedrivePolicy: {maxReceiveCount: 5}}
  RelayLogs: {Type: AWS::Logs::LogGroup, Properties: {LogGroupName: /relay}}
  Subscription:
    Type: AWS::Logs::SubscriptionFilter
    Properties: {LogGroupName: /aws/lambda/api}
  Relay:
    Type: AWS::Serverless::Function
    Properties:
      Handler: doow_serverless.relay.kinesis_handler
      LoggingConfig: {LogGroup: !Ref RelayLogs}
      Environment: {Variables: {DOOW_TRACK_LOG_KEY_SECRET_ARN: !Ref Key}}
      Events:
        Usage:
          Type: Kinesis
          Properties:
            Stream: !GetAtt Usage.Arn
            StartingPosition: TRIM_HORIZON
            TumblingWindowInSeconds: 60
            FunctionResponseTypes: [ReportBatchItemFailures]
            MaximumRetryAttempts: -1
  Queued:
    Type: AWS::Lambda::Function
    Properties:
      Handler: doow_serverless.relay.sqs_handler
      Environment: {Variables: {DOOW_TRACK_LOG_KEY: !If [HasKey, key, !Ref AWS::NoValue]}}
  Mapping:
    Type: AWS::Lambda::EventSourceMapping
    Properties:
      FunctionName: !Ref Queued
      EventSourceArn: !GetAtt Queue.Arn
      FunctionResponseTypes: [ReportBatchItemFailures]
  Logs:
    Type: AWS::Serverless::Function
    Properties:
      Handler: doow_serverless.relay.logs_handler
      DeadLetterQueue: {Type: SQS, TargetArn: !GetAtt Queue.Arn}
      Environment: {Variables: {DOOW_TRACK_LOG_KEY: key}}
  Api:
    Type: AWS::Lambda::Function
    Properties:
      Handler: app.handler
      Environment: {Variables: {DOOW_TRACK_DELIVERY: log, DOOW_TRACK_LOG_KEY: key}}
  Other:
    Type: AWS::Lambda::Function
    Properties: {Handler: other.handler}
"""
SERVERLESS = """
provider: {environment: {DOOW_TRACK_LOG_KEY: key}}
functions:
  relay:
    handler: doow_serverless.relay.kinesis_handler
    events:
      - stream:
          type: kinesis
          arn: !GetAtt Usage.Arn
          startingPosition: TRIM_HORIZON
          tumblingWindowInSeconds: 60
          functionResponseType: ReportBatchItemFailures
  queued:
    handler: doow_serverless.relay.sqs_handler
    events:
      - sqs: {arn: !GetAtt Queue.Arn, functionResponseType: ReportBatchItemFailures}
  logs:
    handler: doow_serverless.relay.logs_handler
    onError: arn:aws:sns:us-east-1:123456789012:failed
    events:
      - cloudwatchLog: /aws/lambda/api
resources:
  Resources:
    Queue:
      Type: AWS::SQS::Queue
      Properties: {RedrivePolicy: {maxReceiveCount: 5}}
"""

ONE_BY_ONE = "functionResponseType: ReportBatchItemFailures"

MISTAKES: dict[str, tuple[str, str, str]] = {
    "bisected": ("MaximumRetryAttempts: -1", "BisectBatchOnFunctionError: true",
                 "Relay has its batches bisected when it fails"),
    "few attempts": ("Attempts: -1", "Attempts: 3", "MaximumRetryAttempts of Relay gives usage up"),
    "short age": ("MaximumRetryAttempts: -1", "MaximumRecordAgeInSeconds: '3600'",
                  "MaximumRecordAgeInSeconds of Relay gives usage up"),
    "no failures": ("FunctionResponseTypes: [ReportBatchItemFailures]\n            M", "M",
                    "Relay does not report which records failed"),
    "parallel": ("MaximumRetryAttempts: -1", "ParallelizationFactor: 2",
                 "Relay has a window, and reads a shard in parallel"),
    "latest": ("TRIM_HORIZON", "LATEST", "Relay begins at LATEST"),
    "no failures of a queue": ("\n      FunctionResponseTypes: [ReportBatchItemFailures]", "",
                               "Queued does not report which records failed"),
    "no redrive": ("{RedrivePolicy: {maxReceiveCount: 5}}", "{}",
                   "the queue of Queued has no RedrivePolicy"),
    "no dead-letter queue": ("DeadLetterQueue: {Type: SQS, TargetArn: !GetAtt Queue.Arn}",
                             "Timeout: 60", "Logs keeps nothing that fails"),
    "its own log, by reference": ("LogGroupName: /aws/lambda/api}", "LogGroupName: !Ref RelayLogs}",
                                  "the log group of Relay is subscribed"),
    "its own log, by name": ("{LogGroupName: /aws/lambda/api}", "{LogGroupName: /relay}",
                             "the log group of Relay is subscribed"),
    "its own log, as Lambda calls it": ("LogGroupName: /aws/lambda/api}",
                                        "LogGroupName: !Sub '/aws/lambda/${Logs}'}",
                                        "the log group of Logs is subscribed"),
    "usage without a key": ("DELIVERY: log, DOOW_TRACK_LOG_KEY: key", "DELIVERY: log",
                            "Api has no log key, but Relay has one and refuses its usage"),
    "dead letters without a key": ("DELIVERY: log, DOOW_TRACK_LOG_KEY: key", "STRICT: 'true'",
                                   "Api has no log key, but Relay has one and refuses its dead"),
    "a relay without a key": ("DOOW_TRACK_LOG_KEY_SECRET_ARN: !Ref Key", "DOOW_TRACK_FOLD: 'true'",
                              "Api signs its usage, but Relay has no log key"),
    "a relay whose key is left out": ("DOOW_TRACK_LOG_KEY_SECRET_ARN: !Ref Key",
                                      "DOOW_TRACK_LOG_KEY: !Ref AWS::NoValue",
                                      "Api signs its usage, but Relay has no log key"),
}  # fmt: skip
"""Of each: what is replaced in the template above, by what, and what is said then."""

MISTAKES_OF_SERVERLESS: dict[str, tuple[str, str, str]] = {
    "bisected": ("startingPosition", "bisectBatchOnFunctionError: true\n          startingPosition",
                 "relay has its batches bisected"),
    "few attempts": ("startingPosition", "maximumRetryAttempts: 3\n          startingPosition",
                     "MaximumRetryAttempts of relay"),
    "no failures": ("          functionResponseType: ReportBatchItemFailures\n", "",
                    "relay does not report which records failed"),
    "no failures of a queue": (", functionResponseType: ReportBatchItemFailures", "",
                               "queued does not report which records failed"),
    "a queue by its ARN alone": (f"{{arn: !GetAtt Queue.Arn, {ONE_BY_ONE}}}", "!GetAtt Queue.Arn",
                                 "queued does not report which records failed"),
    "no redrive": ("{RedrivePolicy: {maxReceiveCount: 5}}", "{}",
                   "the queue of queued has no RedrivePolicy"),
    "no dead-letter queue": ("onError: arn:aws:sns:us-east-1:123456789012:failed", "timeout: 60",
                             "logs keeps nothing that fails"),
    "its own log": ("cloudwatchLog: /aws/lambda/api", "cloudwatchLog: {logGroup: /aws/lambda/logs}",
                    "the log group of logs is subscribed"),
}  # fmt: skip


def found(path: Path, text: str) -> list[str]:
    path.write_text(text)
    checks = [check for check in checks_of(path) if not check.ok]
    assert all(check.remedy for check in checks)
    # Handlers of the application are other checks' business.
    return [check.detail for check in checks if "there is no" not in check.detail]


def changed(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new, 1)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_template_is_found(mistake: str, tmp_path: Path) -> None:
    """One mistake, one line, with what to do; in a file of whatever name."""
    old, new, said = MISTAKES[mistake]
    details = found(tmp_path / "fleet.yaml", changed(SAM, old, new))
    assert (len(details), details[0][: len(said)]) == (1, said), details


@pytest.mark.parametrize("mistake", MISTAKES_OF_SERVERLESS)
def test_a_mistake_in_serverless_yml_is_found(mistake: str, tmp_path: Path) -> None:
    """The Serverless Framework's own names for the same settings."""
    old, new, said = MISTAKES_OF_SERVERLESS[mistake]
    details = found(tmp_path / "serverless.yml", changed(SERVERLESS, old, new))
    assert (len(details), details[0][: len(said)]) == (1, said), details


def test_what_is_well_is_left_alone(tmp_path: Path) -> None:
    """Neither these templates nor the one that is shipped has a mistake."""
    assert found(tmp_path / "fleet.yaml", SAM) == []
    assert found(tmp_path / "serverless.yml", SERVERLESS) == []
    assert [check.detail for check in checks_of(ROOT / "relay.yaml") if not check.ok] == []


@pytest.mark.parametrize(
    "setting", ["Bisect: true", "BisectBatchOnFunctionError: !If [A, true, false]",
                "MaximumRecordAgeInSeconds: !Ref Age", "ParallelizationFactor: 1"],
)  # fmt: skip
def test_what_is_not_known_is_no_mistake(setting: str, tmp_path: Path) -> None:
    """A parameter or a condition may say what is right."""
    text = changed(SAM, "MaximumRetryAttempts: -1", setting)
    assert found(tmp_path / "fleet.yaml", text) == []


def test_a_template_of_json(tmp_path: Path) -> None:
    """CloudFormation's long forms, as the CDK writes them, and what all functions share."""
    document = {
        "Globals": {"Function": {"Environment": {"Variables": {"DOOW_TRACK_LOG_KEY": "key"}}}},
        "Resources": {
            "Relay": {
                "Type": "AWS::Lambda::Function",
                "Properties": {"Handler": "doow_serverless.relay.kinesis_handler"},
            },
            "Mapping": {
                "Type": "AWS::Lambda::EventSourceMapping",
                "Properties": {
                    "FunctionName": {"Ref": "Relay"},
                    "EventSourceArn": {"Fn::GetAtt": ["Usage", "Arn"]},
                    "BisectBatchOnFunctionError": True,
                    "FunctionResponseTypes": ["ReportBatchItemFailures"],
                },
            },
            "Config": {
                "Type": "AWS::Lambda::EventInvokeConfig",
                "Properties": {
                    "FunctionName": {"Fn::GetAtt": ["Logs", "Arn"]},
                    "DestinationConfig": {"OnFailure": {"Destination": "arn"}},
                },
            },
            "Logs": {
                "Type": "AWS::Lambda::Function",
                "Properties": {"Handler": "doow_serverless.relay.logs_handler"},
            },
            "Subscription": {
                "Type": "AWS::Logs::SubscriptionFilter",
                "Properties": {"LogGroupName": {"Fn::Sub": "/aws/lambda/${Relay}"}},
            },
        },
    }
    details = found(tmp_path / "stack.template.json", json.dumps(document))
    assert [detail.partition(":")[0] for detail in details] == [
        "Relay has its batches bisected when it fails",
        "the log group of Relay is subscribed, so it reads its own lines for ever",
    ]


@pytest.mark.parametrize(
    "odd", ["Resources: 5", "Resources: {A: 5, B: {Type: AWS::Lambda::Function}}", "[]",
            "Resources: {A: {Type: AWS::Lambda::Function, Properties: [1]}}"],
)  # fmt: skip
def test_an_odd_template(odd: str, tmp_path: Path) -> None:
    """Whatever stands in the places of mappings and lists, nothing is raised."""
    assert yaml.safe_load(odd) is not None
    assert found(tmp_path / "template.yaml", odd) == []
