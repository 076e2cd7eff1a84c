"""What a PostgreSQL server is asked of itself and of its tenants; nothing of theirs is changed."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import asyncpg

from orchestrator.databases.answers import Check, Reading
from orchestrator.databases.cloning import Footprint
from orchestrator.databases.definitions import Definition
from orchestrator.databases.failures import describe
from orchestrator.databases.findings import Finding
from orchestrator.databases.own_names import OURS, SCRATCH
from orchestrator.databases.postgresql.connections import Connections
from orchestrator.databases.postgresql.copying.clone import database_footprint, schema_footprints
from orchestrator.databases.postgresql.diagnosis import diagnose
from orchestrator.databases.postgresql.heads import read_schemas, read_visible
from orchestrator.databases.postgresql.lock_room import Locked, largest, locked
from orchestrator.databases.postgresql.shapes.definitions import definitions_of
from orchestrator.databases.postgresql.shapes.fingerprint import fingerprint_tenants, lines_of_tenants
from orchestrator.databases.sizes import Size, largest_databases, table_sizes
from orchestrator.errors import (
    OrchestratorError,
    Unprovisioned,
)
from orchestrator.fleet.statements import parse as parse_statement
from orchestrator.fleet.tenant import Tenant

if TYPE_CHECKING:
    from orchestrator.history.reach import Reach

#: Milliseconds that reading heads may take, waiting for a lock included: `status` must not hang on one tenant's table.
_READING_MS = 10_000
#: What tells a running server from all others, whatever leads there. Its system identifier does not: a copy of its
#: files has the same one.
_STARTED = "SELECT extract(epoch FROM pg_postmaster_start_time())::text, current_database()::text"
_OTHERS = (
    "SELECT DISTINCT nspname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
    " WHERE relname = ANY ($1::text[]) AND relkind IN ('r', 'p') AND NOT pg_table_is_visible(c.oid)"
    " AND nspname !~ '^pg_' AND NOT nspname ^@ $2 ORDER BY 1"
)
_RawConnection: TypeAlias = asyncpg.Connection
_Then: TypeAlias = Callable[[_RawConnection, Sequence[Tenant]], Awaitable[None]]
_T = TypeVar("_T")


class Looking(Connections):
    """What a server is asked."""

    async def read(self, tenants: Sequence[Tenant], version_table: str) -> Mapping[str, Reading]:
        """One connection per database, then a few statements for all its schemas."""
        return await self._readings(tenants, version_table)

    async def look(
        self, tenants: Sequence[Tenant], version_table: str, also: frozenset[str] = frozenset()
    ) -> tuple[Mapping[str, Reading], Mapping[str, str]]:
        """Shapes over the connections that heads were read with."""
        shapes: dict[str, str] = {}

        async def fingerprint(raw: _RawConnection, here: Sequence[Tenant]) -> None:
            shapes.update(await fingerprint_tenants(raw, here, version_table, self._search_path, also))

        return await self._readings(tenants, version_table, fingerprint), shapes

    async def _readings(self, tenants: Sequence[Tenant], table: str, then: _Then | None = None) -> dict[str, Reading]:
        by_database: dict[str | None, list[Tenant]] = defaultdict(list)
        for tenant in tenants:
            by_database[tenant.database].append(tenant)
        budget = asyncio.Semaphore(self._server.max_concurrency)

        async def read_one(database: str | None, here: list[Tenant]) -> dict[str, Reading]:
            async with budget:
                return await self._read_database(database, here, table, then)

        found = await asyncio.gather(*(read_one(database, here) for database, here in by_database.items()))
        return {tenant: reading for part in found for tenant, reading in part.items()}

    async def fingerprints(
        self, tenants: Sequence[Tenant], version_table: str, also: frozenset[str] = frozenset()
    ) -> Mapping[str, str]:
        """One connection per database, then a few statements for all its schemas."""

        async def fingerprint(raw: _RawConnection, here: Sequence[Tenant]) -> dict[str, str]:
            return await fingerprint_tenants(raw, here, version_table, self._search_path, also)

        return await self._each_database(tenants, fingerprint)

    async def definitions(
        self, tenants: Sequence[Tenant], also: frozenset[str] = frozenset()
    ) -> Mapping[str, Sequence[Definition]]:
        """The same connections, and the lines that are digested."""

        async def read(raw: _RawConnection, here: Sequence[Tenant]) -> dict[str, Sequence[Definition]]:
            lines = await lines_of_tenants(raw, here, self._search_path, also)
            return {tenant: definitions_of(theirs) for tenant, theirs in lines.items()}

        return await self._each_database(tenants, read)

    async def _each_database(
        self, tenants: Sequence[Tenant], read: Callable[[_RawConnection, Sequence[Tenant]], Awaitable[dict[str, _T]]]
    ) -> dict[str, _T]:
        """What ``read`` finds of the tenants of each database; those of one that cannot be read are left out."""
        budget = asyncio.Semaphore(self._server.max_concurrency)
        by_database: dict[str | None, list[Tenant]] = defaultdict(list)
        for tenant in tenants:
            by_database[tenant.database].append(tenant)

        async def look(database: str | None, here: list[Tenant]) -> dict[str, _T]:
            try:
                async with budget, self._connected(database, len(here)) as raw:
                    return await read(raw, here)
            except OrchestratorError:
                return {}

        found = await asyncio.gather(*(look(database, here) for database, here in by_database.items()))
        return {tenant: value for part in found for tenant, value in part.items()}

    async def sizes(
        self, tenants: Sequence[Tenant], tables: Collection[str], most: int | None = None
    ) -> Mapping[str, Mapping[str, Size]]:
        """One connection per database, of the largest where there are many, and one statement for all its schemas."""
        by_database: dict[str | None, list[Tenant]] = defaultdict(list)
        for tenant in tenants:
            by_database[tenant.database].append(tenant)
        budget = asyncio.Semaphore(self._server.max_concurrency)

        async def measure(database: str | None, here: list[Tenant]) -> dict[str, Mapping[str, Size]]:
            try:
                async with budget, self._connected(database) as raw:
                    await raw.execute(f"SET lock_timeout = {_READING_MS}; SET statement_timeout = {_READING_MS}")
                    alone = next((tenant for tenant in here if tenant.schema is None), None)
                    if alone is not None and (path := self._search_path(alone)) is not None:
                        await raw.execute(f"SET search_path = {path}")
                    visible = await raw.fetchval("SELECT current_schema()") if alone is not None else None
                    schemas = {tenant.id: tenant.schema or visible for tenant in here}
                    found = await table_sizes(raw, {schema for schema in schemas.values() if schema}, tables, most)
                    return {tenant: found.get(schema or "", {}) for tenant, schema in schemas.items()}
            except OrchestratorError:
                return {}

        try:
            chosen = await self._largest(list(by_database), most)
        except OrchestratorError:
            return {}
        found = await asyncio.gather(*(measure(database, by_database[database]) for database in chosen))
        return {tenant: sizes for part in found for tenant, sizes in part.items()}

    async def _largest(self, databases: list[str | None], most: int | None) -> list[str | None]:
        if most is None or len(databases) <= most:
            return databases
        names = {database or self.default_database or "": database for database in databases}
        async with self._maintenance() as raw:
            return [names[name] for name in await largest_databases(raw, list(names), most)]

    async def whereabouts(self, tenants: Sequence[Tenant]) -> Mapping[str, str]:
        """When the server was started, to the microsecond, and the database's name on it; every role may ask that."""
        async with self._maintenance() as raw:
            started, here = await raw.fetchrow(_STARTED)
        own = self.default_database if here == "postgres" else here
        return {tenant.id: f"{started}/{tenant.database or own or here}" for tenant in tenants}

    async def others_within(self, tenant: Tenant, version_tables: Collection[str]) -> Sequence[str]:
        """Version tables that the tenant's search path does not lead to."""
        try:
            async with self._connected(tenant.database) as raw:
                await raw.execute(f"SET lock_timeout = {_READING_MS}; SET statement_timeout = {_READING_MS}")
                if (path := self._search_path(tenant)) is not None:
                    await raw.execute(f"SET search_path = {path}")
                return [row[0] for row in await raw.fetch(_OTHERS, list(version_tables), SCRATCH)]
        except Unprovisioned:
            return ()

    async def footprints(self, tenants: Sequence[Tenant]) -> Mapping[str, Footprint]:
        """One connection per database, and one statement for all its schemas."""

        async def look(raw: _RawConnection, here: Sequence[Tenant]) -> dict[str, Footprint]:
            found = await schema_footprints(raw, {tenant.schema for tenant in here if tenant.schema is not None})
            theirs = {tenant.id: found[tenant.schema] for tenant in here if tenant.schema in found}
            if alone := [tenant.id for tenant in here if tenant.schema is None]:
                theirs |= dict.fromkeys(alone, await database_footprint(raw))
            return theirs

        return await self._each_database(tenants, look)

    async def diagnose(self, tenants: Sequence[Tenant], work: Mapping[str, Sequence[Reach]]) -> Sequence[Finding]:
        """What the server's own database tells, and each tenant's of what would be locked in it."""
        found = await self._locked(tenants, work)
        async with self._maintenance() as raw:
            free = await self._free(raw)
            return await diagnose(raw, tenants, free, self._server.max_concurrency, found)

    async def _locked(self, tenants: Sequence[Tenant], work: Mapping[str, Sequence[Reach]]) -> list[Locked]:
        """What migrating would lock, tenant by tenant; the lock table is the whole server's."""
        by_database: dict[str | None, list[Tenant]] = defaultdict(list)
        for tenant in tenants:
            if work.get(tenant.id):
                by_database[tenant.database].append(tenant)
        budget = asyncio.Semaphore(self._server.max_concurrency)

        async def look(database: str | None, here: list[Tenant]) -> list[Locked]:
            try:
                async with budget, self._connected(database) as raw:
                    return await locked(raw, here, work)
            except Unprovisioned:
                # It is to be made: there are no tables yet, and what the revisions make counts.
                return [largest(tenant.id, work[tenant.id], {}) for tenant in here]

        found = await asyncio.gather(*(look(database, here) for database, here in by_database.items()))
        return [each for part in found for each in part]

    async def rows(self, sql: str) -> Sequence[Mapping[str, Any]]:
        """Rows of a source's query, in a read-only transaction."""
        async with self._connected(None) as raw, raw.transaction(readonly=True):
            return [dict(row) for row in await raw.fetch(sql)]

    async def write(self, sql: str, parameters: Mapping[str, Any], check: Check | None = None) -> None:
        """A source's statement; its own query, read-only as ever, may look at the outcome before the commit."""
        statement = parse_statement(sql)
        async with self._connected(None) as raw, raw.transaction():
            # Whoever waits for it is a sign-up.
            await raw.execute(f"SET LOCAL lock_timeout = {_READING_MS}; SET LOCAL statement_timeout = {_READING_MS}")
            await raw.fetch(statement.numbered, *(parameters[name] for name in statement.names))
            if check is not None:
                await raw.execute("SET TRANSACTION READ ONLY")
                check.accept([dict(row) for row in await raw.fetch(check.sql)])

    async def schemas(self, pattern: str) -> Sequence[str]:
        """Schemas of the server's own database; PostgreSQL's own are never among them, nor ours."""
        async with self._connected(None) as raw:
            names = await raw.fetch(
                "SELECT nspname FROM pg_namespace"
                " WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' AND NOT nspname ^@ ANY ($1::text[])"
                " ORDER BY nspname",
                OURS,
            )
        return [row[0] for row in names if fnmatchcase(row[0], pattern)]

    async def databases(self, pattern: str) -> Sequence[str]:
        """Databases that accept connections; templates and ours are never among them."""
        async with self._maintenance() as raw:
            names = await raw.fetch(
                "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate"
                " AND NOT datname ^@ ANY ($1::text[]) ORDER BY 1",
                OURS,
            )
        return [row[0] for row in names if fnmatchcase(row[0], pattern)]

    async def _read_database(
        self, database: str | None, tenants: list[Tenant], table: str, then: _Then | None
    ) -> dict[str, Reading]:
        """Heads of tenants of one database; ``then`` is given the connection, and those that were found."""
        found: dict[str, Reading] = {}
        try:
            async with self._connected(database, 1 if then is None else len(tenants)) as raw:
                in_schemas = [tenant for tenant in tenants if tenant.schema is not None]
                alone = [tenant for tenant in tenants if tenant.schema is None]
                settings = f"SET lock_timeout = {_READING_MS}; SET statement_timeout = {_READING_MS}"
                path = self._search_path(alone[0]) if alone else None
                await raw.execute(settings if path is None else f"{settings}; SET search_path = {path}")
                read = await read_schemas(raw, in_schemas, table)
                for tenant in alone:
                    read[tenant.id] = Reading(True, await read_visible(raw, table))
                found = read
                if then is not None:
                    await then(raw, [tenant for tenant in tenants if found[tenant.id].found])
        except Unprovisioned:
            return {tenant.id: Reading(exists=False) for tenant in tenants}
        except OrchestratorError as error:
            # What was read before that has been read.
            return found or {tenant.id: Reading(exists=True, failure=describe(error)) for tenant in tenants}
        return found
