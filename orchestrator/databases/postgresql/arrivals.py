"""Places of PostgreSQL for tenants that come: made, marked, filled, copied from templates and out of pools."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg

from orchestrator.databases.answers import certainly, never
from orchestrator.databases.claims import Claim, Found, Holds, Pool, Stock
from orchestrator.databases.failures import describe
from orchestrator.databases.own_names import TEMPLATE
from orchestrator.databases.postgresql import ready, templates
from orchestrator.databases.postgresql.claims import Places, no_other_aside
from orchestrator.databases.postgresql.connections import Connections
from orchestrator.databases.postgresql.heads import read_visible
from orchestrator.databases.postgresql.scratch import scratch
from orchestrator.databases.postgresql.script import (
    Snapshot,
    Step,
    fill,
    filled,
    identifier,
)
from orchestrator.databases.postgresql.shapes.fingerprint import fingerprint_tenants, fingerprints
from orchestrator.errors import (
    AlreadyThere,
    DatabaseError,
    OtherShape,
    Unprovisioned,
)
from orchestrator.fleet.secrets import mask
from orchestrator.fleet.tenant import Isolation, Limits, Tenant

_RawConnection: TypeAlias = asyncpg.Connection


class Arrivals(Connections):
    """Places for those who come."""

    async def fill(
        self,
        tenant: Tenant,
        made: Step | Snapshot,
        shape: str | None,
        version_table: str,
        application: str,
        limits: Limits,
    ) -> str:
        """One message to fill it, a look at what came of it, one message to commit."""
        assert tenant.schema is not None
        async with self._lane(tenant.database) as lane:
            lane.used = lane.locked = True
            place = await self._place(lane, tenant, version_table, application, limits)
            await lane.raw.execute(fill(place, made))
            found = await fingerprints(lane.raw, [tenant.schema], version_table, within=True)
            digest = found[tenant.schema].digest if tenant.schema in found else None
            if digest is None or shape not in (None, digest):
                raise OtherShape(f"tenant {tenant.id}: its schema came out different from the blueprint's")
            heads = made.after if isinstance(made, Step) else made.heads
            await lane.raw.execute(filled(place, heads))
            return digest

    async def provision(self, tenant: Tenant) -> None:
        """Make the database, then the schema, where they are missing."""
        if tenant.schema is not None:
            with suppress(Unprovisioned):
                await self._provision_schema(tenant)
                return
        database = tenant.database or self.default_database
        if database is not None:
            async with self._maintenance() as raw:
                if not await raw.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", database):
                    if tenant.schema is None:
                        await no_other_aside(raw, tenant, database, leaving=False)
                    with suppress(asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
                        await raw.execute(f"CREATE DATABASE {identifier(database)}")
        if tenant.schema is not None:
            await self._provision_schema(tenant)

    async def found(self, tenant: Tenant) -> Found:
        """From the comment on it, and the catalogs."""
        try:
            async with self._places(tenant, 0) as places:
                return await places.found()
        except Unprovisioned:
            return Found(Holds.MISSING)

    async def claim(self, tenant: Tenant, claim: Claim, lock_wait: float) -> Found:
        """See :mod:`~orchestrator.databases.postgresql.claims`."""
        async with self._places(tenant, lock_wait) as places:
            return await places.claim(claim)

    async def drop(self, tenant: Tenant, lock_wait: float, still: Callable[[], Awaitable[bool]] = certainly) -> None:
        """A schema with all its objects, a database with whoever is connected to it."""
        async with self._places(tenant, lock_wait) as places:
            await places.drop(still)

    @asynccontextmanager
    async def _places(self, tenant: Tenant, lock_wait: float) -> AsyncIterator[Places]:
        try:
            database = tenant.database or self.default_database
            if database is None:
                async with self._connected(None) as raw:
                    database = str(await raw.fetchval("SELECT current_database()"))
            others = (self.default_database, "postgres", "template1")
            other = next(name for name in others if name not in (None, database))
            schema = self._server.extensions_schema

            async def look(raw: _RawConnection, table: str) -> tuple[str | None, tuple[str, ...]]:
                return await self._look_with(raw, tenant, table)

            yield Places(tenant, database, schema, self._connect, self._connected, other or "postgres", look, lock_wait)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            failure = describe(error)
            raise DatabaseError(mask(f"tenant {tenant.id}: {failure.message}"), hint=failure.hint) from error

    @asynccontextmanager
    async def scratch(self, like: Tenant) -> AsyncIterator[Tenant]:
        """See :mod:`~orchestrator.databases.postgresql.scratch`."""
        if like.schema is not None:
            maintenance = None
        else:
            async with self._maintenance() as raw:
                maintenance = str(await raw.fetchval("SELECT current_database()"))
        try:
            async with scratch(like, self._connect, maintenance) as tenant:
                yield tenant
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise DatabaseError(
                mask(f"server {self.name}: nothing can be made to try things in: {describe(error).message}"),
                hint="the migrating role needs CREATE on the database for schemas, CREATEDB for databases",
            ) from error

    def template(self, key: str, directory: Path) -> str:
        """On the server."""
        return f"{TEMPLATE}{key}"

    async def note(self, template: str) -> Mapping[str, Any] | None:
        """The comment on the database."""
        async with self._maintenance() as raw:
            return await templates.note_of(raw, template)

    @asynccontextmanager
    async def building(self, template: str) -> AsyncIterator[bool]:
        """An advisory lock of the database that databases are made from."""
        key = templates.building(template)
        async with self._maintenance() as raw:
            # The lane is cleaned of it before it serves anybody else, and a killed process takes it along.
            alone = bool(await raw.fetchval("SELECT pg_try_advisory_lock($1)", key))
            yield alone
            if alone:
                await raw.execute("SELECT pg_advisory_unlock($1)", key)

    async def keep_template(self, made: Tenant, template: str, note: Mapping[str, Any]) -> str | None:
        """Renamed, closed and noted in one transaction."""
        assert made.database is not None
        await self._forget(made.database)
        async with self._maintenance() as raw:
            refused = await templates.keep(raw, made.database, template, note)
            if refused is None:
                await templates.drop_others(raw, template, str(note.get("family")))
        return refused

    async def copy_template(
        self, tenant: Tenant, template: str, shape: str, heads: tuple[str, ...], version_table: str
    ) -> None:
        """CREATE DATABASE, and a look at it over a connection of its own."""
        name = tenant.database
        assert name is not None
        async with self._maintenance() as raw:
            try:
                await templates.copy(raw, template, name)
            except (asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError) as error:
                raise AlreadyThere(f"the database {name} is there already") from error
        if await self._look(tenant, version_table) != (shape, heads):
            async with self._maintenance() as raw:
                # Not by force: nobody knows of it yet, and who is there all the same is not thrown out.
                await raw.execute(f"DROP DATABASE {identifier(name)}")
            raise OtherShape(f"tenant {tenant.id}: the copy came out different from the template")

    async def fill_pool(
        self, pool: Pool, size: int, *, tidy: bool = True, stopped: Callable[[], bool] = never
    ) -> Stock:
        """See :mod:`~orchestrator.databases.postgresql.ready`."""

        async def look(name: str, table: str) -> tuple[str | None, tuple[str, ...]]:
            return await self._look(Tenant(name, self.name, Isolation.DATABASE, database=name), table)

        async with ready.alone(self._maintenance(), self.name, pool.fleet, stopped) as raw:
            return await ready.fill(raw, pool, size, look, tidy=tidy, stopped=stopped)

    async def drop_pool(self, fleet: str) -> int:
        """See :mod:`~orchestrator.databases.postgresql.ready`."""
        async with ready.alone(self._maintenance(), self.name, fleet) as raw:
            return await ready.drop_all(raw, self.name, fleet)

    async def _look(self, tenant: Tenant, version_table: str) -> tuple[str | None, tuple[str, ...]]:
        """A new database's shape and heads."""
        raw = await self._connect(tenant.database)
        try:
            return await self._look_with(raw, tenant, version_table)
        finally:
            await raw.close(timeout=5)

    async def _look_with(
        self, raw: _RawConnection, tenant: Tenant, version_table: str
    ) -> tuple[str | None, tuple[str, ...]]:
        shape = (await fingerprint_tenants(raw, [tenant], version_table, self._search_path)).get(tenant.id)
        return shape, await read_visible(raw, version_table)

    async def _provision_schema(self, tenant: Tenant) -> None:
        async with self._lane(tenant.database) as lane:
            # IF NOT EXISTS alone needs the right to create even where nothing is to be made.
            if not await lane.raw.fetchval("SELECT 1 FROM pg_namespace WHERE nspname = $1", tenant.schema):
                await no_other_aside(lane.raw, tenant, tenant.schema or "", leaving=False)
                with suppress(asyncpg.DuplicateSchemaError, asyncpg.UniqueViolationError):
                    await lane.raw.execute(f"CREATE SCHEMA {identifier(tenant.schema or '')}")
