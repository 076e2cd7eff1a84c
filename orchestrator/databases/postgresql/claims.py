"""Schemas and databases of PostgreSQL made, marked and taken away for tenants that come and go.

A schema is made and marked in one transaction. A database cannot be: it is made under another name, marked, and
renamed.
So a place that bears a tenant's name bears its mark, too, wherever a process was killed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import TypeAlias

import asyncpg

from orchestrator.databases.asides import refuse_set_aside
from orchestrator.databases.claims import Claim, Found, Holds, Marker, Pool, Template
from orchestrator.databases.dumping import taken
from orchestrator.databases.own_names import NEW, OFFBOARDED
from orchestrator.databases.postgresql import ready
from orchestrator.databases.postgresql.leaving import left
from orchestrator.databases.postgresql.script import identifier
from orchestrator.databases.postgresql.session import comment_of, holder, lock_key, mark_statement
from orchestrator.errors import TenantLocked
from orchestrator.fleet.tenant import Tenant

_RawConnection: TypeAlias = asyncpg.Connection

#: What a schema holds beside what belongs to tables; extensions' own objects count: somebody has put them there.
_SCHEMA = """
SELECT obj_description(n.oid, 'pg_namespace') AS comment,
    EXISTS (SELECT FROM pg_class WHERE relnamespace = n.oid)
    OR EXISTS (SELECT FROM pg_type WHERE typnamespace = n.oid)
    OR EXISTS (SELECT FROM pg_proc WHERE pronamespace = n.oid) AS full
FROM pg_namespace n WHERE n.nspname = $1
"""
#: The same of a whole database; what stands in template1 in all of them is no tenant's.
_DATABASE = """
SELECT EXISTS (
    SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND deptype = 'e')
)
"""
_COMMENT = "SELECT shobj_description(oid, 'pg_database') AS comment FROM pg_database WHERE datname = $1"
#: What was set aside, by the beginning of its name.
SCHEMAS_ASIDE = (
    "SELECT nspname AS name, obj_description(oid, 'pg_namespace') AS comment FROM pg_namespace"
    " WHERE nspname ^@ $1 ORDER BY 1"
)
DATABASES_ASIDE = (
    "SELECT datname AS name, shobj_description(oid, 'pg_database') AS comment FROM pg_database"
    " WHERE datname ^@ $1 ORDER BY 1"
)
#: Seconds that dropping waits for those who use its tables, at least.
_LOCK_WAIT = 2.0
#: What in a statement stands for a name.
_PLACEHOLDER = re.compile(r"\{(schema|database|tenant|owner)\}")


@dataclass(frozen=True, slots=True)
class Places:
    """One tenant's place on one server."""

    tenant: Tenant
    #: Its database, by its real name.
    database: str
    #: Where the server keeps extensions; ``None`` for nowhere in particular.
    extensions_schema: str | None
    #: Opens a connection to a database of the server's, for one use.
    connect: Callable[[str | None], Awaitable[_RawConnection]]
    #: Gives one that others may use afterwards.
    connected: Callable[[str | None], AbstractAsyncContextManager[_RawConnection]]
    #: A database of the server's that is not the tenant's, to make and drop that from.
    other: str
    #: The shape and the heads of a database that is made for the tenant, by a connection and the version table's name.
    look: Callable[[_RawConnection, str], Awaitable[tuple[str | None, tuple[str, ...]]]]
    #: Seconds to wait for whoever is at work on the tenant.
    lock_wait: float

    async def found(self) -> Found:
        """What is there now."""
        if self.tenant.schema is None:
            async with self.connected(self.other) as raw:
                return await self.found_database(raw)
        async with self.connected(self.database) as raw:
            return await self.found_schema(raw)

    async def claim(self, claim: Claim) -> Found:
        """Make the place where there is none, or mark an empty one; nothing where it holds something.

        Returns:
            What was there before, or the mark that was written.
        """
        if self.tenant.schema is None:
            return await self._claim_database(claim)
        async with self.locked(self.database, lock_key(self.database, self.tenant.schema)) as raw:
            found = await self.found_schema(raw)
            if found.marker is not None or found.holds is Holds.FULL:
                return found
            if found.holds is Holds.MISSING:
                await no_other_aside(raw, self.tenant, self.tenant.schema, leaving=True)
            marker = replace(claim.marker, found=found.holds is Holds.EMPTY)
            async with raw.transaction():
                if found.holds is Holds.MISSING:
                    owner = f" AUTHORIZATION {identifier(claim.owner)}" if claim.owner is not None else ""
                    await raw.execute(f"CREATE SCHEMA {identifier(self.tenant.schema)}{owner}")
                for statement in self._furnishing(claim):
                    await raw.execute(statement)
                await self._mark(raw, marker)
            return replace(found, marker=marker)

    async def drop(self, still: Callable[[], Awaitable[bool]]) -> None:
        """Take the place away with all that it holds, under the tenant's lock, where that is ``still`` to be done."""
        if self.tenant.schema is None:
            key = lock_key(self.database, None)
            async with self.locked(self.other, key) as raw:
                if not await raw.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", self.database):
                    return
                # The lock that migrations take is one of the database itself, and ends with it.
                async with self.locked(self.database, key):
                    if not await still():
                        return
                    await raw.execute(f"DROP DATABASE {identifier(self.database)} WITH (FORCE)")
            return
        async with self.locked(self.database, lock_key(self.database, self.tenant.schema)) as raw:
            if await still():
                async with raw.transaction():
                    # Who reads its tables must not hold up everybody who comes after us.
                    await raw.execute(f"SET LOCAL lock_timeout = {round(max(self.lock_wait, _LOCK_WAIT) * 1000)}")
                    await raw.execute(f"DROP SCHEMA IF EXISTS {identifier(self.tenant.schema)} CASCADE")

    async def _claim_database(self, claim: Claim) -> Found:
        async with self.locked(self.other, lock_key(self.database, None)) as raw:
            found = await self.found_database(raw)
            if found.marker is not None and found.marker.unfurnished and found.marker.is_of(claim.marker):
                # Whoever took it ready made was cut off before it had more than its mark.
                return replace(found, marker=await self._furnish(claim, found.marker))
            if found.marker is not None or found.holds is Holds.FULL:
                return found
            if found.holds is Holds.EMPTY:
                return replace(found, marker=await self._furnish(claim, replace(claim.marker, found=True)))
            await no_other_aside(raw, self.tenant, self.database, leaving=True)
            if claim.pool is not None and await self._take_ready(raw, claim, claim.pool):
                return replace(found, marker=claim.marker, taken=True)
            copied = await self._make(raw, claim)
            return replace(found, marker=claim.marker, copied=copied)

    async def _take_ready(self, raw: _RawConnection, claim: Claim, pool: Pool) -> bool:
        """Take one of the copies that are ready, and give it what it is to be given; there may be none."""
        furnished = not claim.extensions and not claim.statements
        for one in await ready.ready(raw, pool):
            if await ready.take(raw, one, self.database, claim, furnished=furnished):
                if not furnished:
                    await self._furnish(claim, claim.marker)
                return True
        return False

    async def _furnish(self, claim: Claim, marker: Marker) -> Marker:
        """Give a database what it is to be given, that has its name already."""
        marker = replace(marker, unfurnished=False)
        async with self.connected(self.database) as inside:
            await self._furnish_with(inside, claim, marker, self.database)
        return marker

    async def _make(self, raw: _RawConnection, claim: Claim) -> bool:
        """Make the database under another name, and rename it; whether it is a copy of the template."""
        new = NEW + hashlib.sha256(self.database.encode()).hexdigest()[:16]
        # Where the copy is not what it should be, an empty one is as good.
        for template in dict.fromkeys((claim.template, None)):
            await raw.execute(f"DROP DATABASE IF EXISTS {identifier(new)} WITH (FORCE)")
            if await self._made(raw, new, claim, template):
                return template is not None
        raise AssertionError

    async def _made(self, raw: _RawConnection, new: str, claim: Claim, template: Template | None) -> bool:
        """Make, look at, furnish and rename it; ``False`` where it cannot be copied, or came out different."""
        source = "" if template is None else f" TEMPLATE {identifier(template.name)}"
        try:
            await raw.execute(f"CREATE DATABASE {identifier(new)}{source}{_owner(claim)}")
        except asyncpg.PostgresError:
            if template is None or raw.is_closed():
                raise
            # It is gone, or being made anew, or this role may not copy it.
            return False
        try:
            # Nobody may be connected to what is to be renamed.
            inside = await self.connect(new)
            try:
                if template is not None and not await self._is_like(inside, template):
                    return False
                await self._furnish_with(inside, claim, claim.marker, new)
            finally:
                await inside.close(timeout=5)
            await left(raw, new)
            await raw.execute(f"ALTER DATABASE {identifier(new)} RENAME TO {identifier(self.database)}")
        except BaseException:
            with suppress(Exception):
                await raw.execute(f"DROP DATABASE IF EXISTS {identifier(new)} WITH (FORCE)")
            raise
        return True

    async def _is_like(self, inside: _RawConnection, template: Template) -> bool:
        return await self.look(inside, template.version_table) == (template.shape, template.heads)

    async def _furnish_with(self, raw: _RawConnection, claim: Claim, marker: Marker, database: str) -> None:
        async with raw.transaction():
            for statement in self._furnishing(claim, database):
                await raw.execute(statement)
            await self._mark(raw, marker, database)

    def _furnishing(self, claim: Claim, database: str | None = None) -> Iterator[str]:
        where = identifier(self.extensions_schema or "public")
        if claim.extensions and self.extensions_schema is not None:
            yield f"CREATE SCHEMA IF NOT EXISTS {where}"
        for extension in claim.extensions:
            yield f"CREATE EXTENSION IF NOT EXISTS {identifier(extension)} SCHEMA {where}"
        names = {
            "schema": self.tenant.schema or "public",
            "database": database or self.database,
            "tenant": self.tenant.id,
            "owner": claim.owner,
        }
        for statement in claim.statements:
            yield _PLACEHOLDER.sub(lambda found: _named(names[found[1]], found[0]), statement)

    async def found_schema(self, raw: _RawConnection) -> Found:
        """What there is of a schema; ``raw`` is connected to its database."""
        row = await raw.fetchrow(_SCHEMA, self.tenant.schema)
        if row is None:
            return Found(Holds.MISSING)
        return Found(Holds.FULL if row["full"] else Holds.EMPTY, Marker.read(row["comment"]))

    async def found_database(self, raw: _RawConnection) -> Found:
        """What there is of a database; ``raw`` is connected to another one."""
        row = await raw.fetchrow(_COMMENT, self.database)
        if row is None:
            return Found(Holds.MISSING)
        async with self.connected(self.database) as inside:
            full = await inside.fetchval(_DATABASE)
        return Found(Holds.FULL if full else Holds.EMPTY, Marker.read(row["comment"]))

    async def _mark(self, raw: _RawConnection, marker: Marker, database: str | None = None) -> None:
        database = database or self.database
        comment = await raw.fetchval(*comment_of(self.tenant, database))
        await raw.execute(mark_statement(comment, marker, self.tenant, database))

    @asynccontextmanager
    async def locked(self, database: str, key: int) -> AsyncIterator[_RawConnection]:
        """A connection to ``database`` that holds an advisory lock there.

        Raises:
            TenantLocked: somebody else has it.
        """
        async with self.connected(database) as raw:
            if not await taken(lambda: raw.fetchval("SELECT pg_try_advisory_lock($1)", key), self.lock_wait):
                raise TenantLocked(
                    f"another process is at work on this tenant: {await holder(raw, key) or 'holder unknown'}",
                    hint="wait for it, then try again",
                )
            try:
                yield raw
            finally:
                # Whoever uses the connection next would have it otherwise.
                with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                    await raw.execute("SELECT pg_advisory_unlock_all()")


def _owner(claim: Claim) -> str:
    return "" if claim.owner is None else f" OWNER {identifier(claim.owner)}"


def _named(name: str | None, placeholder: str) -> str:
    return placeholder if name is None else identifier(name)


async def no_other_aside(raw: _RawConnection, tenant: Tenant, was: str, *, leaving: bool) -> None:
    """Make sure that the place that is to be made for ``tenant`` was not set aside; see :func:`refuse_set_aside`.

    Args:
        raw: a connection to the schema's database, or for a database to another one.
        tenant: whose place is to be made.
        was: its name.
        leaving: only where the taking out has not ended yet.
    """
    rows = await raw.fetch(SCHEMAS_ASIDE if tenant.schema is not None else DATABASES_ASIDE, OFFBOARDED)
    markers = [marker for row in rows if (marker := Marker.read(row["comment"])) is not None]
    mine = [each for each in markers if each.departure is not None and each.departure.was == was]
    refuse_set_aside(tenant, mine, leaving=leaving)
