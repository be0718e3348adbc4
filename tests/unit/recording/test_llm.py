"""The usage of a model's answer, by its shape; what is not known is refused with a remedy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from doow_serverless._recording.llm import labelled, usage_of
from doow_serverless.errors import InvalidEvent

CHAT = {
    "object": "chat.completion",
    "model": "gpt-4o-2024-08-06",
    "choices": [{"message": {"content": "secret"}}],
    "usage": {
        "prompt_tokens": 1000,
        "completion_tokens": 50,
        "total_tokens": 1050,
        "prompt_tokens_details": {"cached_tokens": 600, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 30},
    },
}
RESPONSES = {
    "object": "response",
    "model": "gpt-5",
    "usage": {
        "input_tokens": 1000,
        "output_tokens": 50,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    },
}
MESSAGE = {
    "type": "message",
    "model": "claude-opus-4",
    "usage": {
        "input_tokens": 100,
        "output_tokens": 50,
        "cache_read_input_tokens": 800,
        "cache_creation_input_tokens": 100,
    },
}
CONVERSE = {
    "output": {"message": {"role": "assistant"}},
    "usage": {
        "inputTokens": 100,
        "outputTokens": 50,
        "totalTokens": 950,
        "cacheReadInputTokens": 800,
        "cacheWriteInputTokens": 0,
    },
}
GENERATED = {
    "modelVersion": "gemini-2.5-pro",
    "usageMetadata": {
        "promptTokenCount": 900,
        "toolUsePromptTokenCount": 100,
        "candidatesTokenCount": 20,
        "thoughtsTokenCount": 30,
        "cachedContentTokenCount": 600,
    },
}
LANGCHAIN = {
    "usage_metadata": {
        "input_tokens": 1000,
        "output_tokens": 50,
        "input_token_details": {"cache_read": 600, "cache_creation": 0},
        "output_token_details": {"reasoning": 30},
    },
    "response_metadata": {"model_name": "gpt-4o", "model_provider": "openai"},
}
WHOLE = {"input_tokens": 1000, "output_tokens": 50}

KNOWN: dict[str, tuple[Any, dict[str, int], dict[str, str]]] = {
    "chat": (
        CHAT,
        {**WHOLE, "cached_input_tokens": 600, "reasoning_tokens": 30},
        {"model": "gpt-4o-2024-08-06"},
    ),
    "responses": (RESPONSES, WHOLE, {"model": "gpt-5", "provider": "openai"}),
    "the last event of responses": (
        {"type": "response.completed", "response": RESPONSES},
        WHOLE,
        {"model": "gpt-5", "provider": "openai"},
    ),
    "message": (
        MESSAGE,
        {**WHOLE, "cached_input_tokens": 800, "cache_creation_input_tokens": 100},
        {"model": "claude-opus-4", "provider": "anthropic"},
    ),
    "converse": (
        CONVERSE,
        {"input_tokens": 900, "output_tokens": 50, "cached_input_tokens": 800},
        {"provider": "aws.bedrock"},
    ),
    "the last event of converse": (
        {"metadata": {"usage": CONVERSE["usage"], "metrics": {"latencyMs": 1}}},
        {"input_tokens": 900, "output_tokens": 50, "cached_input_tokens": 800},
        {"provider": "aws.bedrock"},
    ),
    "generated": (
        GENERATED,
        {**WHOLE, "cached_input_tokens": 600, "reasoning_tokens": 30},
        {"model": "gemini-2.5-pro", "provider": "gcp.gemini"},
    ),
    "langchain": (
        LANGCHAIN,
        {**WHOLE, "cached_input_tokens": 600, "reasoning_tokens": 30},
        {"model": "gpt-4o", "provider": "openai"},
    ),
    "embeddings": (
        {"object": "list", "model": "embed-3", "usage": {"prompt_tokens": 8, "total_tokens": 8}},
        {"input_tokens": 8},
        {"model": "embed-3"},
    ),
}


def as_objects(thing: Any) -> Any:
    """The same, as clients pass it: attributes instead of entries."""
    if isinstance(thing, dict):
        return SimpleNamespace(**{name: as_objects(value) for name, value in thing.items()})
    return thing


@pytest.mark.parametrize("are_objects", [False, True], ids=["JSON", "objects"])
@pytest.mark.parametrize("kind", KNOWN)
def test_what_is_known(kind: str, are_objects: bool) -> None:
    """Input with what was cached, output with what was thought, whoever adds it up."""
    answer, measurements, found = KNOWN[kind]
    assert usage_of(as_objects(answer) if are_objects else answer) == (measurements, found)


REFUSED: dict[str, tuple[Any, str]] = {
    "a text": ("Hello", "not 'str'"),
    "nothing": (None, "not 'NoneType'"),
    "a stand-in": (MagicMock(), "not 'MagicMock'"),
    "a truth for a number": ({"usage": {"prompt_tokens": True}}, "not 'dict'"),
    "a number below zero": ({"usage": {"prompt_tokens": -1}}, "not 'dict'"),
    "nothing used": ({"usage": {"prompt_tokens": 0, "completion_tokens": 0}}, "nothing to count"),
    "a chunk of a stream": (
        {"object": "chat.completion.chunk", "usage": None},
        "include_usage",
    ),
    "the first of Anthropic's": (
        {"type": "message_start", "message": MESSAGE},
        "get_final_message",
    ),
    "the last of Anthropic's, without the input": (
        {"type": "message_delta", "usage": {"output_tokens": 50, "input_tokens": None}},
        "get_final_message",
    ),
    "a message of LangChain's": (
        {"usage_metadata": None, "response_metadata": {}},
        "stream_usage=True",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not(kind: str) -> None:
    """It is said what was given, or what to do."""
    answer, reason = REFUSED[kind]
    with pytest.raises(InvalidEvent, match=reason):
        usage_of(answer)


class Hostile:
    """Has properties that raise."""

    @property
    def usage(self) -> Any:
        raise RuntimeError("of a client's own")


def test_what_raises_is_refused() -> None:
    """A property of theirs must not end the handler."""
    with pytest.raises(InvalidEvent, match=r"cannot be read \(RuntimeError\)"):
        usage_of(Hostile())


def test_no_method_of_a_mapping_is_called() -> None:
    """A subclass of dict may do anything in its own ``get``."""

    class Counting(dict[str, Any]):
        def get(self, *_: Any) -> Any:
            raise AssertionError

        def __getitem__(self, _: str) -> Any:
            raise AssertionError

    measurements, _ = usage_of(Counting(CHAT))
    assert measurements["input_tokens"] == 1000


def test_what_the_caller_says_wins() -> None:
    """Over what the answer says; and of that, attribution over all."""
    found = {"model": "m", "provider": "p"}
    assert labelled(found, None, None, None, []) == found
    assert labelled(found, "mine", "azure.ai.openai", {"team": "ai"}, []) == {
        "model": "mine",
        "provider": "azure.ai.openai",
        "team": "ai",
    }
    assert labelled(found, "mine", None, {"model": "last"}, [])["model"] == "last"
