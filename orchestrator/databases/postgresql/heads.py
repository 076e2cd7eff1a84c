"""Heads of PostgreSQL tenants: one schema's, many schemas' in a few statements, or what a search path finds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import asyncpg

from orchestrator.databases.answers import Reading
from orchestrator.databases.failures import describe
from orchestrator.databases.postgresql.script import identifier
from orchestrator.fleet.tenant import Tenant

#: Version tables read in one statement. Every one costs a lock, and the lock table is shared by the whole server: by
#: default it has 6,400. Fewer statements are answers that are heard sooner while Alembic is being imported.
_TABLES_PER_STATEMENT = 100

_RawConnection: TypeAlias = asyncpg.Connection


async def read_visible(raw: _RawConnection, table: str) -> tuple[str, ...]:
    """Heads from the version table that the search path finds, as Alembic finds it when told no schema."""
    try:
        rows = await raw.fetch(f"SELECT version_num::text FROM {identifier(table)}")
    except asyncpg.UndefinedTableError:
        return ()
    return tuple(sorted(row[0] for row in rows))


async def read_schemas(raw: _RawConnection, tenants: Sequence[Tenant], table: str) -> dict[str, Reading]:
    """Heads of many schemas of one database, set-wise."""
    if not tenants:
        return {}
    rows = await raw.fetch(
        "SELECT n.nspname, c.oid IS NOT NULL FROM pg_namespace n"
        " LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = $2 AND c.relkind IN ('r', 'p')"
        " WHERE n.nspname = ANY($1)",
        [tenant.schema for tenant in tenants],
        table,
    )
    has_table = {row[0]: row[1] for row in rows}
    found = {tenant.id: Reading(exists=tenant.schema in has_table) for tenant in tenants}
    with_table = [tenant for tenant in tenants if has_table.get(tenant.schema)]
    for chunk in _chunks(with_table, _TABLES_PER_STATEMENT):
        try:
            found.update(await read_chunk(raw, chunk, table))
        except asyncpg.PostgresError:
            # One table of the chunk is not ours to read, or was dropped just now: find out which, keep the others.
            for tenant in chunk:
                found[tenant.id] = await _read_alone(raw, tenant, table)
    return found


async def read_chunk(raw: _RawConnection, tenants: Sequence[Tenant], table: str) -> dict[str, Reading]:
    statement = " UNION ALL ".join(
        f"SELECT {i}, version_num::text FROM {identifier(tenant.schema or '')}.{identifier(table)}"
        for i, tenant in enumerate(tenants)
    )
    heads: dict[str, list[str]] = {tenant.id: [] for tenant in tenants}
    for i, revision in await raw.fetch(statement):
        heads[tenants[i].id].append(revision)
    return {tenant: Reading(True, tuple(sorted(revisions))) for tenant, revisions in heads.items()}


async def _read_alone(raw: _RawConnection, tenant: Tenant, table: str) -> Reading:
    try:
        return (await read_chunk(raw, [tenant], table))[tenant.id]
    except asyncpg.UndefinedTableError:
        return Reading(exists=True)
    except asyncpg.PostgresError as error:
        return Reading(exists=True, failure=describe(error))


def _chunks(tenants: Sequence[Tenant], size: int) -> Iterable[Sequence[Tenant]]:
    return (tenants[start : start + size] for start in range(0, len(tenants), size))
