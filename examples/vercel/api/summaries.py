"""A FastAPI app that streams its answer, and meters what the answer took once it is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

import doow_serverless as doow
from doow_serverless.asgi import DoowMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = "first-sentence"
LICENSES = {"acme": "lic_acme", "globex": "lic_globex"}  # yours is a table

app = FastAPI()
app.add_middleware(DoowMiddleware, attribution={"team": "content", "feature": "summaries"})


class Job(BaseModel):
    customer: str
    text: str


@app.post("/api/summaries")
def summarise(job: Job) -> StreamingResponse:
    license_id = LICENSES.get(job.customer)
    if license_id is None:
        raise HTTPException(404, "No such customer")
    doow.track("api_calls", license_id=license_id, unit="calls")
    return StreamingResponse(metered(job.text, license_id), media_type="text/plain")


def metered(text: str, license_id: str) -> Iterator[str]:
    """Each word goes out at once, and the end of the answer waits until the usage is at Doow."""
    tokens = len(text.split())
    for word in complete(text):
        yield word
        tokens += 1
    doow.track("tokens", tokens, license_id=license_id, unit="tokens", attribution={"model": MODEL})


def complete(prompt: str) -> Iterator[str]:
    """Stands for your model; its tokens are words."""
    for word in prompt.partition(".")[0].split():
        yield f"{word} "
