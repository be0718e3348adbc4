"""A relay that has a log key: only holders of the key report usage, also while it is rotated."""

from __future__ import annotations

import hmac
import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless import relay
from doow_serverless._frames.reader import read_frame
from doow_serverless.errors import ConfigurationError
from doow_serverless.local import Fault, Ingest
from doow_serverless.relay import _relay
from tests.batches import batch
from tests.integration.relaying import ids_at, ids_of, lines, relayed
from tests.lambda_context import LambdaContext

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from doow_serverless._frames.reader import Part

NEW, OLD, WRONG = b"the new key", b"the old key", b"another key"
UNSIGNED = "not signed with the log key"
UNKNOWN = "signed with a key that this relay does not have, or altered"


@pytest.fixture
def ingest(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ingest]:
    with relayed(monkeypatch) as one:
        yield one


def message(number: int, line: str) -> dict[str, Any]:
    return {"messageId": str(number), "body": line}


def queue(*texts: str) -> list[dict[str, str]]:
    """Hand over messages of a queue; those that are to come again."""
    event = {"Records": [message(*one) for one in enumerate(texts)]}
    answer = relay.sqs_handler(event, LambdaContext())
    failures: list[dict[str, str]] = answer["batchItemFailures"]
    return failures


class Secret:
    """A secret with its current version and the one before."""

    def __init__(self, *versions: str) -> None:
        self.versions = list(versions)
        self.is_readable = True
        self.reads = 0

    def __call__(self, _: str, __: str, anew: bool, is_previous: bool) -> str | None:
        self.reads += not is_previous
        assert anew
        if not self.is_readable:
            raise PermissionError("no")
        return self.versions[is_previous] if len(self.versions) > is_previous else None


@pytest.fixture
def secret(ingest: Ingest, monkeypatch: pytest.MonkeyPatch) -> Secret:
    """The secret that this relay's log key is kept in."""
    monkeypatch.setenv("DOOW_TRACK_LOG_KEY_SECRET_ARN", "arn")
    kept = _relay.shared().log_key.kept
    assert kept is not None
    kept._fetch = secret = Secret(NEW.decode(), OLD.decode())
    assert ingest.events() == []
    return secret


def test_a_variable_holds_the_relay_to_signatures(
    ingest: Ingest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Both keys count; what is unsigned, or signed by others, is refused and reported."""
    monkeypatch.setenv("DOOW_TRACK_LOG_KEY", NEW.decode())
    monkeypatch.setenv("DOOW_TRACK_LOG_KEY_PREVIOUS", OLD.decode())
    one, two, three, four = (batch(2) for _ in range(4))
    texts = [
        *lines(one, key=NEW), *lines(two, key=OLD), *lines(three), *lines(four, key=WRONG),
    ]  # fmt: skip
    # Those end in the dead-letter queue, where somebody can look at them.
    assert queue(*texts) == [{"itemIdentifier": "2"}, {"itemIdentifier": "3"}]
    assert ids_at(ingest) == ids_of(one, two)
    refused = [each for each in caplog.messages if each.startswith("usage refused: ")]
    assert [each.split(": ")[1] for each in refused] == [UNSIGNED, UNKNOWN]


def test_a_rotated_secret_is_read_again(ingest: Ingest, secret: Secret) -> None:
    """A signature that fits no key has the keys fetched, once a minute."""
    first, second, third = (batch(2) for _ in range(3))
    queue(*lines(first, key=NEW), *lines(second, key=OLD))
    assert (ids_at(ingest), secret.reads) == (ids_of(first, second), 1)
    secret.versions = ["the newest key", NEW.decode()]
    queue(*lines(batch(), key=WRONG), *lines(batch(), key=WRONG))
    queue(*lines(third, key=b"the newest key"), *lines(batch(), key=OLD))
    assert (ids_at(ingest), secret.reads) == (ids_of(first, second, third), 2)


def test_a_secret_that_cannot_be_read_accepts_nothing(ingest: Ingest, secret: Secret) -> None:
    """The invocation fails, so that the frames come again; then they count.

    Once the keys are there, a frame that none of them has signed makes nothing fail, since anyone
    can write it: it is refused, and the others count.
    """
    secret.is_readable = False
    one = batch(2)
    with pytest.raises(ConfigurationError, match="the log key could not be read"):
        queue(*lines(one), *lines(one, key=NEW))
    assert ids_at(ingest) == []
    secret.is_readable = True
    queue(*lines(one, key=NEW))
    secret.is_readable = False
    two = batch(2)
    assert queue(*lines(batch(), key=WRONG), *lines(two, key=NEW)) == [{"itemIdentifier": "0"}]
    assert ids_at(ingest) == ids_of(one, two)


def test_without_a_log_key_signatures_do_not_matter(ingest: Ingest) -> None:
    """So a fleet can be given the key before it is held to it."""
    one, two = batch(2), batch(2)
    assert queue(*lines(one, key=NEW), *lines(two)) == []
    assert ids_at(ingest) == ids_of(one, two)


def part(line: str) -> Part:
    found = read_frame(line)
    assert found is not None
    assert not hasattr(found, "why")
    return found


def test_what_the_relay_writes_down_is_signed(
    ingest: Ingest,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Set aside in its log, or kept by a drain in a directory."""
    monkeypatch.setenv("DOOW_TRACK_LOG_KEY", NEW.decode())
    one = batch(2)
    _relay.shared()._set_aside(one, "HTTP 500")
    written = [line for line in capfd.readouterr().out.splitlines() if "doow_dead_letter" in line]
    ingest.fault(Fault(status=503, times=1_000))
    monkeypatch.setattr("doow_serverless.relay._vercel.LIMIT_S", 0.2)
    two = batch(2)
    entries = [{"source": "lambda", "message": line} for line in lines(two, key=NEW)]
    body = json.dumps(entries).encode()
    environ = {
        "REQUEST_METHOD": "POST",
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_X_VERCEL_SIGNATURE": hmac.new(b"drain", body, "sha1").hexdigest(),
        "wsgi.input": io.BytesIO(body),
    }
    answer = relay.VercelDrain("drain", keep=tmp_path)(environ, lambda *_: None)
    assert b"".join(answer) == b"done\n"
    [file] = tmp_path.iterdir()
    kept = [line for line in file.read_text().splitlines() if line]
    assert [part(line).batch_id for line in (*written, *kept)] == [one.id, two.id]
    assert all(part(line).is_signed_by([NEW]) for line in (*written, *kept))
