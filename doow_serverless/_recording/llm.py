"""What the answer of a language model says of its usage, told by its shape alone.

No client is imported, and nothing of prompt or answer is looked at. The names of the measurements
follow OpenTelemetry's for generative AI: the tokens that were cached are among the input, those of
reasoning among the output, whatever the provider adds up itself.
https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
"""

from __future__ import annotations

from doow_serverless._redaction import Unreadable, show, type_name
from doow_serverless.errors import InvalidEvent

from .plain import guarded, plain
from .rules import check_attribution

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .rules import LeftOut

_KNOWN = (
    "track_llm() takes what a client of OpenAI, Anthropic, Google, Bedrock's converse, LiteLLM or "
    "LangChain has answered, of a stream its last chunk"
)


class _Shape:
    """How one kind of answer tells its usage. All names are paths, with dots.

    Args:
        place: Where the usage is.
        told_by: What is a number there in this kind alone.
        input: Tokens of the prompt; where there are several names, they are summed.
        output: Tokens of the answer; likewise.
        cached: Those of the input that came from a cache.
        written: Those of the input that were written to one.
        reasoning: Those of the output that nobody reads.
        model: Names of the model's name, of which the first that is there counts.
        provider: Who answers so, and nobody else.
    """

    __slots__ = ("cached", "input", "model", "output", "place", "provider", "reasoning", "told_by",
                 "written")  # fmt: skip

    def __init__(
        self,
        place: str,
        told_by: str,
        *,
        input: tuple[str, ...],  # the field's own term
        output: tuple[str, ...],
        cached: str = "",
        written: str = "",
        reasoning: str = "",
        model: tuple[str, ...] = ("model",),
        provider: str = "",
    ) -> None:
        self.place = place
        self.told_by = told_by
        self.input = input
        self.output = output
        self.cached = cached
        self.written = written
        self.reasoning = reasoning
        self.model = model
        self.provider = provider


_SHAPES = (
    # OpenAI's chat completions, and all who answer as they do; LiteLLM adds what it knows.
    _Shape(
        "usage",
        "prompt_tokens",
        input=("prompt_tokens",),
        output=("completion_tokens",),
        cached="prompt_tokens_details.cached_tokens",
        written="cache_creation_input_tokens",
        reasoning="completion_tokens_details.reasoning_tokens",
    ),
    # OpenAI's responses.
    _Shape(
        "usage",
        "input_tokens_details.cached_tokens",
        input=("input_tokens",),
        output=("output_tokens",),
        cached="input_tokens_details.cached_tokens",
        reasoning="output_tokens_details.reasoning_tokens",
        provider="openai",
    ),
    # Anthropic's messages; their input leaves out what was cached.
    _Shape(
        "usage",
        "input_tokens",
        input=("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"),
        output=("output_tokens",),
        cached="cache_read_input_tokens",
        written="cache_creation_input_tokens",
        provider="anthropic",
    ),
    # Amazon Bedrock's converse; so does this.
    _Shape(
        "usage",
        "inputTokens",
        input=("inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens"),
        output=("outputTokens",),
        cached="cacheReadInputTokens",
        written="cacheWriteInputTokens",
        provider="aws.bedrock",
    ),
    # LangChain's messages, whatever is behind them.
    _Shape(
        "usage_metadata",
        "input_tokens",
        input=("input_tokens",),
        output=("output_tokens",),
        cached="input_token_details.cache_read",
        written="input_token_details.cache_creation",
        reasoning="output_token_details.reasoning",
        model=("response_metadata.model_name", "response_metadata.model"),
    ),
    # Google's Gen AI SDK; its output leaves out what was thought.
    _Shape(
        "usage_metadata",
        "prompt_token_count",
        input=("prompt_token_count", "tool_use_prompt_token_count"),
        output=("candidates_token_count", "thoughts_token_count"),
        cached="cached_content_token_count",
        reasoning="thoughts_token_count",
        model=("model_version",),
        provider="gcp.gemini",
    ),
    # Google's answers as JSON.
    _Shape(
        "usageMetadata",
        "promptTokenCount",
        input=("promptTokenCount", "toolUsePromptTokenCount"),
        output=("candidatesTokenCount", "thoughtsTokenCount"),
        cached="cachedContentTokenCount",
        reasoning="thoughtsTokenCount",
        model=("modelVersion",),
        provider="gcp.gemini",
    ),
)
"""From the most particular to the most general, where one includes another."""

_WRAPPED = ("response", "metadata")
"""What the last chunks of streams wrap the answer in: OpenAI's responses, Bedrock's converse."""
_PROVIDERS = ("response_metadata.model_provider", "_hidden_params.custom_llm_provider")
"""Where LangChain and LiteLLM say who has answered."""

_LITELLM_ROUTE = "_hidden_params.litellm_model_name"
"""Where LiteLLM says it otherwise, as in ``"anthropic/claude-opus-4"``."""


def usage_of(response: object) -> tuple[dict[str, int], dict[str, str]]:
    """The measurements of ``response``, and what it says of its model and provider.

    Raises:
        InvalidEvent: It tells no usage, or not in a way that is known here.
    """
    found = guarded(_answer_in, response)
    if found is None:
        found = guarded(_refusal, response)
        if type(found) is str:
            raise InvalidEvent(found)
    if type(found) is Unreadable:  # A property of theirs raises.
        raise InvalidEvent(f"the usage cannot be read ({type_name(found.fault)})")
    answer, shape, measured = found
    if not measured:
        raise InvalidEvent("no tokens were used, so that there is nothing to count")
    named = guarded(lambda answer: _named(answer, shape), answer)
    return measured, {} if type(named) is Unreadable else named


def _answer_in(response: object) -> tuple[object, _Shape, dict[str, int]] | None:
    """Find the answer that tells its usage: ``response``, or what it wraps."""
    for answer in (response, *(_at(response, name) for name in _WRAPPED)):
        shape = None if answer is None else _shape_of(answer)
        if shape is not None:
            return answer, shape, _measured(answer, shape)
    return None


def _shape_of(answer: object) -> _Shape | None:
    for shape in _SHAPES:
        if _count(answer, f"{shape.place}.{shape.told_by}") is not None:
            return shape
    return None


def _measured(answer: object, shape: _Shape) -> dict[str, int]:
    usage = _at(answer, shape.place)

    def total(names: tuple[str, ...]) -> int:
        return sum(_count(usage, name) or 0 for name in names)

    found = {
        "input_tokens": total(shape.input),
        "output_tokens": total(shape.output),
        "cached_input_tokens": total((shape.cached,)),
        "cache_creation_input_tokens": total((shape.written,)),
        "reasoning_tokens": total((shape.reasoning,)),
    }
    return {name: tokens for name, tokens in found.items() if tokens}


def _named(answer: object, shape: _Shape) -> dict[str, str]:
    package = type(answer).__module__.partition(".")[0]
    model = next((_at(answer, path) for path in shape.model if _at(answer, path)), None)
    provider = next((_at(answer, path) for path in _PROVIDERS if _at(answer, path)), None)
    if provider is None and isinstance(routed := _at(answer, _LITELLM_ROUTE), str):
        provider = routed.rpartition("/")[0].partition("/")[0] or None
    provider = provider or shape.provider or ("openai" if package == "openai" else None)
    found = {"model": model, "provider": provider}
    texts = {name: plain(value) for name, value in found.items()}
    return {name: text for name, text in texts.items() if type(text) is str}


def _refusal(response: object) -> str:
    """Why nothing can be counted, and what to do."""
    kind = _at(response, "type")
    if kind == "message_start":
        return "the first chunk of a stream knows no output yet: pass stream.get_final_message()"
    if _count(response, "usage.output_tokens") is not None:
        return "this chunk tells the output alone: pass stream.get_final_message()"
    if _at(response, "object") == "chat.completion.chunk":
        return (
            "a chunk without usage: the last one has it, where the request says "
            "stream_options={'include_usage': True}"
        )
    if _at(response, "usage_metadata") is None and _at(response, "response_metadata") is not None:
        return "a message without usage: of a stream, have the model made with stream_usage=True"
    return f"{_KNOWN}, not {show(type_name(response))}"


def _count(thing: object, path: str) -> int | None:
    """A number of tokens, where there is one."""
    value = _at(thing, path) if path else None
    return value if type(value) is int and value >= 0 else None


def _at(thing: Any, path: str) -> Any:
    """What ``thing`` has there, as an attribute or as an entry; None where it has nothing.

    Entries of dicts alone are asked for, and nothing is called: another mapping's own method, or a
    stand-in that answers to any name, may do anything.
    """
    for name in path.split("."):
        if thing is None:
            return None
        thing = dict.get(thing, name) if isinstance(thing, dict) else getattr(thing, name, None)
    return thing


def labelled(
    found: Mapping[str, str],
    model: str | None,
    provider: str | None,
    attribution: Mapping[str, Any] | None,
    removed: list[LeftOut],
) -> dict[str, Any]:
    """The attribution of the event: what was found, what the caller knows better, and the rest.

    One that cannot be read goes to ``removed``.
    """
    said = {"model": model, "provider": provider}
    known = {**found, **{name: value for name, value in said.items() if value is not None}}
    return {**known, **check_attribution(attribution, removed, lenient=True)}
