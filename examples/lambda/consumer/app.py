"""A queue consumer that meters the documents it processed, and none of those that failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.batch import (
    BatchProcessor,
    EventType,
    process_partial_response,
)

import doow_serverless as doow
from doow_serverless.powertools import record_transaction

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
    from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
    from aws_lambda_powertools.utilities.typing import LambdaContext

MODEL = "word-lengths"
LICENSES = {"acme": "lic_acme", "globex": "lic_globex"}  # yours is a table

logger = Logger()
processor = BatchProcessor(event_type=EventType.SQS)


@record_transaction  # a document that fails is delivered again: it counts when it succeeds
def process(record: SQSRecord) -> None:
    job = record.json_body
    license_id = LICENSES[job["customer"]]
    doow.track("documents", license_id=license_id, unit="documents")

    _, tokens = embed(job["text"])
    doow.track("tokens", tokens, license_id=license_id, unit="tokens", attribution={"model": MODEL})
    logger.info("Processed", extra={"customer": job["customer"], "tokens": tokens})


def embed(text: str) -> tuple[list[int], int]:
    """Stands for your model, whose answer says how many tokens it took; here they are words."""
    words = text.split()
    if not words:
        raise ValueError("the document is empty")
    return [len(word) for word in words], len(words)


@doow.tracked(attribution={"team": "content", "feature": "search"})
@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    return process_partial_response(
        event=event, record_handler=process, processor=processor, context=context
    )
