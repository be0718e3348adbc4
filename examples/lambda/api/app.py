"""An AI endpoint that meters each call, and the tokens it took, to the customer's own license."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver
from aws_lambda_powertools.event_handler.exceptions import BadRequestError, NotFoundError

import doow_serverless as doow

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

MODEL = "first-sentence"
# Yours is a table, and the customer comes from the authorizer's claims rather than from the path.
LICENSES = {"acme": "lic_acme", "globex": "lic_globex"}

logger = Logger()
app = APIGatewayHttpResolver()


@app.post("/customers/<customer>/summaries")
def summarise(customer: str) -> dict[str, Any]:
    license_id = LICENSES.get(customer)
    if license_id is None:
        raise NotFoundError("No such customer")
    text = app.current_event.json_body.get("text", "")
    if not text:
        raise BadRequestError("There is no text to summarise")

    summary, tokens = complete(text)
    doow.track("api_calls", license_id=license_id, unit="calls")
    doow.track("tokens", tokens, license_id=license_id, unit="tokens", attribution={"model": MODEL})
    logger.info("Summarised", extra={"customer": customer, "tokens": tokens})
    return {"summary": summary}


def complete(prompt: str) -> tuple[str, int]:
    """Stands for your model, whose answer says how many tokens it took; here they are words."""
    answer = prompt.partition(".")[0] + "."
    return answer, len(prompt.split()) + len(answer.split())


@doow.tracked(attribution={"team": "content", "feature": "summaries"})
@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return app.resolve(event, context)
