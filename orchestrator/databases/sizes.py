"""How large tables are: many schemas of one PostgreSQL database, or one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

import asyncpg

#: Rows as the planner thinks, else as the statistics collector has counted them: a table that was never analysed has
#: ``-1`` (before PostgreSQL 14, ``0``). Indexes and TOAST are part of a table's size, partitions of their parent's.
_SIZES = """
SELECT n.nspname, c.relname, sum(pg_total_relation_size(part.relid))::bigint,
       sum(CASE WHEN leaf.reltuples > 0 THEN leaf.reltuples ELSE pg_stat_get_live_tuples(leaf.oid) END)::bigint
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
    SELECT c.oid AS relid WHERE c.relkind <> 'p'
    UNION ALL SELECT relid FROM pg_partition_tree(CASE c.relkind WHEN 'p' THEN c.oid END) WHERE isleaf
) part
JOIN pg_class leaf ON leaf.oid = part.relid
WHERE n.nspname = ANY($1) AND c.relname = ANY($2) AND c.relkind IN ('r', 'p', 'm', 'f')
GROUP BY n.nspname, c.relname
"""


@dataclass(frozen=True, slots=True)
class Size:
    """How large one table of one tenant is."""

    #: With its indexes; ``None`` where the server does not tell.
    bytes: int | None
    #: About; exact only in SQLite.
    rows: int


async def table_sizes(
    raw: asyncpg.Connection, schemas: Collection[str], tables: Collection[str]
) -> dict[str, dict[str, Size]]:
    """The sizes of these tables of these schemas, by schema and table; without those that are not there.

    Raises:
        asyncpg.PostgresError: a table could not be looked at, because it is being altered.
    """
    found: dict[str, dict[str, Size]] = {schema: {} for schema in schemas}
    for schema, table, bytes_, rows in await raw.fetch(_SIZES, list(schemas), list(tables)):
        found[schema][table] = Size(bytes_, rows)
    return found


def sizes_in_file(connection: sqlite3.Connection, tables: Collection[str]) -> dict[str, Size]:
    """The sizes of these tables of a SQLite file, by table; without those that are not there."""
    there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    found: dict[str, Size] = {}
    for table in sorted(there & set(tables)):
        quoted = '"' + table.replace('"', '""') + '"'
        (rows,) = connection.execute(f"SELECT count(*) FROM {quoted}").fetchone()
        size = None
        with suppress(sqlite3.OperationalError):  # a library without the table of pages
            (size,) = connection.execute(
                "SELECT sum(pgsize) FROM dbstat WHERE name IN (SELECT name FROM sqlite_master WHERE tbl_name = ?)",
                (table,),
            ).fetchone()
        found[table] = Size(size, rows)
    return found
