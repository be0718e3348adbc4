"""Results that go on after their handler has returned: streaming responses of Starlette."""

from __future__ import annotations

from doow_serverless._recording.plain import guarded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import Self

    from doow_serverless._callables import Span


_PLAIN = frozenset({type(None), dict, str, bytes, list, tuple, bool, int})
"""Types of most results, which have no stream."""


def is_stream(result: Any) -> bool:
    """Whether ``result`` is a response whose body is yet to be produced.

    Told by what it has, since no framework is imported here: Starlette's ``StreamingResponse``,
    which is FastAPI's and that of Azure's HTTP streams, keeps its body in ``body_iterator``.
    """
    return type(result) not in _PLAIN and guarded(_has_stream, result) is True


def _has_stream(result: Any) -> bool:
    return hasattr(getattr(result, "body_iterator", None), "__aiter__")


def follow(result: Any, span: Span) -> None:
    """Have ``span`` go on while the body of ``result`` is produced, and end when that ends."""
    span.suspend()
    result.body_iterator = _Stream(result.body_iterator, span)


class _Stream:
    """The chunks of a body, each produced within the span, whose flush the end waits for."""

    def __init__(self, chunks: Any, span: Span) -> None:
        self._chunks = chunks.__aiter__()
        self._span = span

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        async with self._span:
            async for chunk in self._chunks:
                self._span.suspend()
                return chunk
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End early, as where the client has gone."""
        async with self._span:
            close = getattr(self._chunks, "aclose", None)
            if close is not None:
                await close()
