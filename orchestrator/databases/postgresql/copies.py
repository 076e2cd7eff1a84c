"""Copies of tenants of PostgreSQL: dumped into files, restored, cloned beside the live ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg

from orchestrator.databases.cloning import Clone, Cloning
from orchestrator.databases.dumping import Dumped, Restored, Restoring
from orchestrator.databases.failures import describe
from orchestrator.databases.postgresql.connections import Connections
from orchestrator.databases.postgresql.copying.clone import Cloner
from orchestrator.databases.postgresql.copying.database_restore import restore_database
from orchestrator.databases.postgresql.copying.dump import Source
from orchestrator.databases.postgresql.copying.meter import PostgreSQLMeter
from orchestrator.databases.postgresql.copying.schema_restore import restore_schema
from orchestrator.databases.postgresql.copying.snapshot import plain
from orchestrator.databases.postgresql.scratch import clear
from orchestrator.databases.server_binaries import find_client
from orchestrator.errors import (
    BackupError,
    Unprovisioned,
)
from orchestrator.fleet.tenant import Limits, Tenant


class Copies(Connections):
    """Tenants in files, and beside themselves."""

    async def require_dumping(self) -> None:
        """pg_dump, pg_restore and psql, none older than the server."""
        await asyncio.to_thread(find_client, int(await self.version()))

    async def dump(self, tenant: Tenant, dump: Path, application: str, limits: Limits) -> Dumped:
        """By pg_dump, in its custom format; see :mod:`~orchestrator.databases.postgresql.copying.dump`."""
        async with self._dumping(tenant) as source:
            return await source.dump(tenant, dump, application, limits)

    async def text(self, tenant: Tenant, application: str, limits: Limits) -> str:
        """By pg_dump, as a script that needs no psql."""
        async with self._dumping(tenant) as source:
            return plain(await source.text(tenant, application, limits))

    async def restore(self, work: Restoring) -> Restored:
        """A schema in one transaction, a database beside the live one."""
        async with self._dumping(work.tenant) as source:
            if work.tenant.schema is not None:
                return await restore_schema(source, work)
            others = (self.default_database, "postgres", "template1")
            other = next(name for name in others if name not in (None, source.database))
            return await restore_database(source, work, other or "postgres")

    @asynccontextmanager
    async def _dumping(self, tenant: Tenant) -> AsyncIterator[Source]:
        """How programs come to the tenant's database; what the server says against it is told as our error."""
        try:
            client = await asyncio.to_thread(find_client, int(await self.version()))
            name = tenant.database
            if name is None:
                async with self._connected(None) as raw:
                    name = str(await raw.fetchval("SELECT current_database()"))
            url = await asyncio.to_thread(self._text)
            path = self._search_path(tenant)
            yield Source(client, int(self._version or 0), url, self._password, self._connect, name, path)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            failure = describe(error)
            passing = failure.passing or isinstance(error, asyncpg.ObjectInUseError)
            raise BackupError(failure.message, passing=passing, hint=failure.hint) from error

    @asynccontextmanager
    async def clone(self, tenant: Tenant, cloning: Cloning) -> AsyncIterator[Clone]:
        """See :mod:`~orchestrator.databases.postgresql.copying.clone`."""
        async with self._dumping(tenant) as source:
            # Locked there by whoever makes or drops scratch databases: the one that all of them work from.
            async with self._maintenance() as raw:
                maintenance = str(await raw.fetchval("SELECT current_database()"))
            cloner = Cloner(source, maintenance, self._forget)
            async with cloner.clone(tenant, cloning) as made:
                yield made

    async def clear_scratch(self, tenants: Sequence[Tenant]) -> None:
        """Databases, and schemas of the databases that tenants' schemas are in."""
        async with self._maintenance() as raw:
            await clear(raw, databases=True)
        for database in dict.fromkeys(tenant.database for tenant in tenants if tenant.schema is not None):
            with suppress(Unprovisioned):
                async with self._connected(database) as raw:
                    await clear(raw, databases=False)

    @asynccontextmanager
    async def meter(self, clone: Tenant) -> AsyncIterator[PostgreSQLMeter]:
        """On a connection of its own, in the clone's database."""
        raw = await self._connect(clone.database)
        try:
            yield PostgreSQLMeter(raw, clone.schema or str(await raw.fetchval("SELECT current_schema()")))
        finally:
            await raw.close(timeout=5)
