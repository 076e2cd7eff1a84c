"""A connection of one's own to a tenant's SQLite file, and the tenant's lock.

Python's driver does not open a transaction before DDL, so that a failing migration would keep its first half. As
SQLAlchemy's documentation of the dialect describes, the driver's own transaction control is switched off and BEGIN is
emitted by us; then DDL rolls back like anything else.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from orchestrator.databases.claims import Marker
from orchestrator.databases.dumping import taken
from orchestrator.databases.sqlite.claims import read_marker, write_marker
from orchestrator.databases.sqlite.reading import file_of, reading_of
from orchestrator.errors import DatabaseError, TenantLocked, Unprovisioned
from orchestrator.fleet.tenant import Limits, Tenant


@dataclass(slots=True)
class SQLiteLock:
    """One tenant's lock."""

    _tenant: Tenant
    _lock: int | None = field(default=None, init=False)

    async def try_lock(self) -> bool:
        """An flock on a file beside the database: closing a descriptor of the database itself drops SQLite's locks."""
        if self._lock is not None:
            return True
        descriptor = os.open(lock_file(file_of(self._tenant)), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"pid {os.getpid()}\n".encode())
        self._lock = descriptor
        return True

    async def lock_holder(self) -> str | None:
        """What the holder wrote into the lock file."""
        with suppress(OSError):
            return lock_file(file_of(self._tenant)).read_text().strip() or None
        return None

    def unlock(self) -> None:
        """Give the tenant's lock back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


@dataclass(slots=True)
class SQLiteSession(SQLiteLock):
    """One connection to one tenant's file."""

    connection: AsyncConnection
    marks_in_transaction: bool = False

    async def heads(self, version_table: str) -> tuple[str, ...]:
        """Read over a second connection: what it sees is what was committed."""
        reading = await asyncio.to_thread(reading_of, self._tenant, version_table)
        if reading.failure is not None:
            raise DatabaseError(f"tenant {self._tenant.id}: {reading.failure.message}")
        return reading.heads

    async def marker(self) -> Marker | None:
        """Read from the file beside it."""
        return await asyncio.to_thread(read_marker, file_of(self._tenant))

    async def mark(self, marker: Marker) -> None:
        """Beside the file, hence in no transaction."""
        await asyncio.to_thread(write_marker, file_of(self._tenant), marker)

    async def script(self, sql: str) -> None:
        """Statement by statement: the driver's own way to run many begins with a COMMIT."""
        for statement in _statements(sql):
            await self.connection.exec_driver_sql(statement)
        raw = (await self.connection.get_raw_connection()).driver_connection
        if raw is not None and not raw.in_transaction:
            raise DatabaseError(
                "the script has ended the transaction that it was run in, and what it did up to there stays",
                hint="take COMMIT and ROLLBACK out of it",
            )

    async def blockers(self) -> tuple[str, ...]:
        """SQLite does not say who holds a file."""
        return ()

    async def invalid_indexes(self) -> Mapping[str, int]:
        """SQLite builds an index or does not."""
        return {}


@asynccontextmanager
async def opened_session(tenant: Tenant, limits: Limits) -> AsyncIterator[SQLiteSession]:
    """A connection of its own to the tenant's file.

    Raises:
        Unprovisioned: the file is not there.
    """
    file = file_of(tenant)
    if not file.is_file():
        raise Unprovisioned(f"tenant {tenant.id}: no file {file}", hint="create it, or upgrade with --provision")
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=str(file)),
        poolclass=NullPool,
        connect_args={"timeout": wait_of(limits)},
    )
    event.listen(engine.sync_engine, "connect", _leave_transactions_to_us)
    event.listen(engine.sync_engine, "begin", _begin)
    try:
        async with engine.connect() as connection:
            session = SQLiteSession(tenant, connection)
            try:
                yield session
            finally:
                session.unlock()
    finally:
        await engine.dispose()


@asynccontextmanager
async def locked(tenant: Tenant, wait: float) -> AsyncIterator[None]:
    """Hold the tenant's lock.

    Args:
        tenant: whose file may be missing, the directories above it as well.
        wait: seconds to wait for whoever has it.

    Raises:
        TenantLocked: somebody still has it then.
    """
    lock = SQLiteLock(tenant)
    file_of(tenant).parent.mkdir(parents=True, exist_ok=True)
    try:
        if not await taken(lock.try_lock, wait):
            raise TenantLocked(
                f"another process is at work on this tenant: {await lock.lock_holder() or 'holder unknown'}",
                hint="wait for it, then try again",
            )
        yield
    finally:
        lock.unlock()


def lock_file(database: Path) -> Path:
    """The file whose lock stands for the tenant."""
    return database.with_name(f".{database.name}.lock")


def wait_of(limits: Limits) -> float:
    """Seconds to wait for somebody else's transaction."""
    return limits.lock_timeout if limits.lock_timeout is not None else 5.0


def _statements(sql: str) -> Iterator[str]:
    """The statements of a script, by SQLite's own idea of where one ends."""
    begun = ""
    for piece in re.split(r"(?<=;)", sql):
        begun += piece
        if sqlite3.complete_statement(begun):
            yield begun
            begun = ""
    if begun.strip():
        yield begun


def _leave_transactions_to_us(connection: Any, _: Any) -> None:
    connection.isolation_level = None


def _begin(connection: Connection) -> None:
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN")
