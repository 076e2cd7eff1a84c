"""The journal's SQLite file: open it, also where only reading is allowed, and let several processes share it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import aiosqlite

#: Seconds to wait for another writer.
BUSY_TIMEOUT = 10.0
#: Seconds between two tries where SQLite itself does not wait.
_POLL = 0.02


@dataclass(frozen=True, slots=True)
class Seen:
    """The file as it was last seen in its place: SQLite does not notice that somebody removes it or cuts it off."""

    device: int
    inode: int
    #: Bytes. A file with a write-ahead log only grows.
    size: int

    @classmethod
    def now(cls, path: Path) -> Seen:
        """As it is."""
        found = path.stat()
        return cls(found.st_dev, found.st_ino, found.st_size)

    def is_gone(self, path: Path) -> bool:
        """Another file, or none, is in its place."""
        try:
            found = path.stat()
        except FileNotFoundError:
            return True
        return (found.st_dev, found.st_ino) != (self.device, self.inode)

    def is_cut_off(self, path: Path) -> bool:
        """It is shorter than it was."""
        return path.stat().st_size < self.size


async def share(path: Path) -> None:
    """Let readers and one writer go on at the same time (https://www.sqlite.org/wal.html). The file remembers it.

    Raises:
        sqlite3.Error: the file cannot be made, opened or written.
    """
    deadline = asyncio.get_running_loop().time() + BUSY_TIMEOUT
    while True:
        try:
            with closing(sqlite3.connect(path, timeout=0)) as connection:
                connection.execute("PRAGMA journal_mode = WAL").fetchall()
            return
        except sqlite3.OperationalError as error:
            # SQLite does not wait for another process that is doing the same, whatever the timeout.
            if not _is_busy(error) or asyncio.get_running_loop().time() > deadline:
                raise
        await asyncio.sleep(_POLL)


async def connect(path: Path, *, read_only: bool) -> aiosqlite.Connection:
    """A connection to a file that was read before, so that nothing is left half open when that fails.

    Raises:
        sqlite3.Error: the file cannot be opened or read.
    """
    # Without isolation_level=None Python's driver begins transactions when it sees fit, and none before DDL.
    address = _readable_address(path) if read_only else _tried(_address(path, "mode=rwc"))
    connection = await _opened(aiosqlite.connect(address, uri=True, isolation_level=None, timeout=BUSY_TIMEOUT))
    try:
        # With a write-ahead log this outlives a killed process; only a power failure can take the last batches.
        await connection.execute_fetchall("PRAGMA synchronous = NORMAL")
    except BaseException:
        await connection.close()
        raise
    return connection


async def _opened(opening: aiosqlite.Connection) -> aiosqlite.Connection:
    """Open it, and whatever becomes of whoever asked: its thread does not keep the process from ending.

    aiosqlite ends the thread when the connection is closed. Nobody closes it who was cancelled while it was opened, and
    SQLAlchemy 2.0.36 does not always close what was cancelled later: a command then hung at its end (seen with
    aiosqlite 0.20). SQLAlchemy makes the threads of those that it opens itself daemons, too.
    """
    # Until aiosqlite 0.21 the connection is the thread.
    thread = opening if isinstance(opening, threading.Thread) else opening._thread
    thread.daemon = True
    task = asyncio.ensure_future(opening)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        # Where it could not be opened, nothing is to be closed, and whoever was cancelled is told no more than that.
        with suppress(Exception):
            await (await task).close()
        raise


def _readable_address(path: Path) -> str:
    """How to open a file for reading that may lie where this user cannot write.

    SQLite cannot put its two side files there. It can do without them while nobody writes, that is when there is no
    write-ahead log either.
    """
    address = _address(path, "mode=ro")
    try:
        return _tried(address)
    except sqlite3.OperationalError as error:
        needs_side_files = error.sqlite_errorname.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY"))
        if not needs_side_files or path.with_name(path.name + "-wal").exists():
            raise
    return _tried(address + "&immutable=1")


def _address(path: Path, parameters: str) -> str:
    return f"file:{quote(str(path))}?{parameters}"


def _tried(address: str) -> str:
    # aiosqlite must not meet a file that cannot be opened: its thread then outlives the call, and prints a traceback
    # when the event loop ends first (seen with 0.22.1).
    with closing(sqlite3.connect(address, uri=True, timeout=0)) as connection:
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
        except sqlite3.OperationalError as error:
            if not _is_busy(error):
                raise
    return address


def _is_busy(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorname.startswith("SQLITE_BUSY")
