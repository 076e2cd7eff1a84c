"""The proxy that makes the network longer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.proxy import serve


@asynccontextmanager
async def line(delay: float) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection through the proxy to a server that sends back what it gets, until it gets an end."""

    ended = asyncio.Event()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()
        await writer.wait_closed()
        ended.set()

    upstream = await asyncio.start_server(echo, "127.0.0.1", 0)
    proxy = await serve("127.0.0.1", upstream.sockets[0].getsockname()[1], delay)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.sockets[0].getsockname()[1])
    try:
        # Data that the proxy lost would be waited for without end.
        async with asyncio.timeout(10):
            yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()
        # Behind the client's end comes the proxy's towards the server.
        async with asyncio.timeout(10):
            await ended.wait()
        proxy.close()
        upstream.close()


async def test_a_round_trip_takes_both_delays() -> None:
    """An answer comes after twice the delay, not before."""
    async with line(0.02) as (reader, writer):
        started = time.monotonic()
        writer.write(b"question")
        assert await reader.readexactly(8) == b"question"
        assert time.monotonic() - started >= 0.04


async def test_delays_overlap() -> None:
    """What is sent together arrives together: a line is long, not narrow."""
    async with line(0.05) as (reader, writer):
        started = time.monotonic()
        for _ in range(20):
            writer.write(b"x")
            await asyncio.sleep(0)
        await reader.readexactly(20)
        assert time.monotonic() - started < 20 * 0.05


async def test_everything_arrives_in_order() -> None:
    """Megabytes go through whole, also what was sent before the other end was there."""
    sent = bytes(range(256)) * 8192
    async with line(0.001) as (reader, writer):
        writer.write(sent)
        assert await reader.readexactly(len(sent)) == sent


async def test_an_end_is_handed_on() -> None:
    """When the client goes, the server hears of it, and the other way round."""
    async with line(0.001) as (reader, writer):
        writer.write(b"last")
        await reader.readexactly(4)
        writer.write_eof()
        assert await reader.read() == b""
