"""Backups and restores of SQLite files wait no longer than they are told to, and end when they are cut off."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.databases.connect import connect
from orchestrator.databases.dumping import Restoring
from orchestrator.databases.port.database import Database
from orchestrator.databases.sqlite.dump import Waiting, dump_file, restore_file
from orchestrator.databases.sqlite.session import SQLiteLock
from orchestrator.errors import BackupError
from orchestrator.fleet.secrets import Template
from orchestrator.fleet.tenant import Isolation, Limits, Server, Tenant
from tests.projects import until

#: What keeps others from reading a file, and what keeps them from writing it.
FOR_HIMSELF, READING = "BEGIN EXCLUSIVE", "BEGIN; SELECT * FROM t"
#: Seconds in which nothing here would end by itself.
LONG = Limits(lock_timeout=3600)
SHORT = Limits(lock_timeout=0.2)

Action = Callable[[Database, Tenant, Path, Limits], Awaitable[Any]]


def filled(path: Path, letter: str, rows: int) -> None:
    """A file with ``rows`` half kilobytes of one letter."""
    with closing(sqlite3.connect(path)) as made, made:
        made.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)")
        made.executemany("INSERT INTO t (body) VALUES (?)", [(letter * 500,)] * rows)


def letters(path: Path) -> list[tuple[str, int]]:
    """What a file is full of, and how many rows of it there are."""
    with closing(sqlite3.connect(path)) as found:
        return found.execute("SELECT substr(body, 1, 1), count(*) FROM t GROUP BY 1").fetchall()


async def dump(database: Database, tenant: Tenant, dump: Path, limits: Limits) -> None:
    """Save it beside the dump that is there."""
    await database.dump(tenant, dump.with_name("new.dump"), "suite", limits)


async def restore(database: Database, tenant: Tenant, dump: Path, limits: Limits) -> None:
    """Put the dump back."""
    await database.restore(Restoring(tenant, dump, (), "alembic_version", "suite", limits, 0.0))


async def keep(database: Database, tenant: Tenant, dump: Path, limits: Limits) -> None:
    """Put the dump back, after a copy of what is there."""
    work = Restoring(tenant, dump, (), "alembic_version", "suite", limits, 0.0)
    await database.restore(replace(work, keep=True, run="run"))


@pytest.fixture
def tenant(tmp_path: Path) -> Tenant:
    """A file full of a, and a dump full of b, of several parts."""
    filled(tmp_path / "a.db", "a", 20)
    filled(tmp_path / "a.dump", "b", 20_000)
    return Tenant("a", "files", Isolation.FILE, file=str(tmp_path / "a.db"))


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """A server of files."""
    return connect(Server("files", Template(f"sqlite:///{tmp_path}", tmp_path)))


def at_work() -> list[str]:
    """Threads that make or put back a backup."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("orchestrator-backup")]


LOCKED = pytest.mark.parametrize(
    ("action", "lock"), [(dump, FOR_HIMSELF), (restore, FOR_HIMSELF), (restore, READING), (keep, FOR_HIMSELF)]
)


@LOCKED
async def test_bounded(tmp_path: Path, database: Database, tenant: Tenant, action: Action, lock: str) -> None:
    """Somebody has the file for longer than the lock timeout: said, and tried again later; the file is what it was."""
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
        for statement in lock.split(";"):
            other.execute(statement).fetchone()
        started = time.monotonic()
        async with asyncio.timeout(20):
            with pytest.raises(BackupError, match=r"waited longer than 0\.2 s") as refused:
                await action(database, tenant, tmp_path / "a.dump", SHORT)
        assert time.monotonic() - started >= 0.2
        assert (refused.value.passing, "--lock-timeout" in (refused.value.hint or "")) == (True, True)
    assert (letters(tmp_path / "a.db"), at_work()) == ([("a", 20)], [])
    assert [path.name for path in tmp_path.glob("*kept*")] == []
    await action(database, tenant, tmp_path / "a.dump", SHORT)


@LOCKED
async def test_cancelled(tmp_path: Path, database: Database, tenant: Tenant, action: Action, lock: str) -> None:
    """Cut off while it waits: no thread goes on, and the tenant's lock is kept for as long as one does."""
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
        for statement in lock.split(";"):
            other.execute(statement).fetchone()
        working = asyncio.create_task(action(database, tenant, tmp_path / "a.dump", LONG))

        async def threads() -> list[str]:
            return at_work()

        await until(threads, bool)
        working.cancel()
        async with asyncio.timeout(20):
            with pytest.raises(asyncio.CancelledError):
                await working
        assert at_work() == []
    lock_of_it = SQLiteLock(tenant)
    assert await lock_of_it.try_lock()
    lock_of_it.unlock()
    assert letters(tmp_path / "a.db") == [("a", 20)]


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_cut_off_in_the_middle(tmp_path: Path, tenant: Tenant, mode: str) -> None:
    """What has been written of a dump is rolled back; a copy of what there was is not left behind."""
    file = tmp_path / "a.db"
    with closing(sqlite3.connect(file)) as live:
        live.execute(f"PRAGMA journal_mode = {mode}")
    waiting, parts = Waiting(5.0), []

    class Cut(Waiting):
        def progress(self, status: int, *left: int) -> None:
            parts.append(left)
            if left[0] and len(parts) > 1:
                waiting.cut.set()
            waiting.progress(status, *left)

    work = Restoring(tenant, tmp_path / "a.dump", (), "alembic_version", "suite", SHORT, 0.0, keep=True, run="run")
    with pytest.raises(BackupError, match="cut off"):
        restore_file(file, work, Cut(5.0))
    assert len(parts) > 1
    assert letters(file) == [("a", 20)]
    assert not list(tmp_path.glob("*kept*"))
    restore_file(file, work, Waiting(5.0))
    assert letters(file) == [("b", 20_000)]


def test_writer_goes_on_beside_a_long_dump(tmp_path: Path) -> None:
    """In a file with a write-ahead log somebody writes after every part: the dump ends, and is of one moment."""
    file, new = tmp_path / "a.db", tmp_path / "new.dump"
    filled(file, "a", 20_000)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        parts = []

        class Busy(Waiting):
            def progress(self, status: int, *left: int) -> None:
                parts.append(left)
                assert len(parts) < 20
                other.execute("UPDATE t SET body = 'other'")
                super().progress(status, *left)

        dump_file(file, new, Busy(5.0))
        assert other.execute("SELECT DISTINCT body FROM t").fetchall() == [("other",)]
    assert len(parts) > 1
    assert letters(new) == [("a", 20_000)]
