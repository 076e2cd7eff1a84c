"""SQLite: one file per tenant.

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
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, event
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from orchestrator.databases.answers import Check, Reading, certainly, never
from orchestrator.databases.asides import Aside, Leave, Leaving, require_ours
from orchestrator.databases.claims import Claim, Found, Marker, Pool, Stock
from orchestrator.databases.cloning import Clone, Cloning, Footprint
from orchestrator.databases.definitions import Definition
from orchestrator.databases.definitions_sqlite import definitions_in
from orchestrator.databases.dumping import Dumped, Restored, Restoring, taken
from orchestrator.databases.failures import describe
from orchestrator.databases.findings import Finding, Level
from orchestrator.databases.fingerprint_sqlite import fingerprint_file
from orchestrator.databases.own_names import SCRATCH
from orchestrator.databases.own_thread import on_own_thread
from orchestrator.databases.script import Snapshot, Step
from orchestrator.databases.sizes import Size, sizes_in_file
from orchestrator.databases.sqlite_asides import (
    bring_file_back,
    drop_file_aside,
    files_aside,
    kept_from_writers,
    move_aside,
    no_other_file_aside,
    remark_file,
)
from orchestrator.databases.sqlite_claims import claim_file, drop_file, found_file, read_marker, write_marker
from orchestrator.databases.sqlite_clone import SQLiteMeter, clear_beside, copied, place_beside
from orchestrator.databases.sqlite_dump import Waiting, dump_file, restore_file
from orchestrator.databases.sqlite_template import building, copy_file, keep_file, note_of, text_of
from orchestrator.errors import DatabaseError, ServerUnreachable, TenantLocked, Unprovisioned
from orchestrator.fleet.tenant import Limits, Server, Tenant

if TYPE_CHECKING:
    from orchestrator.history.reach import Reach


class SQLite:
    """A directory of SQLite files, as the port asks."""

    dialect = "sqlite"
    replays = False

    def __init__(self, server: Server) -> None:
        self.name = server.name

    @property
    def identity(self) -> str:
        """Files have no server: each declaration is one of its own."""
        return f"sqlite:{self.name}"

    @property
    def default_database(self) -> str | None:
        """Every tenant has a file of its own."""
        return None

    async def read(self, tenants: Sequence[Tenant], version_table: str) -> Mapping[str, Reading]:
        """Every file opened read-only, in one thread: a file is read faster than a task is switched."""
        return await asyncio.to_thread(lambda: {tenant.id: _read(tenant, version_table) for tenant in tenants})

    @asynccontextmanager
    async def session(self, tenant: Tenant, application: str, limits: Limits) -> AsyncIterator[SQLiteSession]:
        """A connection of its own to the tenant's file."""
        file = _file(tenant)
        if not file.is_file():
            raise Unprovisioned(f"tenant {tenant.id}: no file {file}", hint="create it, or upgrade with --provision")
        engine = create_async_engine(
            URL.create("sqlite+aiosqlite", database=str(file)),
            poolclass=NullPool,
            connect_args={"timeout": _wait(limits)},
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

    async def replay(
        self, tenant: Tenant, steps: Sequence[Step], version_table: str, application: str, limits: Limits
    ) -> None:
        """Not to be had: there is no round trip to save."""
        raise DatabaseError(f"tenant {tenant.id}: nothing is replayed on SQLite")

    async def fingerprints(self, tenants: Sequence[Tenant], version_table: str) -> Mapping[str, str]:
        """From the definitions as SQLite keeps them; :mod:`~orchestrator.databases.fingerprint_sqlite` says which."""
        digests = await asyncio.to_thread(lambda: {tenant.id: _fingerprint(tenant) for tenant in tenants})
        return {tenant: digest for tenant, digest in digests.items() if digest is not None}

    async def definitions(self, tenants: Sequence[Tenant]) -> Mapping[str, Sequence[Definition]]:
        """The same, taken apart."""
        found = await asyncio.to_thread(lambda: {tenant.id: _definitions(tenant) for tenant in tenants})
        return {tenant: definitions for tenant, definitions in found.items() if definitions is not None}

    async def require_dumping(self) -> None:
        """Python's own SQLite does it."""

    async def dump(self, tenant: Tenant, dump: Path, application: str, limits: Limits) -> Dumped:
        """By SQLite's backup; see :mod:`~orchestrator.databases.sqlite_dump`."""
        waiting = Waiting(_wait(limits))
        return await on_own_thread(lambda: dump_file(_file(tenant), dump, waiting), waiting.cut.set)

    async def restore(self, work: Restoring) -> Restored:
        """Into the live file, in one transaction."""
        waiting = Waiting(_wait(work.limits))
        async with _locked(work.tenant, work.lock_wait):
            await work.begin()
            return await on_own_thread(lambda: restore_file(_file(work.tenant), work, waiting), waiting.cut.set)

    async def whereabouts(self, tenants: Sequence[Tenant]) -> Mapping[str, str]:
        """Device and inode: links lead to one file under several names."""
        return await asyncio.to_thread(lambda: {tenant.id: _whereabouts(_file(tenant)) for tenant in tenants})

    async def others_within(self, tenant: Tenant, version_tables: Collection[str]) -> Sequence[str]:
        """A file has no schemas."""
        return ()

    async def fill(
        self,
        tenant: Tenant,
        made: Step | Snapshot,
        shape: str | None,
        version_table: str,
        application: str,
        limits: Limits,
    ) -> str:
        """Not to be had: a file is copied."""
        raise DatabaseError(f"tenant {tenant.id}: a file has no schemas")

    async def text(self, tenant: Tenant, application: str, limits: Limits) -> str:
        """What the shell's ``.dump`` says."""
        return await asyncio.to_thread(text_of, _file(tenant))

    def template(self, key: str, directory: Path) -> str:
        """A file."""
        return str(directory / f"{key}.db")

    async def note(self, template: str) -> Mapping[str, Any] | None:
        """A file beside it."""
        return await asyncio.to_thread(note_of, Path(template))

    @asynccontextmanager
    async def building(self, template: str) -> AsyncIterator[bool]:
        """An flock on a file beside it."""
        with building(Path(template)) as alone:
            yield alone

    async def keep_template(self, made: Tenant, template: str, note: Mapping[str, Any]) -> str | None:
        """Copied, then renamed."""
        return await asyncio.to_thread(keep_file, _file(made), Path(template), note)

    async def copy_template(
        self, tenant: Tenant, template: str, shape: str, heads: tuple[str, ...], version_table: str
    ) -> None:
        """Copied under another name, looked at, and put in its place, under the tenant's lock."""
        file, lock = _file(tenant), SQLiteLock(tenant)

        def look(copy: Path) -> bool:
            as_copied = replace(tenant, file=str(copy))
            return (_fingerprint(as_copied), _read(as_copied, version_table).heads) == (shape, heads)

        await asyncio.to_thread(lambda: file.parent.mkdir(parents=True, exist_ok=True))
        try:
            if not await lock.try_lock():
                raise TenantLocked(f"another process is at work on this tenant: {await lock.lock_holder()}")
            await asyncio.to_thread(copy_file, Path(template), file, look)
        finally:
            lock.unlock()

    async def fill_pool(
        self, pool: Pool, size: int, *, tidy: bool = True, stopped: Callable[[], bool] = never
    ) -> Stock:
        """None: a file is copied as fast as it is renamed."""
        return Stock(0)

    async def drop_pool(self, fleet: str) -> int:
        """There are none."""
        return 0

    async def sizes(
        self, tenants: Sequence[Tenant], tables: Collection[str], most: int | None = None
    ) -> Mapping[str, Mapping[str, Size]]:
        """Counted, in one thread."""
        there = sorted(
            (tenant for tenant in tenants if _file(tenant).is_file()),
            key=lambda tenant: _file(tenant).stat().st_size,
            reverse=True,
        )
        return await asyncio.to_thread(lambda: {tenant.id: _sizes(tenant, tables) for tenant in there[:most]})

    def limit_connections(self, most: int) -> None:
        """None are kept."""

    async def close(self, keep: int = 0) -> None:
        """No connection is kept."""

    def scope_sql(self, tenant: Tenant) -> str:
        """Nothing: the file is the scope."""
        return ""

    async def provision(self, tenant: Tenant) -> None:
        """Make an empty file, and the directories above it."""
        file = _file(tenant)
        if not file.exists():
            no_other_file_aside(tenant, file, leaving=False)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        except OSError as error:
            raise DatabaseError(f"tenant {tenant.id}: cannot create {file}: {error.strerror}") from error

    async def found(self, tenant: Tenant) -> Found:
        """From the file, and the mark beside it."""
        return await asyncio.to_thread(found_file, _file(tenant))

    async def claim(self, tenant: Tenant, claim: Claim, lock_wait: float) -> Found:
        """See :mod:`~orchestrator.databases.sqlite_claims`."""
        async with _locked(tenant, lock_wait):
            file = _file(tenant)
            if not file.exists():
                no_other_file_aside(tenant, file, leaving=True)
            return await asyncio.to_thread(claim_file, file, claim)

    async def drop(self, tenant: Tenant, lock_wait: float, still: Callable[[], Awaitable[bool]] = certainly) -> None:
        """The file, and what is beside it but for the lock's."""
        async with _locked(tenant, lock_wait):
            if await still():
                await asyncio.to_thread(drop_file, _file(tenant))
                await asyncio.to_thread(write_marker, _file(tenant), None)

    @asynccontextmanager
    async def set_aside(self, tenant: Tenant, leave: Leave) -> AsyncIterator[Leaving]:
        """See :mod:`~orchestrator.databases.sqlite_asides`."""
        file = _file(tenant)
        async with _locked(tenant, leave.lock_wait):
            if not file.is_file():
                raise Unprovisioned(f"there is no {tenant.place} any more")
            require_ours(tenant, read_marker(file), leave.marker)
            keeping = kept_from_writers(file, _wait(leave.limits))
            await asyncio.to_thread(keeping.__enter__)
            with ExitStack() as stack:
                stack.push(keeping)
                leaving = Leaving(tenant, leave.marker)
                yield leaving
                await asyncio.to_thread(move_aside, leaving, leave, file)

    async def asides(self, within: Collection[str | None] | None = None) -> Sequence[Aside]:
        """Hidden files with a mark beside them; only in directories that are named: a server has no list of its own."""
        directories = [name for name in dict.fromkeys(within or ()) if name is not None]
        return await asyncio.to_thread(files_aside, self.name, directories)

    async def remark(self, aside: Aside, marker: Marker, lock_wait: float) -> None:
        """Beside the file."""
        async with _locked(aside.tenant, lock_wait):
            await asyncio.to_thread(remark_file, aside, marker)

    async def bring_back(self, aside: Aside, lock_wait: float) -> None:
        """By a rename."""
        async with _locked(aside.tenant, lock_wait):
            await asyncio.to_thread(bring_file_back, aside, _file(aside.tenant))

    async def drop_aside(self, aside: Aside, limits: Limits, lock_wait: float) -> None:
        """The file, then its mark."""
        async with _locked(aside.tenant, lock_wait):
            await asyncio.to_thread(drop_file_aside, aside)

    @asynccontextmanager
    async def scratch(self, like: Tenant) -> AsyncIterator[Tenant]:
        """An empty file in a temporary directory, which the system clears up after a kill."""
        with tempfile.TemporaryDirectory(prefix=SCRATCH) as directory:
            file = Path(directory) / "scratch.db"
            file.touch()
            yield replace(like, id=Path(directory).name, file=str(file), pin=None)

    @asynccontextmanager
    async def clone(self, tenant: Tenant, cloning: Cloning) -> AsyncIterator[Clone]:
        """By SQLite's backup, into a hidden directory beside the file."""
        file = _file(tenant)
        if not file.is_file():
            raise Unprovisioned(f"tenant {tenant.id}: no file {file}", hint="rehearse a tenant that is there")
        with place_beside(file) as place:
            waiting = Waiting(_wait(cloning.limits))
            yield await on_own_thread(lambda: copied(tenant, file, place, waiting, cloning), waiting.cut.set)

    async def clear_scratch(self, tenants: Sequence[Tenant]) -> None:
        """Hidden directories beside the files."""
        for file in {_file(tenant).parent: _file(tenant) for tenant in tenants}.values():
            await asyncio.to_thread(clear_beside, file)

    @asynccontextmanager
    async def meter(self, clone: Tenant) -> AsyncIterator[SQLiteMeter]:
        """Nothing to connect to."""
        yield SQLiteMeter(_file(clone))

    async def footprints(self, tenants: Sequence[Tenant]) -> Mapping[str, Footprint]:
        """The files' sizes; no file system tells for sure when one was made."""
        there = {tenant.id: _file(tenant) for tenant in tenants if _file(tenant).is_file()}
        return {tenant: Footprint(file.stat().st_size, 0) for tenant, file in there.items()}

    async def version(self) -> str:
        """The version of the SQLite library in this process."""
        return sqlite3.sqlite_version

    async def free_connections(self) -> int | None:
        """Files are opened, not connected to."""
        return None

    async def diagnose(self, tenants: Sequence[Tenant], work: Mapping[str, Sequence[Reach]]) -> Sequence[Finding]:
        """Whether the files can be written, and others made beside them."""
        files = [_file(tenant) for tenant in tenants]
        closed = [file for file in files if file.exists() and not os.access(file, os.W_OK)]
        closed += [
            place for place in {file.parent for file in files} if place.exists() and not os.access(place, os.W_OK)
        ]
        if closed:
            return [Finding(Level.PROBLEM, "rights", f"{closed[0]} cannot be written", "make it writable")]
        return [Finding(Level.OK, "version", f"SQLite {sqlite3.sqlite_version}, {len(files)} files")]

    async def rows(self, sql: str) -> Sequence[Mapping[str, Any]]:
        """A directory of files has no table of tenants."""
        raise self._no_source("sql")

    async def write(self, sql: str, parameters: Mapping[str, Any], check: Check | None = None) -> None:
        """A directory of files has no table of tenants."""
        raise self._no_source("sql")

    async def schemas(self, pattern: str) -> Sequence[str]:
        """A file has no schemas."""
        raise self._no_source("schemas")

    async def databases(self, pattern: str) -> Sequence[str]:
        """A directory of files has no databases."""
        raise self._no_source("databases")

    def _no_source(self, kind: str) -> DatabaseError:
        return DatabaseError(
            f"server {self.name} is SQLite and cannot serve a `{kind}:` source",
            hint="list its tenants under `tenants:`, or use a `python:` source",
        )


@dataclass(slots=True)
class SQLiteLock:
    """One tenant's lock."""

    _tenant: Tenant
    _lock: int | None = field(default=None, init=False)

    async def try_lock(self) -> bool:
        """An flock on a file beside the database: closing a descriptor of the database itself drops SQLite's locks."""
        if self._lock is not None:
            return True
        descriptor = os.open(lock_file(_file(self._tenant)), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
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
            return lock_file(_file(self._tenant)).read_text().strip() or None
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
        reading = await asyncio.to_thread(_read, self._tenant, version_table)
        if reading.failure is not None:
            raise DatabaseError(f"tenant {self._tenant.id}: {reading.failure.message}")
        return reading.heads

    async def marker(self) -> Marker | None:
        """Read from the file beside it."""
        return await asyncio.to_thread(read_marker, _file(self._tenant))

    async def mark(self, marker: Marker) -> None:
        """Beside the file, hence in no transaction."""
        await asyncio.to_thread(write_marker, _file(self._tenant), marker)

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


@asynccontextmanager
async def _locked(tenant: Tenant, wait: float) -> AsyncIterator[None]:
    lock = SQLiteLock(tenant)
    _file(tenant).parent.mkdir(parents=True, exist_ok=True)
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


def _wait(limits: Limits) -> float:
    """Seconds to wait for somebody else's transaction."""
    return limits.lock_timeout if limits.lock_timeout is not None else 5.0


def _file(tenant: Tenant) -> Path:
    assert tenant.file is not None, "a tenant of a SQLite server has a file"
    return Path(tenant.file)


def _whereabouts(file: Path) -> str:
    try:
        found = file.stat()
    except OSError:
        return os.path.realpath(file)
    return f"{found.st_dev}:{found.st_ino}"


def _read(tenant: Tenant, table: str) -> Reading:
    file = _file(tenant)
    if not file.is_file():
        return Reading(exists=False)
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
            name = '"' + table.replace('"', '""') + '"'
            if not connection.execute(
                "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)
            ).fetchone():
                return Reading(exists=True)
            rows = connection.execute(f"SELECT version_num FROM {name}").fetchall()
    except sqlite3.Error as error:
        return Reading(exists=True, failure=describe(ServerUnreachable(f"{file}: {error}")))
    return Reading(True, tuple(sorted(row[0] for row in rows)))


def _fingerprint(tenant: Tenant) -> str | None:
    file = _file(tenant)
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
            return fingerprint_file(connection)
    except sqlite3.Error:
        return None


def _definitions(tenant: Tenant) -> tuple[Definition, ...] | None:
    file = _file(tenant)
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
            return definitions_in(connection)
    except sqlite3.Error:
        return None


def _sizes(tenant: Tenant, tables: Collection[str]) -> dict[str, Size]:
    file = _file(tenant)
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
            return sizes_in_file(connection, tables)
    except sqlite3.Error:
        return {}


def _leave_transactions_to_us(connection: Any, _: Any) -> None:
    connection.isolation_level = None


def _begin(connection: Connection) -> None:
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN")
