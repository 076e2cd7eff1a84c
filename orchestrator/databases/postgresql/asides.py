"""Schemas and databases of PostgreSQL set aside under a name of ours, brought back, and dropped.

The rename and the mark that says whose it was are one transaction: a place has the tenant's name, or says that.
A schema is dumped before that, because a dump of a schema names it: a lock on its tables keeps others from writing in
between. A database is dumped after it, when nobody finds it any more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import TypeAlias

import asyncpg

from orchestrator.databases.asides import Aside, Leave, Leaving, require_ours, require_same
from orchestrator.databases.claims import Holds, Marker
from orchestrator.databases.departures import Stage
from orchestrator.databases.own_names import OFFBOARDED, offboarded
from orchestrator.databases.postgresql.claims import DATABASES_ASIDE, SCHEMAS_ASIDE, Places
from orchestrator.databases.postgresql.copying.database_rename import renamed_under_users
from orchestrator.databases.postgresql.copying.dump import LOCK_WAIT
from orchestrator.databases.postgresql.copying.dump_script import unhurried
from orchestrator.databases.postgresql.dependents import dependents
from orchestrator.databases.postgresql.script import identifier, literal
from orchestrator.databases.postgresql.session import comment_of, lock_key, mark_statement
from orchestrator.databases.postgresql.whole_schema import drop_schema
from orchestrator.errors import OnboardingError, Unprovisioned
from orchestrator.fleet.tenant import Isolation, Limits, Tenant

_RawConnection: TypeAlias = asyncpg.Connection

_OID = "SELECT oid FROM pg_namespace WHERE nspname = $1"
#: Tables alone: LOCK TABLE takes nothing else of these, and goes through views to other schemas' tables.
_TABLES = (
    "SELECT format('%I.%I', nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
    " WHERE nspname = $1 AND relkind IN ('r', 'p') ORDER BY c.oid"
)


async def schemas_aside(raw: _RawConnection, server: str, database: str | None) -> list[Aside]:
    """What was set aside in the database that ``raw`` is connected to.

    Args:
        raw: the connection.
        server: the server's name in the fleet.
        database: the database, as tenants on it name it.
    """
    found = []
    for row in await raw.fetch(SCHEMAS_ASIDE, OFFBOARDED):
        marker = Marker.read(row["comment"])
        if marker is not None and marker.departure is not None:
            was = Tenant(marker.tenant, server, Isolation.SCHEMA, schema=marker.departure.was, database=database)
            found.append(Aside(was, row["name"], marker))
    return found


async def databases_aside(raw: _RawConnection, server: str) -> list[Aside]:
    """What databases were set aside."""
    found = []
    for row in await raw.fetch(DATABASES_ASIDE, OFFBOARDED):
        marker = Marker.read(row["comment"])
        if marker is not None and marker.departure is not None:
            was = Tenant(marker.tenant, server, Isolation.DATABASE, database=marker.departure.was)
            found.append(Aside(was, row["name"], marker))
    return found


@dataclass(frozen=True, slots=True)
class Departures:
    """One tenant's place, on its way out or back."""

    places: Places

    @property
    def _tenant(self) -> Tenant:
        return self.places.tenant

    @asynccontextmanager
    async def set_aside(self, leave: Leave) -> AsyncIterator[Leaving]:
        """Hand the place out to be read; set it aside at the end, unless there was an error."""
        if self._tenant.schema is None:
            async with self._database_set_aside(leave) as leaving:
                yield leaving
        else:
            async with self._schema_set_aside(self._tenant.schema, leave) as leaving:
                yield leaving

    async def remark(self, aside: Aside, marker: Marker) -> None:
        """Write another mark on it."""
        async with self._same(aside) as raw:
            await self._write(raw, aside.name, marker)

    async def bring_back(self, aside: Aside) -> None:
        """Give it its old name back, and let connections in."""
        async with self._same(aside) as raw:
            await self._require_free()
            now = await raw.fetchval(*self._comment(aside.name))
            await self._named_back(raw, aside.name, aside.marker.handed_over().within(now))

    async def drop(self, aside: Aside, limits: Limits) -> None:
        """Drop it with all that is in it, in as many transactions as the server's lock table asks for."""
        async with self._same(aside) as raw:
            if self._tenant.schema is not None:
                await _be_patient(raw, limits)
                await _refuse_dependents(raw, aside.name)
            if aside.departure.stage is not Stage.DROPPING:
                dropping = replace(aside.departure, stage=Stage.DROPPING)
                await self._write(raw, aside.name, replace(aside.marker, departure=dropping))
            if self._tenant.schema is None:
                await raw.execute(f"DROP DATABASE {identifier(aside.name)} WITH (FORCE)")
            else:
                await drop_schema(raw, aside.name)

    @asynccontextmanager
    async def _schema_set_aside(self, schema: str, leave: Leave) -> AsyncIterator[Leaving]:
        places = self.places
        name = offboarded(schema, leave.run)
        async with places.locked(places.database, lock_key(places.database, schema)) as raw:
            await _be_patient(raw, leave.limits)
            if leave.dumped:
                await self._mark_for_its_dump(raw, schema, leave.marker)
            async with raw.transaction():
                found = await places.found_schema(raw)
                if found.holds is Holds.MISSING:
                    raise Unprovisioned(f"there is no {self._tenant.place} any more")
                require_ours(self._tenant, found.marker, leave.marker)
                if leave.dropped:
                    await _refuse_dependents(raw, schema)
                if leave.dumped and (tables := [row[0] for row in await raw.fetch(_TABLES, schema)]):
                    # Readers go on, pg_dump among them; writers wait, and then do not find it.
                    await raw.execute(f"LOCK TABLE ONLY {', ONLY '.join(tables)} IN SHARE MODE")
                leaving = Leaving(self._tenant, leave.marker)
                yield leaving
                await self._write(raw, schema, leaving.marker)
                await raw.execute(f"ALTER SCHEMA {identifier(schema)} RENAME TO {identifier(name)}")

    async def _mark_for_its_dump(self, raw: _RawConnection, schema: str, ours: Marker) -> None:
        """Whose it is goes with the dump; so whoever restores that knows his own place when he is cut off."""
        found = await self.places.found_schema(raw)
        if found.holds is not Holds.MISSING and found.marker is None:
            await self._write(raw, schema, ours.handed_over())

    @asynccontextmanager
    async def _database_set_aside(self, leave: Leave) -> AsyncIterator[Leaving]:
        places = self.places
        database, key = places.database, lock_key(places.database, None)
        name = offboarded(database, leave.run)
        async with places.locked(places.other, key) as raw:
            await _be_patient(raw, leave.limits)
            found = await places.found_database(raw)
            if found.holds is Holds.MISSING:
                raise Unprovisioned(f"there is no {self._tenant.place} any more")
            require_ours(self._tenant, found.marker, leave.marker)
            before = await raw.fetchval(*comment_of(self._tenant, database))
            # The lock that migrations take is one of the database itself. The rename ends its connection, too.
            async with places.locked(database, key), raw.transaction():
                await self._write(raw, database, leave.marker)
                await self._renamed(raw, database, name)
                if not leave.dumped:
                    await raw.execute(f"ALTER DATABASE {identifier(name)} ALLOW_CONNECTIONS false")
            leaving = Leaving(replace(self._tenant, database=name), leave.marker)
            try:
                yield leaving
            except BaseException:
                with suppress(Exception):
                    await self._named_back(raw, name, before)
                raise
            async with raw.transaction():
                await self._write(raw, name, leaving.marker)
                await raw.execute(f"ALTER DATABASE {identifier(name)} ALLOW_CONNECTIONS false")

    @asynccontextmanager
    async def _same(self, aside: Aside) -> AsyncIterator[_RawConnection]:
        """A connection with the tenant's lock, once it is sure that nobody has gone on with the place meanwhile."""
        places = self.places
        where = places.other if self._tenant.schema is None else places.database
        async with places.locked(where, lock_key(places.database, self._tenant.schema)) as raw:
            require_same(aside, Marker.read(await raw.fetchval(*self._comment(aside.name))))
            yield raw

    async def _require_free(self) -> None:
        found = await self.places.found()
        if found.holds is not Holds.MISSING:
            raise OnboardingError(
                f"there is another {self._tenant.place} by now",
                hint="rename that one, or what it is; then the same command again",
            )

    async def _named_back(self, raw: _RawConnection, name: str, comment: str | None) -> None:
        async with raw.transaction():
            what = "SCHEMA" if self._tenant.schema is not None else "DATABASE"
            told = "NULL" if comment is None else literal(comment)
            await raw.execute(f"COMMENT ON {what} {identifier(name)} IS {told}")
            if self._tenant.schema is not None:
                await raw.execute(f"ALTER SCHEMA {identifier(name)} RENAME TO {identifier(self._tenant.schema)}")
            else:
                await self._renamed(raw, name, self.places.database)
                await raw.execute(f"ALTER DATABASE {identifier(self.places.database)} ALLOW_CONNECTIONS true")

    async def _renamed(self, raw: _RawConnection, name: str, to: str) -> None:
        ender = await self.places.connect(self.places.other)
        try:
            await renamed_under_users(raw, ender, name, to)
        finally:
            with suppress(Exception):
                await ender.close(timeout=5)

    def _comment(self, name: str) -> tuple[str, str]:
        return comment_of(self._called(name), name)

    def _called(self, name: str) -> Tenant:
        return replace(self._tenant, schema=None if self._tenant.schema is None else name)

    async def _write(self, raw: _RawConnection, name: str, marker: Marker) -> None:
        """Write a mark on the place that is called ``name`` now."""
        now = await raw.fetchval(*self._comment(name))
        await raw.execute(mark_statement(now, marker, self._called(name), name))


async def _be_patient(raw: _RawConnection, limits: Limits) -> None:
    """Wait so long for locks; and for as long as a dump takes, nothing is said on this connection."""
    wait = round((limits.lock_timeout or LOCK_WAIT) * 1000)
    await raw.execute("".join([f"SET lock_timeout = {wait};\n", *unhurried(raw.get_server_version().major)]))


async def _refuse_dependents(raw: _RawConnection, schema: str) -> None:
    oid = await raw.fetchval(_OID, schema)
    if found := await dependents(raw, oid):
        raise OnboardingError(
            f"what is outside of schema {schema!r} refers to it, and would be dropped with it: {found}",
            hint="drop these first, where they are no longer needed",
        )
