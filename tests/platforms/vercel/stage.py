"""The stage on which Vercel's applications are watched: metered, and bare beside it."""

from __future__ import annotations

import re
from itertools import count
from typing import TYPE_CHECKING, Any, Literal

from doow_serverless.local import Fault, Ingest
from doow_serverless.local.vercel.runtime import VercelRuntime
from tests.network import KEY
from tests.platforms.vercel.sources import SHAPES, source_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from typing_extensions import Self

    from doow_serverless.local._posts import Post
    from doow_serverless.local.vercel.runtime import Response

DELAY_S = 0.1
"""How long Doow takes to answer, so that what does not wait for it is seen not to."""


class Stage:
    """Runs an application as Vercel does, the metered one and on demand the bare one beside it.

    Args:
        directory: Where to write the sources.
        python: The interpreter of Vercel's runtime.
        shape: One of ``SHAPES``, or the source itself.
        mode: Of the runtime.
        bare: Whether to run the bare application, too.
        options: Of the wrapper.
        env: Variables of both.
        **more: Of ``source_of``, or of the runtime.
    """

    def __init__(
        self,
        directory: Path,
        python: Path,
        shape: str,
        mode: str,
        *,
        bare: bool = False,
        http11: bool = False,
        options: Mapping[str, Any] = {},
        env: Mapping[str, str] = {},
        **more: Any,
    ) -> None:
        self.shape = shape
        self.mode: Literal["ipc", "lambda"] = "ipc" if mode == "ipc" else "lambda"
        self.ingest = Ingest()
        self._calls = count(1)
        self._runtimes: dict[str, VercelRuntime] = {}
        for kind in ("metered", "bare") if bare else ("metered",):
            text = shape
            if shape in SHAPES:
                text = source_of(shape, bare=kind == "bare", http11=http11, options=options)
            (directory / kind / "api").mkdir(parents=True)
            (directory / kind / "api" / "index.py").write_text(text)
            self._runtimes[kind] = VercelRuntime(
                "api/index.py",
                directory / kind,
                mode=self.mode,
                python=python,
                env={
                    "DOOW_TRACK_API_KEY": KEY,
                    "DOOW_TRACK_ENDPOINT": self.ingest.url,
                    "DOOW_TRACK_LICENSE_ID": "lic_1",
                    # Ample: how long a busy machine takes is not what most tests are about.
                    "DOOW_TRACK_BUDGET": "20000",
                    **env,
                },
                **more,
            )

    def __enter__(self) -> Self:
        self.ingest.start()
        entered: list[VercelRuntime] = []
        try:
            for runtime in self._runtimes.values():
                runtime.__enter__()
                entered.append(runtime)
        except BaseException:
            for runtime in entered:
                runtime.__exit__()
            self.ingest.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for runtime in self._runtimes.values():
            runtime.__exit__()
        self.ingest.close()
        if kind is None:
            # The process contains them, as ours does, where a fixture looks for them.
            text = self.runtime.stdout
            assert "a fault of doow-serverless itself" not in text, text

    @property
    def runtime(self) -> VercelRuntime:
        """That of the metered application."""
        return self._runtimes["metered"]

    @property
    def bare(self) -> VercelRuntime:
        """That of the bare application."""
        return self._runtimes["bare"]

    def delay(self, delay_s: float = DELAY_S) -> None:
        """Let Doow take its time from now on."""
        self.ingest.clear_faults()
        self.ingest.fault(Fault(delay_s=delay_s, times=None))

    def next_call(self) -> str:
        """A name by which the events of one request are known."""
        return f"call-{next(self._calls)}"

    def request(
        self,
        kind: str,
        call: str | None = None,
        *,
        runtime: VercelRuntime | None = None,
        **more: Any,
    ) -> Response:
        """A request of one kind; ``"head"`` is a plain one by another method."""
        method, path = ("HEAD", "plain") if kind == "head" else ("GET", kind)
        return (runtime or self.runtime).request(
            method, f"/{path}/{call or self.next_call()}", **more
        )

    def recorded(self, call: str) -> list[str]:
        """The metrics of a request that arrived, in the order of their arrival."""
        return [
            event["measurements"][0]["metric_name"]
            for event in self.ingest.events()
            if event["attribution"] == {"call": call}
        ]

    def posts(self, call: str) -> list[Post]:
        """The POSTs that carried events of a request."""
        ids = {
            event["event_id"]
            for event in self.ingest.events()
            if event["attribution"] == {"call": call}
        }
        return [post for post in self.ingest.posts() if ids & set(post.event_ids)]


def comparable(response: Response) -> dict[str, Any]:
    """A response without what differs from one second, and one cold start, to the next."""
    raw = re.sub(rb"(?i)(\r\ndate: )[^\r]*", rb"\1", response.raw)
    raw = re.sub(rb"(?i)\r\nx-vercel-internal-timing: [^\r]*", b"", raw)
    headers = [
        ("date", "") if name.lower() == "date" else (name, v) for name, v in response.headers
    ]
    return {
        "status": response.status,
        "headers": headers,
        "body": response.body,
        "raw": raw,
        "error": response.error,
    }
