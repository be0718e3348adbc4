"""A function app that meters its customers' usage: an HTTP API, a queue, a timer, a FastAPI app."""

from __future__ import annotations

import json
import logging

import azure.functions as func
from fastapi import BackgroundTasks, FastAPI, HTTPException
from pydantic import BaseModel

import doow_serverless as doow
from doow_serverless.asgi import DoowMiddleware

# Yours is a table, and the customer comes from your authentication rather than from the path.
LICENSES = {"acme": "lic_acme", "globex": "lic_globex"}
FRENCH = {"usage": "l'usage", "is": "est", "counted": "compté", "where": "où", "it": "il"}

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)


@app.route(route="customers/{customer}/summaries", methods=["POST"])
@doow.tracked(attribution={"team": "content", "feature": "summaries"})
def summarise(req: func.HttpRequest) -> func.HttpResponse:
    license_id = LICENSES.get(req.route_params["customer"])
    if license_id is None:
        return func.HttpResponse("No such customer", status_code=404)
    text = req.get_body().decode()
    summary = text.partition(".")[0] + "."  # stands for your model; its tokens are words
    doow.track("api_calls", license_id=license_id, unit="calls")
    doow.track("tokens", words(text) + words(summary), license_id=license_id, unit="tokens")
    return func.HttpResponse(json.dumps({"summary": summary}), mimetype="application/json")


@app.queue_trigger(arg_name="message", queue_name="documents", connection="AzureWebJobsStorage")
# A message that fails comes again, and counts when it succeeds; one that comes twice counts once.
@doow.tracked(
    attribution={"team": "content", "feature": "search"}, idempotent=True, on_exception="discard"
)
def index(message: func.QueueMessage) -> None:
    job = message.get_json()
    license_id = LICENSES[job["customer"]]
    doow.track("documents", license_id=license_id, unit="documents")
    tokens = words(job["text"])
    if not tokens:
        raise ValueError("the document is empty")
    doow.track("tokens", tokens, license_id=license_id, unit="tokens")
    logging.info("Indexed %s tokens of %s", tokens, job["customer"])


@app.timer_trigger(arg_name="timer", schedule="0 0 * * * *")
@doow.tracked(attribution={"team": "platform", "feature": "storage"})
def measure_storage(timer: func.TimerRequest) -> None:
    if timer.past_due:
        logging.warning("The measurement is late")
    for customer, license_id in LICENSES.items():
        doow.track("storage", stored_gb(customer), license_id=license_id, unit="gigabyte_hours")


def words(text: str) -> int:
    return len(text.split())


def stored_gb(customer: str) -> int:
    """Stands for a look at your storage."""
    return 10 * len(customer)


# ── an ASGI application beside the functions ────────────────────────────────────────────────────

api = FastAPI()
api.add_middleware(DoowMiddleware, attribution={"team": "content", "feature": "translations"})


class Job(BaseModel):
    customer: str
    text: str


@api.post("/api/translations")
def translate(job: Job, tasks: BackgroundTasks) -> dict[str, str]:
    license_id = LICENSES.get(job.customer)
    if license_id is None:
        raise HTTPException(404, "No such customer")
    translation = " ".join(FRENCH.get(word.lower(), word) for word in job.text.split())
    doow.track("api_calls", license_id=license_id, unit="calls")
    tasks.add_task(review, translation, license_id)
    return {"translation": translation}


def review(translation: str, license_id: str) -> None:
    """Runs when the translation is told, and is metered like all else."""
    doow.track("tokens", words(translation), license_id=license_id, unit="tokens")


asgi = func.AsgiMiddleware(api)  # type: ignore[no-untyped-call]  # it has no annotations


# An AsgiFunctionApp would be an app of its own, and this file may have only one.
@app.route(route="translations/{*path}", methods=["GET", "POST"])
async def translations(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    response: func.HttpResponse = await asgi.handle_async(req, context)
    return response
