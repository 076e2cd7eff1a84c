"""A longer way to the server: the proxy as a process of its own, and what it really adds."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from benchmarks.bench import Bench

#: Round trips that the proxy is judged by.
_TRIPS = 200
_MS = 1000.0


@contextmanager
def network(bench: Bench, added_ms: float) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The server, further away.

    Args:
        bench: the run.
        added_ms: what is added to each round trip, half of it in each direction.

    Returns:
        Its address through the proxy, and what was measured of the proxy.
    """
    direct = round_trip_ms(bench.server.url)
    with proxy(bench.server.url, 0) as url:
        undelayed = round_trip_ms(url)
    with proxy(bench.server.url, added_ms) as url:
        # Timers and processes wake up late: what that takes is taken off what the proxy waits.
        excess = round_trip_ms(url) - direct - added_ms
    with proxy(bench.server.url, max(added_ms - excess, 0.0)) as url:
        note = (
            f"One round trip (SELECT 1, median of {_TRIPS}): {direct:.2f} ms directly, {undelayed:.2f} ms through the"
            f" proxy without delay, {round_trip_ms(url):.2f} ms with it."
        )
        bench.say(f"  {note}")
        yield url, (note,)


@contextmanager
def proxy(url: str, added_ms: float) -> Iterator[str]:
    """The address ``url`` through a proxy that adds ``added_ms`` to each round trip."""
    parts = urlsplit(url)
    target = f"{parts.hostname}:{parts.port or 5432}"
    command = [sys.executable, "-m", "benchmarks.proxy", "--to", target, "--delay-ms", str(added_ms / 2)]
    root = Path(__file__).resolve().parent.parent
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        account = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
        yield parts._replace(netloc=f"{account}127.0.0.1:{port}").geturl()
    finally:
        process.kill()
        process.wait()


def round_trip_ms(url: str) -> float:
    """Milliseconds that a question and its answer take, the median of many."""

    async def ask() -> list[float]:
        connection = await asyncpg.connect(url)
        try:
            found = []
            for _ in range(_TRIPS):
                started = time.perf_counter()
                await connection.execute("SELECT 1")
                found.append(time.perf_counter() - started)
            return found
        finally:
            await connection.close()

    return statistics.median(asyncio.run(ask())) * _MS
