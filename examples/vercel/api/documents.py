"""A Flask app that meters the documents it has indexed, and none of those that failed."""

from __future__ import annotations

from typing import Any

from flask import Flask, abort, request

import doow_serverless as doow
from doow_serverless.wsgi import DoowMiddleware

MODEL = "word-lengths"
LICENSES = {"acme": "lic_acme", "globex": "lic_globex"}  # yours is a table

app = Flask(__name__)
app.wsgi_app = DoowMiddleware(  # type: ignore[method-assign]  # as Flask's documentation does
    app.wsgi_app, attribution={"team": "content", "feature": "search"}
)


@app.post("/api/documents")
def index() -> dict[str, Any]:
    job = request.get_json()
    license_id = LICENSES.get(job["customer"])
    if license_id is None:
        abort(404, "No such customer")
    failed = []
    for number, text in enumerate(job["documents"]):
        try:
            with doow.transaction():  # a document counts once all of its work is done
                doow.track("documents", license_id=license_id, unit="documents")
                tokens = embed(text)
                doow.track(
                    "tokens",
                    tokens,
                    license_id=license_id,
                    unit="tokens",
                    attribution={"model": MODEL},
                )
        except ValueError as problem:
            failed.append({"document": number, "reason": str(problem)})
    return {"failed": failed}


def embed(text: str) -> int:
    """Stands for your model, which says how many tokens it took; here they are words."""
    words = text.split()
    if not words:
        raise ValueError("the document is empty")
    return len(words)
