"""SQLite: one file per tenant."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.databases.answers import Check, Reading, certainly, never
from orchestrator.databases.asides import Aside, Leave, Leaving, require_ours
from orchestrator.databases.claims import Claim, Found, Marker, Pool, Stock
from orchestrator.databases.cloning import Clone, Cloning, Footprint
from orchestrator.databases.definitions import Definition
from orchestrator.databases.dumping import Dumped, Restored, Restoring
from orchestrator.databases.findings import Finding, Level
from orchestrator.databases.own_names import SCRATCH
from orchestrator.databases.own_thread import on_own_thread
from orchestrator.databases.postgresql.script import Snapshot, Step
from orchestrator.databases.sizes import Size
from orchestrator.databases.sqlite.asides import (
    bring_file_back,
    drop_file_aside,
    files_aside,
    kept_from_writers,
    move_aside,
    no_other_file_aside,
    remark_file,
)
from orchestrator.databases.sqlite.claims import claim_file, drop_file, found_file, read_marker, write_marker
from orchestrator.databases.sqlite.clone import SQLiteMeter, clear_beside, copied, place_beside
from orchestrator.databases.sqlite.dump import Waiting, dump_file, restore_file
from orchestrator.databases.sqlite.reading import (
    definitions_of,
    file_of,
    fingerprint_of,
    reading_of,
    sizes_of,
    whereabouts_of,
)
from orchestrator.databases.sqlite.session import SQLiteLock, SQLiteSession, locked, opened_session, wait_of
from orchestrator.databases.sqlite.template import building, copy_file, keep_file, note_of, text_of
from orchestrator.errors import DatabaseError, TenantLocked, Unprovisioned
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
        return await asyncio.to_thread(lambda: {tenant.id: reading_of(tenant, version_table) for tenant in tenants})

    @asynccontextmanager
    async def session(self, tenant: Tenant, application: str, limits: Limits) -> AsyncIterator[SQLiteSession]:
        """A connection of its own to the tenant's file."""
        async with opened_session(tenant, limits) as session:
            yield session

    async def replay(
        self, tenant: Tenant, steps: Sequence[Step], version_table: str, application: str, limits: Limits
    ) -> None:
        """Not to be had: there is no round trip to save."""
        raise DatabaseError(f"tenant {tenant.id}: nothing is replayed on SQLite")

    async def fingerprints(
        self, tenants: Sequence[Tenant], version_table: str, also: frozenset[str] = frozenset()
    ) -> Mapping[str, str]:
        """From the definitions as SQLite keeps them; :mod:`~orchestrator.databases.sqlite.fingerprint` says which."""
        digests = await asyncio.to_thread(lambda: {tenant.id: fingerprint_of(tenant) for tenant in tenants})
        return {tenant: digest for tenant, digest in digests.items() if digest is not None}

    async def look(
        self, tenants: Sequence[Tenant], version_table: str, also: frozenset[str] = frozenset()
    ) -> tuple[Mapping[str, Reading], Mapping[str, str]]:
        """One after the other: there are no connections to save."""
        readings = await self.read(tenants, version_table)
        found = [tenant for tenant in tenants if readings[tenant.id].found]
        return readings, await self.fingerprints(found, version_table, also)

    async def definitions(
        self, tenants: Sequence[Tenant], also: frozenset[str] = frozenset()
    ) -> Mapping[str, Sequence[Definition]]:
        """The same, taken apart."""
        found = await asyncio.to_thread(lambda: {tenant.id: definitions_of(tenant) for tenant in tenants})
        return {tenant: definitions for tenant, definitions in found.items() if definitions is not None}

    async def require_dumping(self) -> None:
        """Python's own SQLite does it."""

    async def dump(self, tenant: Tenant, dump: Path, application: str, limits: Limits) -> Dumped:
        """By SQLite's backup; see :mod:`~orchestrator.databases.sqlite.dump`."""
        waiting = Waiting(wait_of(limits))
        return await on_own_thread(lambda: dump_file(file_of(tenant), dump, waiting), waiting.cut.set)

    async def restore(self, work: Restoring) -> Restored:
        """Into the live file, in one transaction."""
        waiting = Waiting(wait_of(work.limits))
        async with locked(work.tenant, work.lock_wait):
            await work.begin()
            return await on_own_thread(lambda: restore_file(file_of(work.tenant), work, waiting), waiting.cut.set)

    async def whereabouts(self, tenants: Sequence[Tenant]) -> Mapping[str, str]:
        """Device and inode: links lead to one file under several names."""
        return await asyncio.to_thread(lambda: {tenant.id: whereabouts_of(file_of(tenant)) for tenant in tenants})

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
        return await asyncio.to_thread(text_of, file_of(tenant))

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
        return await asyncio.to_thread(keep_file, file_of(made), Path(template), note)

    async def copy_template(
        self, tenant: Tenant, template: str, shape: str, heads: tuple[str, ...], version_table: str
    ) -> None:
        """Copied under another name, looked at, and put in its place, under the tenant's lock."""
        file, lock = file_of(tenant), SQLiteLock(tenant)

        def look(copy: Path) -> bool:
            as_copied = replace(tenant, file=str(copy))
            return (fingerprint_of(as_copied), reading_of(as_copied, version_table).heads) == (shape, heads)

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
            (tenant for tenant in tenants if file_of(tenant).is_file()),
            key=lambda tenant: file_of(tenant).stat().st_size,
            reverse=True,
        )
        return await asyncio.to_thread(lambda: {tenant.id: sizes_of(tenant, tables) for tenant in there[:most]})

    def limit_connections(self, most: int) -> None:
        """None are kept."""

    async def close(self, keep: int = 0) -> None:
        """No connection is kept."""

    def scope_sql(self, tenant: Tenant) -> str:
        """Nothing: the file is the scope."""
        return ""

    async def provision(self, tenant: Tenant) -> None:
        """Make an empty file, and the directories above it."""
        file = file_of(tenant)
        if not file.exists():
            no_other_file_aside(tenant, file, leaving=False)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        except OSError as error:
            raise DatabaseError(f"tenant {tenant.id}: cannot create {file}: {error.strerror}") from error

    async def found(self, tenant: Tenant) -> Found:
        """From the file, and the mark beside it."""
        return await asyncio.to_thread(found_file, file_of(tenant))

    async def claim(self, tenant: Tenant, claim: Claim, lock_wait: float) -> Found:
        """See :mod:`~orchestrator.databases.sqlite.claims`."""
        async with locked(tenant, lock_wait):
            file = file_of(tenant)
            if not file.exists():
                no_other_file_aside(tenant, file, leaving=True)
            return await asyncio.to_thread(claim_file, file, claim)

    async def drop(self, tenant: Tenant, lock_wait: float, still: Callable[[], Awaitable[bool]] = certainly) -> None:
        """The file, and what is beside it but for the lock's."""
        async with locked(tenant, lock_wait):
            if await still():
                await asyncio.to_thread(drop_file, file_of(tenant))
                await asyncio.to_thread(write_marker, file_of(tenant), None)

    @asynccontextmanager
    async def set_aside(self, tenant: Tenant, leave: Leave) -> AsyncIterator[Leaving]:
        """See :mod:`~orchestrator.databases.sqlite.asides`."""
        file = file_of(tenant)
        async with locked(tenant, leave.lock_wait):
            if not file.is_file():
                raise Unprovisioned(f"there is no {tenant.place} any more")
            require_ours(tenant, read_marker(file), leave.marker)
            keeping = kept_from_writers(file, wait_of(leave.limits))
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
        async with locked(aside.tenant, lock_wait):
            await asyncio.to_thread(remark_file, aside, marker)

    async def bring_back(self, aside: Aside, lock_wait: float) -> None:
        """By a rename."""
        async with locked(aside.tenant, lock_wait):
            await asyncio.to_thread(bring_file_back, aside, file_of(aside.tenant))

    async def drop_aside(self, aside: Aside, limits: Limits, lock_wait: float) -> None:
        """The file, then its mark."""
        async with locked(aside.tenant, lock_wait):
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
        file = file_of(tenant)
        if not file.is_file():
            raise Unprovisioned(f"tenant {tenant.id}: no file {file}", hint="rehearse a tenant that is there")
        with place_beside(file) as place:
            waiting = Waiting(wait_of(cloning.limits))
            yield await on_own_thread(lambda: copied(tenant, file, place, waiting, cloning), waiting.cut.set)

    async def clear_scratch(self, tenants: Sequence[Tenant]) -> None:
        """Hidden directories beside the files."""
        for file in {file_of(tenant).parent: file_of(tenant) for tenant in tenants}.values():
            await asyncio.to_thread(clear_beside, file)

    @asynccontextmanager
    async def meter(self, clone: Tenant) -> AsyncIterator[SQLiteMeter]:
        """Nothing to connect to."""
        yield SQLiteMeter(file_of(clone))

    async def footprints(self, tenants: Sequence[Tenant]) -> Mapping[str, Footprint]:
        """The files' sizes; no file system tells for sure when one was made."""
        there = {tenant.id: file_of(tenant) for tenant in tenants if file_of(tenant).is_file()}
        return {tenant: Footprint(file.stat().st_size, 0) for tenant, file in there.items()}

    async def version(self) -> str:
        """The version of the SQLite library in this process."""
        return sqlite3.sqlite_version

    async def free_connections(self) -> int | None:
        """Files are opened, not connected to."""
        return None

    async def diagnose(self, tenants: Sequence[Tenant], work: Mapping[str, Sequence[Reach]]) -> Sequence[Finding]:
        """Whether the files can be written, and others made beside them."""
        files = [file_of(tenant) for tenant in tenants]
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
