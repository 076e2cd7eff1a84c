"""Connections to the journal's file, and what becomes of them when whoever asked for one is cancelled."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import aiosqlite
import pytest

from orchestrator.journal import sqlite_file


async def test_a_connection_does_not_keep_the_process(tmp_path: Path) -> None:
    """Whatever is left open when a command ends: Python waits for no thread of it."""
    before = set(threading.enumerate())
    connection = await sqlite_file.connect(tmp_path / "journal.db", read_only=False)
    try:
        threads = set(threading.enumerate()) - before
        assert threads
        assert all(thread.daemon for thread in threads)
    finally:
        await connection.close()


@pytest.mark.parametrize("turns", range(6))
async def test_cancelled_while_it_is_opened(tmp_path: Path, turns: int) -> None:
    """Whenever it is cancelled, it is closed (conftest.py looks for its thread)."""
    opening = asyncio.create_task(sqlite_file.connect(tmp_path / "journal.db", read_only=False))
    for _ in range(turns):
        await asyncio.sleep(0)
    opening.cancel()
    try:
        connection = await opening
    except asyncio.CancelledError:
        return
    await connection.close()


async def test_cancelled_while_it_fails_to_open(tmp_path: Path) -> None:
    """Whoever is cancelled is told that, not what has become of a file that it no longer wants."""
    begun: asyncio.Future[threading.Thread] = asyncio.get_running_loop().create_future()
    cancelled = threading.Event()

    def gone() -> sqlite3.Connection:
        begun.get_loop().call_soon_threadsafe(begun.set_result, threading.current_thread())
        cancelled.wait()
        return sqlite3.connect(f"file:{tmp_path}/gone.db?mode=ro", uri=True)

    opening = asyncio.create_task(sqlite_file._opened(aiosqlite.Connection(gone, 64)))
    thread = await begun
    opening.cancel()
    cancelled.set()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await asyncio.to_thread(thread.join)
