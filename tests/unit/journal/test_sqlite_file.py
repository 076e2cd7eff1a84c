"""Connections to the journal's file, and what becomes of them when whoever asked for one is cancelled."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

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
