"""Results that go on after their handler has returned: streaming responses of Starlette."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import Self

    from .invocation import Visit


def is_stream(result: Any) -> bool:
    """Whether ``result`` is a response whose body is yet to be produced.

    Told by what it has, since no framework is imported here: Starlette's ``StreamingResponse``,
    which is FastAPI's and that of Azure's HTTP streams, keeps its body in ``body_iterator``.
    """
    return hasattr(getattr(result, "body_iterator", None), "__aiter__")


def follow(result: Any, call: Visit) -> None:
    """Have ``call`` go on while the body of ``result`` is produced, and end when that ends."""
    call.hand_over()
    result.body_iterator = _Stream(result.body_iterator, call)


class _Stream:
    """The chunks of a body, each produced within the visit, whose flush the end waits for."""

    def __init__(self, chunks: Any, call: Visit) -> None:
        self._chunks = chunks.__aiter__()
        self._call = call

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        async with self._call:
            async for chunk in self._chunks:
                self._call.hand_over()
                return chunk
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End early, as where the client has gone."""
        async with self._call:
            close = getattr(self._chunks, "aclose", None)
            if close is not None:
                await close()
