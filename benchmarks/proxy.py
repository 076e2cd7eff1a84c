"""A TCP proxy that makes the network longer: ``python -m benchmarks.proxy --to HOST:PORT --delay-ms 1``.

Every piece of data is handed on ``delay`` after it came in, in either direction, so that a question and its answer take
twice that. Data is never held back behind other data (delays overlap), as on a real line.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import selectors
import socket
from collections.abc import Sequence


class _Side(asyncio.Protocol):
    """One end of one connection; hands on to the other end."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.other: _Side | None = None
        self.transport: asyncio.Transport | None = None
        #: What came in before the other end was connected.
        self.early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        # asyncio sets TCP_NODELAY by itself; small answers are not held back.

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.early.append(data)
        elif self.delay:
            asyncio.get_running_loop().call_later(self.delay, self.other.send, data)
        else:
            self.other.send(data)

    def send(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            # Behind what is still under way.
            asyncio.get_running_loop().call_later(self.delay, self.other.close)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def join(self, other: _Side) -> None:
        """Connect both ends, and hand on what came in before."""
        self.other, other.other = other, self
        early, self.early = self.early, []
        for data in early:
            self.data_received(data)
        if self.transport is None or self.transport.is_closing():
            other.close()


async def serve(host: str, port: int, delay: float) -> asyncio.Server:
    """Listen on a free port of 127.0.0.1.

    Args:
        host: where to connect to.
        port: its port.
        delay: seconds that data is under way, in each direction.

    Returns:
        The listening server; its port is ``sockets[0].getsockname()[1]``.
    """
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def connect(client: _Side) -> None:
        try:
            _, upstream = await loop.create_connection(lambda: _Side(delay), host, port)
        except OSError:
            client.close()
            return
        client.join(upstream)

    class _Client(_Side):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            task = loop.create_task(connect(self))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    return await loop.create_server(lambda: _Client(delay), "127.0.0.1", 0, family=socket.AF_INET)


def precise_loop() -> asyncio.AbstractEventLoop:
    """An event loop whose timers are exact: epoll rounds up to whole milliseconds, select(2) takes microseconds."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until killed; the port is printed first."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proxy", description=main.__doc__)
    parser.add_argument("--to", required=True, metavar="HOST:PORT")
    parser.add_argument("--delay-ms", type=float, default=1.0, help="in each direction (default: 1)")
    options = parser.parse_args(arguments)
    host, _, port = options.to.rpartition(":")

    async def run() -> None:
        server = await serve(host, int(port), options.delay_ms / 1000)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=precise_loop) as runner:
        runner.run(run())


if __name__ == "__main__":
    main()
