"""Drop a schema of any size.

DROP SCHEMA CASCADE takes a lock on every table, index and sequence at once, and the server's lock table has room for
some thousands: 200 schemas of 7 tables in one transaction were enough for `out of shared memory`. So a large schema is
emptied part by part, each part in a transaction of its own.
"""

from __future__ import annotations

from typing import TypeAlias

import asyncpg

from orchestrator.databases.postgresql.script import identifier

_RawConnection: TypeAlias = asyncpg.Connection

#: Relations, indexes and sequences among them, that are dropped in one transaction.
_AT_ONCE = 200
#: Tables and views in one part of a larger schema: each brings its indexes, sequences and large values' table.
_PART = 20
_COUNT = "SELECT count(*) FROM pg_class WHERE relnamespace = $1::regnamespace"
#: Those first that the fewest others hang on: to drop a table locks every table that refers to it.
_NEXT = """
    SELECT CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'f' THEN 'FOREIGN TABLE'
        ELSE 'TABLE' END AS kind, format('%I.%I', nspname, relname) AS name
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE nspname = $1 AND relkind IN ('r', 'p', 'v', 'm', 'f')
    ORDER BY relkind IN ('v', 'm') DESC,
        (SELECT count(*) FROM pg_constraint WHERE confrelid = c.oid AND conrelid <> c.oid)
        + (SELECT count(*) FROM pg_inherits WHERE inhparent = c.oid), c.oid DESC
    LIMIT $2
"""


async def drop_schema(raw: _RawConnection, schema: str) -> None:
    """Drop ``schema`` with all that is in it; cut off, the same call goes on.

    Args:
        raw: a connection to its database, in no transaction.
        schema: its name.
    """
    while await raw.fetchval(_COUNT, identifier(schema)) > _AT_ONCE:
        part = await raw.fetch(_NEXT, schema, _PART)
        if not part:
            break
        async with raw.transaction():
            for row in part:
                # Another one of the part may have taken it along.
                await raw.execute(f"DROP {row['kind']} IF EXISTS {row['name']} CASCADE")
    await raw.execute(f"DROP SCHEMA IF EXISTS {identifier(schema)} CASCADE")
