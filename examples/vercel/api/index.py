"""A class of the standard library's: it meters each translation on the license of the customer."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from typing import Any

import doow_serverless as doow

MODEL = "word-by-word"
# Yours is a table, and the customer comes from your authentication rather than from the body.
LICENSES = {"acme": "lic_acme", "globex": "lic_globex"}
FRENCH = {"usage": "l'usage", "is": "est", "counted": "compté", "where": "où", "it": "il"}


@doow.tracked(attribution={"team": "content", "feature": "translations"})
class handler(BaseHTTPRequestHandler):  # noqa: N801  # the name that Vercel looks for
    def do_POST(self) -> None:
        try:
            job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            customer, text = str(job["customer"]), str(job["text"])
        except (KeyError, TypeError, ValueError):
            self.answer(400, {"error": "Expected JSON with a customer and a text"})
            return
        license_id = LICENSES.get(customer)
        if license_id is None:
            self.answer(404, {"error": "No such customer"})
            return

        translation, tokens = translate(text)
        doow.track("api_calls", license_id=license_id, unit="calls")
        doow.track(
            "tokens", tokens, license_id=license_id, unit="tokens", attribution={"model": MODEL}
        )
        self.answer(200, {"translation": translation})

    def answer(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)  # waits until the usage is at Doow


def translate(text: str) -> tuple[str, int]:
    """Stands for your model, whose answer says how many tokens it took; here they are words."""
    words = text.split()
    return " ".join(FRENCH.get(word.lower(), word) for word in words), 2 * len(words)
