"""``track_llm`` with the real clients of language models, over answers written by hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

import doow_serverless as doow
from doow_serverless.errors import InvalidEvent
from doow_serverless.local._server import ServerThread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request

    from doow_serverless.testing import MemoryTransport

PROMPT, ANSWER = "What may nobody know?", "This may nobody know."
CHAT_USAGE = {
    "prompt_tokens": 1000,
    "completion_tokens": 50,
    "total_tokens": 1050,
    "prompt_tokens_details": {"cached_tokens": 600},
    "completion_tokens_details": {"reasoning_tokens": 30},
}
MESSAGE_USAGE = {
    "input_tokens": 100,
    "output_tokens": 50,
    "cache_read_input_tokens": 800,
    "cache_creation_input_tokens": 100,
}
CHAT = {"input_tokens": 1000, "output_tokens": 50, "cached_input_tokens": 600,
        "reasoning_tokens": 30}  # fmt: skip
MESSAGE = {"input_tokens": 1000, "output_tokens": 50, "cached_input_tokens": 800,
           "cache_creation_input_tokens": 100}  # fmt: skip


# ── the providers, as far as one answer goes ────────────────────────────────────────────────────


def _events(*events: dict[str, Any], named: bool = False, end: str = "") -> Response:
    def lines() -> Iterator[str]:
        for event in events:
            name = f"event: {event['type']}\n" if named else ""
            yield f"{name}data: {json.dumps(event)}\n\n"
        yield end

    return StreamingResponse(lines(), media_type="text/event-stream")


async def chat(request: Request) -> Response:
    asked = await request.json()
    common = {"id": "chatcmpl-1", "created": 1, "model": "gpt-4o-2024-08-06"}
    if not asked.get("stream"):
        message = {"role": "assistant", "content": ANSWER}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return JSONResponse(
            {**common, "object": "chat.completion", "choices": [choice], "usage": CHAT_USAGE}
        )
    chunk = {**common, "object": "chat.completion.chunk"}
    delta = {"index": 0, "delta": {"role": "assistant", "content": ANSWER}, "finish_reason": None}
    stop = {"index": 0, "delta": {}, "finish_reason": "stop"}
    chunks = [{**chunk, "choices": [delta]}, {**chunk, "choices": [stop]}]
    if asked.get("stream_options", {}).get("include_usage"):
        chunks.append({**chunk, "choices": [], "usage": CHAT_USAGE})
    return _events(*chunks, end="data: [DONE]\n\n")


async def responses(request: Request) -> Response:
    content = {"type": "output_text", "text": ANSWER, "annotations": []}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
            "content": [content]}  # fmt: skip
    whole = {
        "id": "resp_1", "object": "response", "created_at": 1, "model": "gpt-5",
        "status": "completed", "output": [item], "parallel_tool_calls": True, "tools": [],
        "tool_choice": "auto",
        "usage": {
            "input_tokens": 1000,
            "output_tokens": 50,
            "total_tokens": 1050,
            "input_tokens_details": {"cached_tokens": 600},
            "output_tokens_details": {"reasoning_tokens": 30},
        },
    }  # fmt: skip
    if (await request.json()).get("stream"):
        done = {"type": "response.completed", "sequence_number": 0, "response": whole}
        return _events(done, named=True)
    return JSONResponse(whole)


async def embeddings(_: Request) -> Response:
    data = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
    usage = {"prompt_tokens": 8, "total_tokens": 8}
    return JSONResponse({"object": "list", "model": "embed-3", "data": data, "usage": usage})


async def messages(request: Request) -> Response:
    common = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-opus-4"}
    if not (await request.json()).get("stream"):
        content = [{"type": "text", "text": ANSWER}]
        return JSONResponse(
            {**common, "content": content, "stop_reason": "end_turn", "stop_sequence": None,
             "usage": MESSAGE_USAGE}
        )  # fmt: skip
    first: dict[str, Any] = {**common, "content": [], "stop_reason": None, "stop_sequence": None,
             "usage": {**MESSAGE_USAGE, "output_tokens": 1}}  # fmt: skip
    return _events(
        {"type": "message_start", "message": first},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0,
         "delta": {"type": "text_delta", "text": ANSWER}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
         "usage": {"output_tokens": 50}},
        {"type": "message_stop"},
        named=True,
    )  # fmt: skip


async def generate(request: Request) -> Response:
    usage = {"promptTokenCount": 1000, "candidatesTokenCount": 20, "thoughtsTokenCount": 30,
             "cachedContentTokenCount": 600, "totalTokenCount": 1050}  # fmt: skip
    content = {"role": "model", "parts": [{"text": ANSWER}]}
    answer = {
        "candidates": [{"content": content, "finishReason": "STOP", "index": 0}],
        "usageMetadata": usage,
        "modelVersion": "gemini-2.5-pro",
    }
    if "stream" in request.url.path:
        return _events(answer)
    return JSONResponse(answer)


async def converse(_: Request) -> Response:
    message = {"role": "assistant", "content": [{"text": ANSWER}]}
    usage = {"inputTokens": 100, "outputTokens": 50, "totalTokens": 950,
             "cacheReadInputTokens": 800, "cacheWriteInputTokens": 100}  # fmt: skip
    return JSONResponse(
        {"output": {"message": message}, "stopReason": "end_turn", "usage": usage,
         "metrics": {"latencyMs": 1}}
    )  # fmt: skip


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    routes = [
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/responses", responses, methods=["POST"]),
        Route("/v1/embeddings", embeddings, methods=["POST"]),
        Route("/v1/messages", messages, methods=["POST"]),
        Route("/{version}/models/{model:path}", generate, methods=["POST"]),
        Route("/model/{model:path}/converse", converse, methods=["POST"]),
    ]
    with ServerThread(Starlette(routes=routes)) as server:
        yield server.url


# ── the clients ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(autouse=True)
def _no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # Else it asks GitHub for prices.
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")


def _openai(url: str) -> Any:
    return pytest.importorskip("openai").OpenAI(api_key="none", base_url=f"{url}/v1")


def _anthropic(url: str) -> Any:
    return pytest.importorskip("anthropic").Anthropic(api_key="none", base_url=url)


def _google(url: str) -> Any:
    genai = pytest.importorskip("google.genai")
    options = genai.types.HttpOptions(base_url=url)
    return genai.Client(api_key="none", http_options=options)


def _langchain(url: str, **options: Any) -> Any:
    made = pytest.importorskip("langchain_openai").ChatOpenAI
    return made(model="gpt-4o", api_key="none", base_url=f"{url}/v1", **options)


MESSAGES: Any = [{"role": "user", "content": PROMPT}]


def openai_chat(url: str) -> Any:
    return _openai(url).chat.completions.create(model="gpt-4o", messages=MESSAGES)


def openai_stream(url: str) -> Any:
    *_, last = _openai(url).chat.completions.create(
        model="gpt-4o", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    return last


def openai_responses(url: str) -> Any:
    return _openai(url).responses.create(model="gpt-5", input=PROMPT)


def openai_responses_stream(url: str) -> Any:
    *_, last = _openai(url).responses.create(model="gpt-5", input=PROMPT, stream=True)
    return last


def openai_embeddings(url: str) -> Any:
    return _openai(url).embeddings.create(model="embed-3", input=PROMPT, encoding_format="float")


def anthropic_message(url: str) -> Any:
    return _anthropic(url).messages.create(model="claude-opus-4", max_tokens=100, messages=MESSAGES)


def anthropic_stream(url: str) -> Any:
    with _anthropic(url).messages.stream(
        model="claude-opus-4", max_tokens=100, messages=MESSAGES
    ) as stream:
        return stream.get_final_message()


def google_content(url: str) -> Any:
    client = _google(url)  # It closes its connections when nobody holds it.
    return client.models.generate_content(model="gemini-2.5-pro", contents=PROMPT)


def google_stream(url: str) -> Any:
    client = _google(url)
    *_, last = client.models.generate_content_stream(model="gemini-2.5-pro", contents=PROMPT)
    return last


def bedrock_converse(url: str) -> Any:
    boto3 = pytest.importorskip("boto3")
    client = boto3.client("bedrock-runtime", region_name="us-east-1", endpoint_url=url)
    content = [{"text": PROMPT}]
    return client.converse(modelId="nova", messages=[{"role": "user", "content": content}])


def litellm_openai(url: str) -> Any:
    litellm = pytest.importorskip("litellm")
    return litellm.completion(
        model="openai/gpt-4o", messages=MESSAGES, api_key="none", api_base=f"{url}/v1"
    )


def litellm_anthropic(url: str) -> Any:
    litellm = pytest.importorskip("litellm")
    return litellm.completion(
        model="anthropic/claude-opus-4", messages=MESSAGES, api_key="none", api_base=url
    )


def langchain_message(url: str) -> Any:
    return _langchain(url).invoke(PROMPT)


def langchain_stream(url: str) -> Any:
    whole = None
    for chunk in _langchain(url, stream_usage=True).stream(PROMPT):
        whole = chunk if whole is None else whole + chunk
    return whole


OPENAI = {"model": "gpt-4o-2024-08-06", "provider": "openai"}
CLAUDE = {"model": "claude-opus-4", "provider": "anthropic"}
GEMINI = {"model": "gemini-2.5-pro", "provider": "gcp.gemini"}
CALLS: dict[Any, tuple[dict[str, int], dict[str, str]]] = {
    openai_chat: (CHAT, OPENAI),
    openai_stream: (CHAT, OPENAI),
    openai_responses: (CHAT, {"model": "gpt-5", "provider": "openai"}),
    openai_responses_stream: (CHAT, {"model": "gpt-5", "provider": "openai"}),
    openai_embeddings: ({"input_tokens": 8}, {"model": "embed-3", "provider": "openai"}),
    anthropic_message: (MESSAGE, CLAUDE),
    anthropic_stream: (MESSAGE, CLAUDE),
    google_content: (CHAT, GEMINI),
    google_stream: (CHAT, GEMINI),
    bedrock_converse: (MESSAGE, {"model": "nova", "provider": "aws.bedrock"}),
    litellm_openai: (CHAT, OPENAI),
    litellm_anthropic: (MESSAGE, CLAUDE),
    langchain_message: (CHAT, OPENAI),
    langchain_stream: (CHAT, OPENAI),
}


@pytest.mark.filterwarnings("ignore")  # Of the clients' own.
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
def test_an_answer_becomes_one_event(call: Any, url: str, doow_events: MemoryTransport) -> None:
    """The tokens and whose they are; of prompt and answer, nothing."""
    measurements, attribution = CALLS[call]
    model = "nova" if call is bedrock_converse else None
    doow.track_llm(call(url), license_id="lic_acme", model=model, attribution={"team": "ai"})
    doow.flush()
    [event] = doow_events.events
    found = {each["metric_name"]: each["quantity"] for each in event["measurements"]}
    assert found == measurements
    assert event["attribution"] == {**attribution, "team": "ai"}
    assert (event["license_id"], event["unit"]) == ("lic_acme", "tokens")
    assert "know" not in json.dumps(event)


@pytest.mark.filterwarnings("ignore")
def test_a_stream_that_tells_no_usage_is_refused_with_the_remedy(
    url: str, doow_events: MemoryTransport
) -> None:
    """Its last chunk is like the others."""
    *_, last = _openai(url).chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True)
    with pytest.raises(InvalidEvent, match="include_usage"):
        doow.track_llm(last, license_id="lic_acme")
    assert doow_events.events == []
