"""How large the tables are that somebody is about to change, on the tenants where they are largest."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from orchestrator.fleet.tenant import Tenant

#: Only the largest are measured: that opens each table and its indexes. What vacuum counted last is there for all, and
#: costs neither a lock nor a look at a file.
_SIZES = """
    WITH named AS (
        SELECT nspname, relname, c.oid, reltuples, relpages FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
        WHERE nspname = ANY($1) AND relname = ANY($2) AND relkind IN ('r', 'p', 'm')
    ), largest AS (
        SELECT nspname FROM named GROUP BY nspname ORDER BY sum(relpages) DESC, sum(reltuples) DESC, nspname LIMIT $3
    )
    SELECT nspname, relname, reltuples::bigint, pg_total_relation_size(oid) FROM named JOIN largest USING (nspname)
"""
#: pg_database_size() raises for a database that one may not connect to.
_LARGEST_DATABASES = """
    SELECT datname FROM pg_database WHERE datname = ANY($1)
    ORDER BY CASE WHEN has_database_privilege(oid, 'CONNECT') THEN pg_database_size(oid) END DESC NULLS LAST, datname
    LIMIT $2
"""


@dataclass(frozen=True, slots=True)
class TableSize:
    """One table of one tenant."""

    tenant: str
    table: str
    #: As vacuum counted them last; ``None`` for a table that was never analysed.
    rows: int | None
    #: With its indexes and what is kept beside it; ``None`` where that is not known.
    bytes: int | None

    def as_json(self) -> dict[str, Any]:
        """An entry of ``sizes`` in the document of ``plan``."""
        return {"tenant": self.tenant, "table": self.table, "rows": self.rows, "bytes": self.bytes}


async def read_sizes(
    raw: asyncpg.Connection, tenants: Sequence[Tenant], tables: Collection[str], most: int
) -> list[TableSize]:
    """Sizes of ``tables`` on the ``most`` largest of ``tenants``, which are in this database; in one statement.

    Args:
        raw: a connection to it.
        tenants: with a schema each, or the one whose database it is.
        tables: names; words that are none are left out.
        most: tenants at most.
    """
    alone = [tenant for tenant in tenants if tenant.schema is None]
    whose = {tenant.schema: tenant.id for tenant in tenants if tenant.schema is not None}
    if alone:
        default = await raw.fetchval("SELECT current_schema()")
        whose.setdefault(default, alone[0].id)
    rows = await raw.fetch(_SIZES, list(whose), list(tables), most)
    return [TableSize(whose[schema], table, None if count < 0 else count, size) for schema, table, count, size in rows]


async def largest_databases(raw: asyncpg.Connection, names: Sequence[str], most: int) -> list[str]:
    """The ``most`` largest of the databases called ``names``."""
    return [row[0] for row in await raw.fetch(_LARGEST_DATABASES, list(names), most)]
