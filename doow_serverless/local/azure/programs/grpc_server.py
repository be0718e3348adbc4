"""The host's end of the gRPC stream, for a process that has no grpcio: JSON lines on both sides.

Run by ``AzureHost`` under the worker's interpreter. It knows no protocol: a line on standard input
is a message to the worker, a message of the worker is a line on standard output. Only what cannot
wait for a pipe is done here: taking the time, and killing a worker whose answer has arrived.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc  # type: ignore[import-untyped]
from google.protobuf import json_format  # type: ignore[import-untyped]
from rpc_protos import load_protos  # type: ignore[import-not-found]  # this script's neighbour

if TYPE_CHECKING:
    from collections.abc import Iterator

_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
_protos = load_protos()


class _Bridge(_protos.FunctionRpcServicer):  # type: ignore[misc, name-defined]
    """One worker at a time."""

    def __init__(self) -> None:
        self._outgoing: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._sent: dict[str, tuple[float, int | None]] = {}
        self._one_line_at_a_time = threading.Lock()

    def EventStream(self, incoming: Iterator[Any], _: Any) -> Iterator[Any]:  # noqa: N802
        """Serve one worker, from its start to its end."""
        self._outgoing = queue.SimpleQueue()
        reader = threading.Thread(target=self._read, args=(incoming, self._outgoing), daemon=True)
        reader.start()
        yield from iter(self._outgoing.get, None)

    def pass_on(self, line: str) -> None:
        """A line of the host's: a message, and whom to kill once it is answered."""
        order = json.loads(line)
        message = json_format.ParseDict(order["message"], _protos.StreamingMessage())
        if message.WhichOneof("content") == "invocation_request":
            invocation_id = message.invocation_request.invocation_id
            self._sent[invocation_id] = (time.monotonic(), order["kill"])
        self._outgoing.put(message)

    def write(self, **content: Any) -> None:
        with self._one_line_at_a_time:
            sys.stdout.write(json.dumps(content) + "\n")
            sys.stdout.flush()

    def _read(self, incoming: Iterator[Any], outgoing: queue.SimpleQueue[Any]) -> None:
        worker = ""
        try:
            for message in incoming:
                at = time.monotonic()
                worker = worker or message.start_stream.worker_id
                invocation_id = message.invocation_response.invocation_id
                sent_at, kill = self._sent.pop(invocation_id, (at, None))
                if kill is not None:
                    os.killpg(kill, signal.SIGKILL)
                fields = json_format.MessageToDict(message)
                self.write(worker=worker, message=fields, sent_at=sent_at, received_at=at)
        except grpc.RpcError:
            pass  # as it ends when the worker is killed
        outgoing.put(None)
        self.write(worker=worker, ended=True)


def main() -> None:
    """Serve until standard input ends."""
    bridge = _Bridge()
    with ThreadPoolExecutor(max_workers=4) as pool:
        server = grpc.server(pool, options=_UNLIMITED)
        _protos.add_FunctionRpcServicer_to_server(bridge, server)
        bridge.write(port=server.add_insecure_port("127.0.0.1:0"))
        server.start()
        for line in sys.stdin:
            bridge.pass_on(line)
        server.stop(grace=0).wait()


if __name__ == "__main__":
    main()
