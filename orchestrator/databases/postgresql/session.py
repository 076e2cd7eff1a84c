"""One connection inside one PostgreSQL tenant's scope, and the lock that goes with it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import asyncpg

from orchestrator.databases.claims import Marker
from orchestrator.databases.failures import shortened
from orchestrator.databases.postgresql.heads import read_chunk, read_visible
from orchestrator.databases.postgresql.script import identifier, literal
from orchestrator.errors import DatabaseError
from orchestrator.fleet.tenant import Tenant

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

_RawConnection: TypeAlias = asyncpg.Connection


def lock_key(database: str, schema: str | None) -> int:
    """The advisory-lock key (signed 64 bit) of one place: derived from what it is, so that every process agrees."""
    digest = hashlib.blake2b(f"orchestrator\0{database}\0{schema or ''}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


async def holder(raw: _RawConnection, key: int) -> str | None:
    """Who holds an advisory lock of this database: the process and how it names itself."""
    row = await raw.fetchrow(
        "SELECT l.pid, a.application_name, date_trunc('second', now() - a.backend_start)::text AS age"
        " FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
        " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1"
        " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND ((l.classid::bigint << 32) | l.objid::bigint) = $1",
        key,
    )
    if row is None:
        return None
    # Since when is told to nobody but the holder's own role and those with pg_read_all_stats.
    age = f", for {row['age']}" if row["age"] is not None else ""
    return f"{row['application_name']} (pid {row['pid']}{age})"


def comment_of(tenant: Tenant, database: str) -> tuple[str, str]:
    """A query, and its parameter, for the comment on a tenant's place.

    Args:
        tenant: whose.
        database: its database, by its real name.
    """
    if tenant.schema is not None:
        return "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = $1", tenant.schema
    return "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = $1", database


def mark_statement(comment: str | None, marker: Marker, tenant: Tenant, database: str) -> str:
    """The statement that writes ``marker`` on a tenant's place; whatever else ``comment`` says stays."""
    kind, name = ("DATABASE", database) if tenant.schema is None else ("SCHEMA", tenant.schema)
    return f"COMMENT ON {kind} {identifier(name)} IS {literal(marker.within(comment))}"


@dataclass(slots=True)
class PostgreSQLSession:
    """One connection inside one tenant's scope."""

    connection: AsyncConnection
    _raw: _RawConnection
    _tenant: Tenant
    _database: str
    marks_in_transaction: bool = True

    async def try_lock(self) -> bool:
        """Session-level, on the migrating connection: it lives exactly as long as the backend that works under it."""
        return bool(await self._raw.fetchval("SELECT pg_try_advisory_lock($1)", self._key))

    async def lock_holder(self) -> str | None:
        """The holder's process and how it names itself."""
        return await holder(self._raw, self._key)

    async def heads(self, version_table: str) -> tuple[str, ...]:
        """Read by the driver, past SQLAlchemy, so that no transaction is begun."""
        if self._tenant.schema is None:
            return await read_visible(self._raw, version_table)
        try:
            return (await read_chunk(self._raw, [self._tenant], version_table))[self._tenant.id].heads
        except asyncpg.UndefinedTableError:
            return ()

    async def marker(self) -> Marker | None:
        """Read from the comment of the schema or database."""
        return Marker.read(await self._raw.fetchval(*comment_of(self._tenant, self._database)))

    async def mark(self, marker: Marker) -> None:
        """In the transaction that SQLAlchemy has begun, on whose connection this is."""
        comment = await self._raw.fetchval(*comment_of(self._tenant, self._database))
        await self._raw.execute(mark_statement(comment, marker, self._tenant, self._database))

    async def script(self, sql: str) -> None:
        """As one message, which may have many statements in it."""
        # What SQLAlchemy has begun is sent with its first statement.
        await self.connection.exec_driver_sql("SELECT 1")
        begun = await self._raw.fetchval("SELECT txid_current()")
        await self._raw.execute(sql)
        if not self._raw.is_in_transaction() or await self._raw.fetchval("SELECT txid_current()") != begun:
            raise DatabaseError(
                "the script has ended the transaction that it was run in, and what it did up to there stays",
                hint="take COMMIT and ROLLBACK out of it",
            )

    async def blockers(self) -> tuple[str, ...]:
        """Sessions with locks on what is in the scope now: what the one of interest holds is what was waited for."""
        rows = await self._raw.fetch(
            "SELECT a.pid, a.application_name, date_trunc('second', max(now() - a.xact_start))::text AS age, a.query"
            " FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_stat_activity a ON a.pid = l.pid"
            " WHERE l.granted AND l.pid <> pg_backend_pid() "
            " AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())"
            " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            " GROUP BY a.pid, a.application_name, a.query ORDER BY max(now() - a.xact_start) DESC LIMIT 3"
        )
        return tuple(
            f"pid {pid} ({name or 'no name'}, for {age}): {shortened(query)}" for pid, name, age, query in rows
        )

    async def invalid_indexes(self) -> Mapping[str, int]:
        """Partitioned ones are left out: those are invalid until every partition's is attached, and rightly so."""
        rows = await self._raw.fetch(
            "SELECT c.relname, c.oid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
            " JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE NOT i.indisvalid AND c.relkind = 'i' AND n.nspname = current_schema()"
        )
        return {row[0]: row[1] for row in rows}

    @property
    def _key(self) -> int:
        return lock_key(self._database, self._tenant.schema)
