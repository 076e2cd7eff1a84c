"""PostgreSQL: one server, tenants in schemas or databases of it.

The tenant's scope is its ``search_path``, set on the connection itself and outside any transaction. A ``SET LOCAL``
would be gone inside an autocommit block, and an uncommitted ``SET`` makes Alembic believe in an outer transaction that
is rolled back at close, after success was reported. It is set by a query rather than a start-up parameter, because
poolers refuse start-up parameters they do not know.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import asyncpg

from orchestrator.databases import ready, templates
from orchestrator.databases.address import Address, parse
from orchestrator.databases.asides import Aside, Leave, Leaving
from orchestrator.databases.claims import Claim, Found, Holds, Marker, Pool, Stock
from orchestrator.databases.cloning import Clone, Cloning, Footprint
from orchestrator.databases.database_restore import restore_database
from orchestrator.databases.definitions import Definition
from orchestrator.databases.definitions_postgresql import definitions_of
from orchestrator.databases.diagnosis import diagnose
from orchestrator.databases.dumping import Dumped, Restored, Restoring
from orchestrator.databases.failures import describe
from orchestrator.databases.findings import Finding
from orchestrator.databases.fingerprint import fingerprint_tenants, fingerprints, lines_of_tenants
from orchestrator.databases.heads import read_schemas, read_visible
from orchestrator.databases.lanes import Lane, Lanes
from orchestrator.databases.lock_room import Locked, largest, locked
from orchestrator.databases.own_names import OURS, SCRATCH, TEMPLATE
from orchestrator.databases.pooler import shares_sessions
from orchestrator.databases.port import Check, Reading, certainly, never
from orchestrator.databases.postgresql_asides import Departures, databases_aside, schemas_aside
from orchestrator.databases.postgresql_claims import Places, no_other_aside
from orchestrator.databases.postgresql_clone import Cloner, database_footprints, schema_footprints
from orchestrator.databases.postgresql_dump import Source
from orchestrator.databases.postgresql_meter import PostgreSQLMeter
from orchestrator.databases.postgresql_session import PostgreSQLSession, lock_key
from orchestrator.databases.schema_restore import restore_schema
from orchestrator.databases.scratch import clear, scratch
from orchestrator.databases.script import (
    Place,
    Snapshot,
    Step,
    enter,
    fill,
    filled,
    identifier,
    literal,
    script,
)
from orchestrator.databases.server_binaries import find_client
from orchestrator.databases.sizes import Size, largest_databases, table_sizes
from orchestrator.databases.snapshot import plain
from orchestrator.errors import (
    AlreadyThere,
    BackupError,
    DatabaseError,
    OnboardingError,
    OrchestratorError,
    OtherShape,
    ServerUnreachable,
    Unprovisioned,
)
from orchestrator.fleet.masking import remember
from orchestrator.fleet.secrets import mask
from orchestrator.fleet.statements import parse as parse_statement
from orchestrator.fleet.tenant import Isolation, Limits, Server, Tenant

if TYPE_CHECKING:
    from orchestrator.history.reach import Reach

#: Seconds a connection attempt may take where the address does not say.
_CONNECT_TIMEOUT = 10.0
#: A timeout that comes so many seconds late says that the event loop stood still.
_HELD_UP = 0.2
#: Milliseconds that reading heads may take, waiting for a lock included: `status` must not hang on one tenant's table.
_READING_MS = 10_000
#: Milliseconds between a busy backend's looks whether its client still lives (PostgreSQL 14 and newer): without it the
#: backend of a killed client works on and holds the tenant's lock.
_CLIENT_CHECK_MS = "1000"
#: PostgreSQL 16 reserves some for roles with pg_use_reserved_connections, too. Of other roles' sessions, only one with
#: pg_read_all_stats is told the type; only ordinary ones and parallel workers have both a role and a database.
_FREE_CONNECTIONS = (
    "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"
    " - coalesce(current_setting('reserved_connections', true)::int, 0) - count(*)"
    " FROM pg_stat_activity WHERE backend_type = 'client backend'"
    " OR (backend_type IS NULL AND usename IS NOT NULL AND datname IS NOT NULL)"
)

#: What tells a running server from all others, whatever leads there. Its system identifier does not: a copy of its
#: files has the same one.
_STARTED = "SELECT extract(epoch FROM pg_postmaster_start_time())::text, current_database()::text"
_OTHERS = (
    "SELECT DISTINCT nspname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
    " WHERE relname = ANY ($1::text[]) AND relkind IN ('r', 'p') AND NOT pg_table_is_visible(c.oid)"
    " AND nspname !~ '^pg_' AND NOT nspname ^@ $2 ORDER BY 1"
)

#: Databases that can be looked into.
_CONNECTABLE = "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate"

_RawConnection: TypeAlias = asyncpg.Connection
_T = TypeVar("_T")


def _hide_password(raw: _RawConnection) -> str | None:
    """Have the password masked that the driver found by itself: in PGPASSWORD, a passfile, a service file."""
    password = getattr(getattr(raw, "_params", None), "password", None)
    if not isinstance(password, str):
        return None
    remember(password)
    return password


async def _opened(arguments: Mapping[str, Any]) -> _RawConnection:
    """A connection; time in which another tenant's migration held up the event loop does not count."""
    timeout = arguments["timeout"]
    while True:
        started = time.monotonic()
        try:
            return await asyncpg.connect(**arguments)
        except TimeoutError:
            if timeout is None or time.monotonic() - started < timeout + _HELD_UP:
                raise


class PostgreSQL:
    """One PostgreSQL server, as the port asks.

    Args:
        server: its declaration; the address is resolved again for every connection, because cloud tokens expire.
    """

    dialect = "postgresql"
    replays = True

    def __init__(self, server: Server) -> None:
        self.name = server.name
        self._server = server
        self._version: str | None = None
        #: The address as it was read the last time, and what it came to.
        self._parsed: tuple[str, Address] | None = None
        #: The password that the driver logged in with the last time.
        self._password: str | None = None
        #: Whether each connection has a server process of its own; asked once.
        self._keeps_sessions: bool | None = None
        self._lanes = Lanes(self._connect_for_many, server.max_concurrency)

    @property
    def identity(self) -> str:
        """Host and port: what two declarations of one physical server have in common."""
        return self._address().identity

    @property
    def default_database(self) -> str | None:
        """The database in the server's address."""
        return self._address().database

    async def read(self, tenants: Sequence[Tenant], version_table: str) -> Mapping[str, Reading]:
        """One connection per database, then a few statements for all its schemas."""
        by_database: dict[str | None, list[Tenant]] = defaultdict(list)
        for tenant in tenants:
            by_database[tenant.database].append(tenant)
        budget = asyncio.Semaphore(self._server.max_concurrency)

        async def read_one(database: str | None, here: list[Tenant]) -> dict[str, Reading]:
            async with budget:
                return await self._read_database(database, here, version_table)

        found = await asyncio.gather(*(read_one(database, here) for database, here in by_database.items()))
        return {tenant: reading for part in found for tenant, reading in part.items()}

    async def fingerprints(self, tenants: Sequence[Tenant], version_table: str) -> Mapping[str, str]:
        """One connection per database, then a few statements for all its schemas."""

        async def fingerprint(raw: _RawConnection, here: Sequence[Tenant]) -> dict[str, str]:
            return await fingerprint_tenants(raw, here, version_table, self._search_path)

        return await self._each_database(tenants, fingerprint)

    async def definitions(self, tenants: Sequence[Tenant]) -> Mapping[str, Sequence[Definition]]:
        """The same connections, and the lines that are digested."""

        async def read(raw: _RawConnection, here: Sequence[Tenant]) -> dict[str, Sequence[Definition]]:
            lines = await lines_of_tenants(raw, here, self._search_path)
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

    @asynccontextmanager
    async def session(self, tenant: Tenant, application: str, limits: Limits) -> AsyncIterator[PostgreSQLSession]:
        """A connection that nobody else uses meanwhile; tenants of one database use it one after the other."""
        async with self._lane(tenant.database) as lane:
            lane.used = lane.locked = True

            async def second() -> _RawConnection:
                raw = await self._connect_for_many(tenant.database)
                await self._enter(raw, tenant, application, limits)
                return raw

            lane.second = second
            await self._enter(lane.raw, tenant, application, limits)
            name = await lane.asked_database_name()
            async with lane.engine().connect() as connection:
                if tenant.schema is not None:
                    # What SQLAlchemy asked for when the lane served its first tenant.
                    connection.dialect.default_schema_name = tenant.schema
                yield PostgreSQLSession(connection, lane.raw, tenant, name)

    async def replay(
        self, tenant: Tenant, steps: Sequence[Step], version_table: str, application: str, limits: Limits
    ) -> None:
        """One message to the server, on a connection that tenants of one database use one after the other."""
        async with self._lane(tenant.database) as lane:
            place = await self._place(lane, tenant, version_table, application, limits)
            await lane.raw.execute(script(place, steps))

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

    async def _place(self, lane: Lane, tenant: Tenant, version_table: str, application: str, limits: Limits) -> Place:
        # Guessing saves a question, and the script refuses to run where the guess is wrong.
        name = tenant.database or await lane.asked_database_name()
        return Place(
            database=name,
            schema=tenant.schema,
            key=lock_key(name, tenant.schema),
            version_table=version_table,
            settings=self._settings(tenant, application, limits),
        )

    async def require_dumping(self) -> None:
        """pg_dump, pg_restore and psql, none older than the server."""
        await asyncio.to_thread(find_client, int(await self.version()))

    async def dump(self, tenant: Tenant, dump: Path, application: str, limits: Limits) -> Dumped:
        """By pg_dump, in its custom format; see :mod:`~orchestrator.databases.postgresql_dump`."""
        async with self._dumping(tenant) as source:
            return await source.dump(tenant, dump, application, limits)

    async def text(self, tenant: Tenant, application: str, limits: Limits) -> str:
        """By pg_dump, as a script that needs no psql."""
        async with self._dumping(tenant) as source:
            return plain(await source.text(tenant, application, limits))

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
        """See :mod:`~orchestrator.databases.ready`."""

        async def look(name: str, table: str) -> tuple[str | None, tuple[str, ...]]:
            return await self._look(Tenant(name, self.name, Isolation.DATABASE, database=name), table)

        async with ready.alone(self._maintenance(), self.name, pool.fleet) as raw:
            return await ready.fill(raw, pool, size, look, tidy=tidy, stopped=stopped)

    async def drop_pool(self, fleet: str) -> int:
        """See :mod:`~orchestrator.databases.ready`."""
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

    async def restore(self, work: Restoring) -> Restored:
        """A schema in one transaction, a database beside the live one."""
        async with self._dumping(work.tenant) as source:
            if work.tenant.schema is not None:
                return await restore_schema(source, work)
            others = (self.default_database, "postgres", "template1")
            other = next(name for name in others if name not in (None, source.database))
            return await restore_database(source, work, other or "postgres")

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

    def limit_connections(self, most: int) -> None:
        """Connections that wait for another tenant count, too."""
        self._lanes.limit = most

    async def close(self, keep: int = 0) -> None:
        """Close the connections that wait for another tenant."""
        await self._lanes.close(keep)

    def scope_sql(self, tenant: Tenant) -> str:
        """The search path, as a session has it."""
        path = self._search_path(tenant)
        return "" if path is None else f"SET search_path TO {path};\n\n"

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
        """See :mod:`~orchestrator.databases.postgresql_claims`."""
        async with self._places(tenant, lock_wait) as places:
            return await places.claim(claim)

    async def drop(self, tenant: Tenant, lock_wait: float, still: Callable[[], Awaitable[bool]] = certainly) -> None:
        """A schema with all its objects, a database with whoever is connected to it."""
        async with self._places(tenant, lock_wait) as places:
            await places.drop(still)

    @asynccontextmanager
    async def set_aside(self, tenant: Tenant, leave: Leave) -> AsyncIterator[Leaving]:
        """See :mod:`~orchestrator.databases.postgresql_asides`."""
        async with self._departing(tenant, leave.lock_wait) as departures, departures.set_aside(leave) as leaving:
            yield leaving

    async def asides(self, within: Collection[str | None] | None = None) -> Sequence[Aside]:
        """One connection per database, for its schemas; one for the databases themselves."""
        async with self._maintenance() as raw:
            found = await databases_aside(raw, self.name)
            own = self.default_database or str(await raw.fetchval("SELECT current_database()"))
            names = [row[0] for row in await raw.fetch(_CONNECTABLE)] if within is None else within
        budget = asyncio.Semaphore(self._server.max_concurrency)

        async def look(name: str | None) -> list[Aside]:
            database = None if name == own else name
            try:
                async with budget, self._connected(database) as raw:
                    return await schemas_aside(raw, self.name, database)
            except (Unprovisioned, ServerUnreachable):
                # It is gone by now, or this role may not look into it, and has not set anything aside there.
                return []

        for part in await asyncio.gather(*(look(name) for name in dict.fromkeys(names))):
            found += part
        return found

    async def remark(self, aside: Aside, marker: Marker, lock_wait: float) -> None:
        """In one statement."""
        async with self._departing(aside.tenant, lock_wait) as departures:
            await departures.remark(aside, marker)

    async def bring_back(self, aside: Aside, lock_wait: float) -> None:
        """In one transaction."""
        async with self._departing(aside.tenant, lock_wait) as departures:
            await departures.bring_back(aside)

    async def drop_aside(self, aside: Aside, limits: Limits, lock_wait: float) -> None:
        """A large schema in parts, see :mod:`~orchestrator.databases.whole_schema`."""
        async with self._departing(aside.tenant, lock_wait) as departures:
            await departures.drop(aside, limits)

    @asynccontextmanager
    async def _departing(self, tenant: Tenant, lock_wait: float) -> AsyncIterator[Departures]:
        """What the server says against it is told as our error, and whether it may pass."""
        try:
            async with self._places(tenant, lock_wait) as places:
                yield Departures(places)
        except DatabaseError as error:
            cause = error.__cause__
            if type(error) is not DatabaseError or not isinstance(cause, asyncpg.PostgresError):
                raise
            failure = describe(cause)
            passing = failure.passing or isinstance(cause, asyncpg.ObjectInUseError)
            raise OnboardingError(failure.message, passing=passing, hint=failure.hint) from cause

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
        """See :mod:`~orchestrator.databases.scratch`."""
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

    @asynccontextmanager
    async def clone(self, tenant: Tenant, cloning: Cloning) -> AsyncIterator[Clone]:
        """See :mod:`~orchestrator.databases.postgresql_clone`."""
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

    async def footprints(self, tenants: Sequence[Tenant]) -> Mapping[str, Footprint]:
        """One statement for the schemas of a database, one for all databases."""

        async def look(raw: _RawConnection, here: Sequence[Tenant]) -> dict[str, Footprint]:
            found = await schema_footprints(raw, {tenant.schema for tenant in here if tenant.schema is not None})
            return {tenant.id: found[tenant.schema] for tenant in here if tenant.schema in found}

        found = await self._each_database([tenant for tenant in tenants if tenant.schema is not None], look)
        alone = {tenant.id: tenant.database or self.default_database for tenant in tenants if tenant.schema is None}
        if alone:
            async with self._maintenance() as raw:
                theirs = await database_footprints(raw, {name for name in alone.values() if name is not None})
            found |= {tenant: theirs[name] for tenant, name in alone.items() if name in theirs}
        return found

    async def version(self) -> str:
        """The major version, asked once."""
        if self._version is None:
            async with self._maintenance():
                pass
        assert self._version is not None
        return self._version

    async def free_connections(self) -> int | None:
        """What ``max_connections`` leaves to ordinary roles, less those of others that are there."""
        async with self._maintenance() as raw:
            return int(await raw.fetchval(_FREE_CONNECTIONS)) + self._lanes.open

    async def diagnose(self, tenants: Sequence[Tenant], work: Mapping[str, Sequence[Reach]]) -> Sequence[Finding]:
        """What the server's own database tells, and each tenant's of what would be locked in it."""
        found = await self._locked(tenants, work)
        async with self._maintenance() as raw:
            free = int(await raw.fetchval(_FREE_CONNECTIONS)) + self._lanes.open
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

    async def _provision_schema(self, tenant: Tenant) -> None:
        async with self._lane(tenant.database) as lane:
            # IF NOT EXISTS alone needs the right to create even where nothing is to be made.
            if not await lane.raw.fetchval("SELECT 1 FROM pg_namespace WHERE nspname = $1", tenant.schema):
                await no_other_aside(lane.raw, tenant, tenant.schema or "", leaving=False)
                with suppress(asyncpg.DuplicateSchemaError, asyncpg.UniqueViolationError):
                    await lane.raw.execute(f"CREATE SCHEMA {identifier(tenant.schema or '')}")

    def _address(self) -> Address:
        text = self._text()
        if self._parsed is None or self._parsed[0] != text:
            self._parsed = (text, parse(text))
        return self._parsed[1]

    def _text(self) -> str:
        """The address, with its secrets read now."""
        direct = self._server.direct_url.resolve() if self._server.direct_url is not None else ""
        return direct or self._server.url.resolve()

    def _lane(self, database: str | None) -> AbstractAsyncContextManager[Lane]:
        return self._lanes.taken(self._as_named(database))

    async def _forget(self, database: str | None) -> None:
        await self._lanes.forget(self._as_named(database))

    def _as_named(self, database: str | None) -> str | None:
        """``None`` for the database of the server's address: under two names, lanes to it would push each other out.

        As far as the address is known: it may hold a secret that takes long to read.
        """
        own = None if self._parsed is None else self._parsed[1].database
        return None if database == own else database

    async def _connect_for_many(self, database: str | None) -> _RawConnection:
        # Statements that asyncpg keeps prepared would not outlive what cleans the session for the next tenant.
        return await self._connect(database, statement_cache_size=0)

    async def _connect(self, database: str | None, **arguments: Any) -> _RawConnection:
        # A secret may be a file's or a command's: reading it must not hold up the other tenants.
        unread = self._server.url.is_partly_unread or self._server.direct_url is not None
        address = await asyncio.to_thread(self._address) if unread else self._address()
        if database is not None:
            address = address.with_database(database)
        try:
            raw = await _opened({"timeout": _CONNECT_TIMEOUT, **address.asyncpg_arguments(), **arguments})
        except asyncpg.InvalidCatalogNameError as error:
            raise Unprovisioned(
                mask(f"{address.masked}: {error}"), hint="create it, or upgrade with --provision"
            ) from error
        except (OSError, TimeoutError, UnicodeError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            failure = describe(error)
            raise ServerUnreachable(
                mask(f"no connection to {address.masked}: {failure.message}"),
                hint=failure.hint or "is the server up, and is the address in tenants.yaml right?",
            ) from error
        self._password = _hide_password(raw)
        self._version = str(raw.get_server_version().major)
        try:
            await self._refuse_shared_sessions(raw, address, arguments)
        except BaseException:
            raw.terminate()
            raise
        return raw

    async def _refuse_shared_sessions(self, raw: _RawConnection, address: Address, arguments: dict[str, Any]) -> None:
        """Asked on the first connection: what an address leads through does not change within a run."""
        if self._keeps_sessions is None:
            try:
                options = {"timeout": _CONNECT_TIMEOUT, **address.asyncpg_arguments(), **arguments}
                shared = await shares_sessions(raw, lambda: asyncpg.connect(**options))
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                raise ServerUnreachable(
                    mask(f"no connection to {address.masked}: {describe(error).message}")
                ) from error
            self._keeps_sessions = not shared
        if not self._keeps_sessions:
            raise ServerUnreachable(
                mask(f"{address.masked} is a pooler that shares its connections between transactions")
                + ": neither locks nor the search path would hold",
                hint="give the server a direct_url past the pooler, or let the pooler keep sessions"
                " (PgBouncer: pool_mode = session)",
            )

    @asynccontextmanager
    async def _connected(self, database: str | None, seen: int = 1) -> AsyncIterator[_RawConnection]:
        """A lane for questions: a connection beside them would be one more than the server was given.

        Args:
            database: as the tenants name it.
            seen: how many tenants' tables are looked at.
        """
        try:
            async with self._lane(database) as lane:
                lane.used = True
                lane.seen(seen)
                yield lane.raw
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise DatabaseError(mask(f"server {self.name}: {describe(error).message}")) from error

    @asynccontextmanager
    async def _maintenance(self) -> AsyncIterator[_RawConnection]:
        """A connection for work on databases: the server's own one may be the very one that is missing."""
        try:
            async with self._connected(None) as raw:
                yield raw
                return
        except Unprovisioned:
            pass
        async with self._connected("postgres") as raw:
            yield raw

    async def _enter(self, raw: _RawConnection, tenant: Tenant, application: str, limits: Limits) -> None:
        """Put a fresh connection into the tenant's scope and make sure that it is there."""
        settings = self._settings(tenant, application, limits)
        if int(self._version or 0) >= 14:
            # It holds the tenant's lock, and says nothing for as long as pg_dump or a migration's own work takes.
            settings["idle_session_timeout"] = "0"
        made = enter(settings)
        if tenant.schema is None:
            await raw.execute(made)
            return
        # Asked in the same breath: what a query selects is worked out from left to right.
        row = await raw.fetchrow(
            f"{made}, current_schema(), EXISTS (SELECT FROM pg_namespace WHERE nspname = {literal(tenant.schema)})"
        )
        current, exists = row[-2], row[-1]
        if not exists:
            raise Unprovisioned(
                f"tenant {tenant.id}: schema {tenant.schema!r} does not exist",
                hint="create it, or upgrade with --provision",
            )
        if current != tenant.schema:
            raise DatabaseError(
                f"tenant {tenant.id}: the migrating role may not use schema {tenant.schema!r}",
                hint=f"GRANT USAGE, CREATE ON SCHEMA {identifier(tenant.schema)} TO the role in the server's url",
            )

    def _settings(self, tenant: Tenant, application: str, limits: Limits) -> dict[str, str]:
        """What a connection in the tenant's scope is told, by name."""
        settings = {"application_name": application.encode()[:63].decode(errors="ignore")}
        path = self._search_path(tenant)
        if path is not None:
            settings["search_path"] = path
        if limits.lock_timeout is not None:
            settings["lock_timeout"] = str(round(limits.lock_timeout * 1000))
        if limits.statement_timeout is not None:
            settings["statement_timeout"] = str(round(limits.statement_timeout * 1000))
        if limits.idle_in_transaction_timeout is not None:
            settings["idle_in_transaction_session_timeout"] = str(round(limits.idle_in_transaction_timeout * 1000))
        if int(self._version or 0) >= 14:
            settings["client_connection_check_interval"] = _CLIENT_CHECK_MS
        return settings

    def _search_path(self, tenant: Tenant) -> str | None:
        """The tenant's schema alone: with ``public`` behind it, Alembic would take public's version table for its."""
        extensions = self._server.extensions_schema
        if tenant.schema is None and extensions is None:
            return None
        names = [tenant.schema or "public", *([extensions] if extensions else [])]
        return ", ".join(identifier(name) for name in names)

    async def _read_database(self, database: str | None, tenants: list[Tenant], table: str) -> dict[str, Reading]:
        try:
            async with self._connected(database) as raw:
                in_schemas = [tenant for tenant in tenants if tenant.schema is not None]
                alone = [tenant for tenant in tenants if tenant.schema is None]
                settings = f"SET lock_timeout = {_READING_MS}; SET statement_timeout = {_READING_MS}"
                path = self._search_path(alone[0]) if alone else None
                await raw.execute(settings if path is None else f"{settings}; SET search_path = {path}")
                found = await read_schemas(raw, in_schemas, table)
                for tenant in alone:
                    found[tenant.id] = Reading(True, await read_visible(raw, table))
                return found
        except Unprovisioned:
            return {tenant.id: Reading(exists=False) for tenant in tenants}
        except OrchestratorError as error:
            return {tenant.id: Reading(exists=True, failure=describe(error)) for tenant in tenants}
