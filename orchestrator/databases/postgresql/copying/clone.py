"""A PostgreSQL tenant's clone: a database of nobody's on the same server, in which it stands under its own name.

Not a schema beside the tenant's: a dump says its schema's name in every line, and text is never edited for a name; and
what a migration does to tables that all tenants share, it does here to copies of theirs. Rows go from the server to the
server, through pg_dump and psql; nothing of them is kept on the machine that this runs on.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from subprocess import PIPE
from typing import IO, TypeAlias

import asyncpg

from orchestrator.databases.cloning import Clone, Cloning, Footprint
from orchestrator.databases.failures import describe
from orchestrator.databases.postgresql.copying.clone_needs import Needs, needs_of
from orchestrator.databases.postgresql.copying.database_properties import (
    database_properties,
    given_afterwards,
    made_with,
)
from orchestrator.databases.postgresql.copying.dump import LOCK_WAIT, Source, closed, dump_failed, refuse_extensions
from orchestrator.databases.postgresql.copying.dump_script import pump_preamble, unhurried
from orchestrator.databases.postgresql.copying.made_up_rows import make_up_rows
from orchestrator.databases.postgresql.copying.pipeline import CHUNK, Pipeline
from orchestrator.databases.postgresql.scratch import HOLDER, scratch
from orchestrator.databases.postgresql.script import identifier
from orchestrator.errors import DatabaseError
from orchestrator.fleet.tenant import Tenant

_CONNECTED = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = $1)"
_RawConnection: TypeAlias = asyncpg.Connection

#: What a copy does without: owners and rights, because all of it belongs to the migrating role and nobody else may look
#: at it; publications and subscriptions, which would send it elsewhere.
_WITHOUT = (
    "--no-owner",
    "--no-privileges",
    "--no-comments",
    "--no-publications",
    "--no-subscriptions",
    "--no-security-labels",
)
#: Lines that objects with rows begin with: no schema is made after them.
_LATER = (b"CREATE TABLE ", b"CREATE UNLOGGED TABLE ", b"COPY ")
#: By what vacuum has counted, else by what was written since: neither takes a lock or looks at a file. A row is thought
#: to have 64 bytes at least. What the relations of a schema, their TOAST included, have; the catalogs are left out.
_SIZED = """
    coalesce(sum(
        greatest(c.relpages * current_setting('block_size')::bigint, pg_stat_get_live_tuples(c.oid) * 64)
        + coalesce(t.relpages, 0) * current_setting('block_size')::bigint
    ), 0)::bigint FROM pg_namespace n LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'm', 'i')
    LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
"""
_FOOTPRINTS = f"SELECT n.nspname, n.oid::bigint, {_SIZED} WHERE n.nspname = ANY ($1) GROUP BY 1, 2"
#: Measured as schemas are: the files of a database without a row have some megabytes of catalogs.
_DATABASE_FOOTPRINT = f"""
    SELECT (SELECT oid::bigint FROM pg_database WHERE datname = current_database()), {_SIZED}
    WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
"""
_SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY oid"


@dataclass(frozen=True, slots=True)
class Cloner:
    """One server, as cloning comes to it."""

    source: Source
    #: A database to make others from; not the tenant's.
    maintenance: str
    #: Closes connections to a database that wait for their next use.
    forget: Callable[[str], Awaitable[None]]

    @asynccontextmanager
    async def clone(self, tenant: Tenant, cloning: Cloning) -> AsyncIterator[Clone]:
        """See :meth:`Database.clone`."""
        started = time.perf_counter()
        source = self.source
        raw = await source.connect(source.database)
        try:
            if tenant.schema is not None:
                await refuse_extensions(raw, tenant)
            needs = await needs_of(raw, tenant, cloning.words, allow_outside=cloning.allow_outside)
            properties = await database_properties(raw, source.database)
        finally:
            await closed(raw)
        # All of it belongs to the migrating role; who else may connect is not the clone's business.
        properties |= {"owner": None, "rights": None, "comment": None, "connection_limit": -1}
        notes = list(needs.notes)
        async with AsyncExitStack() as stack:
            way, (name, holder) = await self._made(stack, tenant, cloning, made_with(properties), notes)
            copy = replace(tenant, database=name, pin=None, until=None)
            notes += await self._given(properties, name)
            if way == "pg_dump":
                notes += await self._prepared(holder, needs)
                if cloning.generated is None:
                    await self._filled(tenant, cloning, needs, name)
                else:
                    await self._filled(tenant, cloning, needs, name, "pre-data")
                    notes += await self._made_up(holder, tenant, cloning, cloning.generated)
                    await self._filled(tenant, cloning, needs, name, "post-data")
                if cloning.schema_only:
                    await self._stamped(holder, tenant, cloning)
            # As autovacuum has left the tenant's: otherwise whoever reads a row first would have to write to it, too.
            await holder.execute("VACUUM ANALYZE")
            size = int(await holder.fetchval("SELECT pg_database_size(current_database())"))
            yield Clone(copy, way, time.perf_counter() - started, size, tuple(notes))
            await self.forget(name)

    async def _made(
        self, stack: AsyncExitStack, tenant: Tenant, cloning: Cloning, made: str, notes: list[str]
    ) -> tuple[str, tuple[str, _RawConnection]]:
        """A database for the clone, and how it was made; one that was copied holds all already."""
        place = replace(tenant, schema=None, database=None)
        if cloning.template and tenant.schema is None:
            await self.forget(self.source.database)
            template = f"TEMPLATE {identifier(self.source.database)}"
            try:
                # The server would wait five seconds for whoever is there, and let nobody else in meanwhile.
                if not await self._in_use():
                    return "template", await stack.enter_async_context(self._placed(place, template))
            except asyncpg.ObjectInUseError:
                pass
            notes.append("somebody is connected to its database, which was dumped instead of being copied")
        try:
            return "pg_dump", await stack.enter_async_context(self._placed(place, made))
        except asyncpg.InsufficientPrivilegeError as error:
            raise DatabaseError(
                "a clone is a database beside the tenant's, and the migrating role may not make one",
                hint="ALTER ROLE ... CREATEDB for the role in the server's url, or rehearse with a role that has it",
            ) from error

    async def _in_use(self) -> bool:
        raw = await self.source.connect(self.maintenance)
        try:
            return bool(await raw.fetchval(_CONNECTED, self.source.database))
        finally:
            await raw.close(timeout=5)

    @asynccontextmanager
    async def _placed(self, like: Tenant, made: str) -> AsyncIterator[tuple[str, _RawConnection]]:
        """A database of nobody's, which nobody else may enter, and a connection that says that it is in use."""
        # A copy has its rows at once, and a new database lets everybody in.
        async with scratch(like, self.source.connect, self.maintenance, f"{made} ALLOW_CONNECTIONS false") as place:
            assert place.database is not None
            await self._let_in(place.database)
            holder = await self.source.patient(place.database)
            try:
                await holder.execute(f"SET application_name = '{HOLDER}'; SET synchronous_commit = off")
                yield place.database, holder
            finally:
                await closed(holder)

    async def _let_in(self, name: str) -> None:
        """Open a new database to its owner alone."""
        raw = await self.source.connect(self.maintenance)
        try:
            await raw.execute(f"REVOKE ALL ON DATABASE {identifier(name)} FROM PUBLIC")
            await raw.execute(f"ALTER DATABASE {identifier(name)} ALLOW_CONNECTIONS true")
        finally:
            await closed(raw)

    async def _given(self, properties: dict[str, object], name: str) -> list[str]:
        """Give the clone the settings of the tenant's database; what this role may not give is told."""
        refused = []
        raw = await self.source.connect(self.maintenance)
        try:
            for statement in given_afterwards(properties, name):
                try:
                    await raw.execute(statement)
                except asyncpg.PostgresError as error:
                    refused.append(f"a setting of its database was not given to the copy: {describe(error).message}")
        finally:
            await closed(raw)
        return refused[:1]

    async def _prepared(self, raw: _RawConnection, needs: Needs) -> list[str]:
        """Make what is the database's: extensions, and the schemas that they are in; what is not there is told."""
        left_out = []
        for each in needs.extensions:
            try:
                await raw.execute(f"CREATE SCHEMA IF NOT EXISTS {identifier(each.schema)}")
                await raw.execute(
                    f"CREATE EXTENSION IF NOT EXISTS {identifier(each.name)} SCHEMA {identifier(each.schema)} CASCADE"
                )
            except asyncpg.PostgresError as error:
                if each.needed:
                    why = describe(error).message.partition("\n")[0]
                    raise DatabaseError(
                        f"the tenant needs the extension {each.name}, and it cannot be made in a new database: {why}",
                        hint="rehearse with a role that may make it, or a tenant that does without it",
                    ) from error
                left_out.append(each.name)
        return [f"without extensions that this role may not make: {', '.join(left_out)}"] if left_out else []

    async def _made_up(self, holder: _RawConnection, tenant: Tenant, cloning: Cloning, rows: int) -> list[str]:
        raw = await self.source.connect(self.source.database)
        try:
            schemas = [tenant.schema] if tenant.schema is not None else [row[0] for row in await raw.fetch(_SCHEMAS)]
            return await make_up_rows(raw, holder, schemas, rows, [cloning.version_table])
        finally:
            await closed(raw)

    async def _filled(
        self, tenant: Tenant, cloning: Cloning, needs: Needs, name: str, section: str | None = None
    ) -> None:
        """Have pg_dump write what psql reads."""
        source = self.source
        wait = cloning.limits.lock_timeout or LOCK_WAIT
        dump = self._dump_command(tenant, cloning, needs, wait)
        dump += [f"--section={section}"] if section is not None else []
        apply = [source.client.program("psql"), "--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1"]
        apply += ["--set=VERBOSITY=terse", "--set=SHOW_CONTEXT=never", "--output=/dev/null"]
        there = {"public", *(each.schema for each in needs.extensions)} if tenant.schema is not None else {"public"}
        out, into = (source.login(each, cloning.application) for each in (source.database, name))

        def run(pipeline: Pipeline) -> None:
            writer = pipeline.start("pg_dump", dump, out, stdout=PIPE)
            reader = pipeline.start("psql", apply, into, stdin=PIPE)
            assert writer.process.stdout is not None
            assert reader.process.stdin is not None
            try:
                sink = reader.process.stdin
                sink.write("".join([*unhurried(source.server), "SET synchronous_commit = off;\n"]).encode())
                _pump(writer.process.stdout, sink, source.server, there)
                sink.close()
            except BrokenPipeError:
                pass  # psql has ended, and says why
            if reader.process.wait() != 0:
                raise reader.failed()
            if writer.process.wait() != 0:
                raise dump_failed(writer, wait)

        await Pipeline().run(run)

    async def _stamped(self, raw: _RawConnection, tenant: Tenant, cloning: Cloning) -> None:
        """Write into the version table, which came without its rows, where the clone stands."""
        path = identifier(tenant.schema) if tenant.schema is not None else self.source.path
        if path is not None:
            await raw.execute(f"SET search_path = {path}")
        await raw.executemany(
            f"INSERT INTO {identifier(cloning.version_table)} VALUES ($1)", [(head,) for head in cloning.heads]
        )
        await raw.execute("RESET search_path")

    def _dump_command(self, tenant: Tenant, cloning: Cloning, needs: Needs, wait: float) -> list[str]:
        command = [self.source.client.program("pg_dump"), "--format=plain", "--no-password", *_WITHOUT]
        command.append(f"--lock-wait-timeout={round(wait * 1000)}")
        if cloning.schema_only and cloning.generated is None:
            command.append("--schema-only")
        if tenant.schema is not None:
            # Patterns; between quotes, nothing in them means anything.
            names = (tenant.schema, *needs.schemas)
            command += [*(f"--schema={identifier(name)}" for name in names), "--strict-names"]
            command += [
                f"--exclude-table-data={identifier(schema)}.{identifier(table)}" for schema, table in needs.without_rows
            ]
        return command


def _pump(source: IO[bytes], sink: IO[bytes], server: int, there: Collection[str]) -> None:
    """Hand on what pg_dump writes, without making schemas that are there already."""
    forms = ("CREATE SCHEMA {};", "CREATE SCHEMA {} ;")
    made = {form.format(each).encode() for form in forms for name in there for each in (name, identifier(name))}
    pump_preamble(source, sink, server, made)
    for line in source:
        if line.rstrip() not in made:
            sink.write(line)
        if line.startswith(_LATER):
            break
    while chunk := source.read(CHUNK):
        sink.write(chunk)


async def schema_footprints(raw: _RawConnection, schemas: Collection[str]) -> dict[str, Footprint]:
    """How large and how old ``schemas`` of one database are, by name; without those that are not there."""
    return {name: Footprint(size, made) for name, made, size in await raw.fetch(_FOOTPRINTS, list(schemas))}


async def database_footprint(raw: _RawConnection) -> Footprint:
    """The same of the database that ``raw`` is connected to, all its schemas together."""
    made, size = await raw.fetchrow(_DATABASE_FOOTPRINT)
    return Footprint(size, made)
