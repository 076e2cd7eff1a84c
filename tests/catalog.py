"""What a PostgreSQL schema or a SQLite file holds, as values that can be compared across places.

Counting objects does not find a column bound to another schema's enum or a foreign key into another tenant. So every
definition is read while the search path holds only the schema itself: PostgreSQL prints what is in it without its name,
and what lies elsewhere with the name of that schema.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import asyncpg

#: Kind and name of an object to everything the database says of it.
Catalog = Mapping[str, str]

#: What extensions brought is left out; partitions, rules and policies are in no history here.
_QUERY = """
WITH space AS (SELECT oid FROM pg_namespace WHERE nspname = $1),
extension AS (SELECT classid, objid FROM pg_depend WHERE deptype = 'e'),
relation AS (
    SELECT * FROM pg_class WHERE relnamespace = (SELECT oid FROM space)
    AND ('pg_class'::regclass, oid) NOT IN (SELECT classid, objid FROM extension)
)
SELECT 'relation ' || relname, concat_ws(' ', relkind, relpersistence, relreplident, relrowsecurity, reloptions,
    obj_description(oid, 'pg_class'))
FROM relation
UNION ALL
SELECT 'column ' || relname || '.' || attname, concat_ws(' ',
    '#' || row_number() OVER (PARTITION BY attrelid ORDER BY attnum),
    format_type(atttypid, atttypmod), CASE WHEN attnotnull THEN 'NOT NULL' END,
    'DEFAULT ' || pg_get_expr(adbin, adrelid), 'IDENTITY ' || nullif(attidentity::text, ''),
    'GENERATED ' || nullif(attgenerated::text, ''), 'COLLATE ' || nullif(attcollation, 0)::regcollation,
    col_description(attrelid, attnum))
FROM relation JOIN pg_attribute ON attrelid = relation.oid
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attnum > 0 AND NOT attisdropped AND relkind IN ('r', 'p', 'v', 'm', 'f', 'c')
UNION ALL
SELECT 'constraint ' || relname || '.' || conname, concat_ws(' ', contype, convalidated, pg_get_constraintdef(c.oid))
FROM relation JOIN pg_constraint c ON conrelid = relation.oid
UNION ALL
SELECT 'index ' || i.relname, concat_ws(' ', CASE WHEN NOT (indisvalid AND indisready) THEN 'INVALID' END,
    pg_get_indexdef(indexrelid, 0, true), CASE WHEN indisprimary THEN 'PRIMARY KEY' END)
FROM relation JOIN pg_index ON indrelid = relation.oid JOIN pg_class i ON i.oid = indexrelid
UNION ALL
SELECT 'sequence ' || relname, concat_ws(' ', format_type(seqtypid, NULL), seqstart, seqincrement, seqmin, seqmax,
    seqcache, seqcycle, (SELECT 'OWNED BY ' || refobjid::regclass || ' #' || refobjsubid FROM pg_depend
        WHERE classid = 'pg_class'::regclass AND objid = seqrelid AND refobjsubid > 0))
FROM relation JOIN pg_sequence ON seqrelid = relation.oid
UNION ALL
SELECT 'view ' || relname, pg_get_viewdef(oid) FROM relation WHERE relkind IN ('v', 'm')
UNION ALL
SELECT 'trigger ' || relname || '.' || tgname, concat_ws(' ', tgenabled, pg_get_triggerdef(t.oid, true))
FROM relation JOIN pg_trigger t ON tgrelid = relation.oid WHERE NOT tgisinternal
UNION ALL
SELECT 'type ' || typname, concat_ws(' ', typtype, format_type(nullif(typbasetype, 0), typtypmod), typdefault,
    (SELECT string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid),
    (SELECT string_agg(pg_get_constraintdef(oid), ' ' ORDER BY conname) FROM pg_constraint WHERE contypid = t.oid))
FROM pg_type t WHERE typnamespace = (SELECT oid FROM space)
AND ('pg_type'::regclass, oid) NOT IN (SELECT classid, objid FROM extension)
UNION ALL
SELECT 'function ' || proname || '(' || pg_get_function_identity_arguments(f.oid) || ')', concat_ws(' ', prokind,
    lanname, provolatile, proisstrict, prosecdef, pg_get_function_arguments(f.oid), pg_get_function_result(f.oid),
    proconfig, prosrc)
FROM pg_proc f JOIN pg_language l ON l.oid = prolang WHERE pronamespace = (SELECT oid FROM space)
AND ('pg_proc'::regclass, f.oid) NOT IN (SELECT classid, objid FROM extension)
"""

#: One counting query for each table, to be joined to one statement.
_COUNTS = """
SELECT format('SELECT %L, count(*)::text FROM %I.%I', 'rows ' || relname, nspname, relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = $1 AND relkind IN ('r', 'p')
"""


def catalog(url: str, schema: str = "public", extensions: str | None = None) -> Catalog:
    """Read what one schema of the database at ``url`` holds, with the number of rows of each table.

    Args:
        url: address of the database, or of a SQLite file.
        schema: which one; a file has none.
        extensions: schema with the extensions whose types and operators the definitions use.
    """
    return catalogs(url, [schema], extensions)[schema]


def catalogs(url: str, schemas: Iterable[str], extensions: str | None = None) -> dict[str, Catalog]:
    """Read what several schemas of one database hold, one after the other over one connection."""
    if url.startswith("sqlite:///"):
        return dict.fromkeys(schemas, _read_file(url.removeprefix("sqlite:///")))
    # A thread of its own: the caller may be in a running event loop.
    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(asyncio.run, _read(url, list(schemas), extensions)).result()


def difference(a: Catalog, b: Catalog) -> list[str]:
    """What is not the same in two catalogs, one line for each object; ``-`` is only in ``a``, ``+`` only in ``b``."""
    return [
        line
        for name in sorted({*a, *b})
        if a.get(name) != b.get(name)
        for line in (f"- {name}: {a.get(name)}", f"+ {name}: {b.get(name)}")
        if not line.endswith(": None")
    ]


def _read_file(file: str) -> Catalog:
    with closing(sqlite3.connect(file)) as connection:
        objects = connection.execute("SELECT type || ' ' || name, coalesce(sql, '') FROM sqlite_master")
        found = {name: _in_order(sql) for name, sql in objects}
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            (found[f"rows {table}"],) = connection.execute(f"SELECT count(*) || '' FROM \"{table}\"").fetchone()
    return found


def _in_order(sql: str) -> str:
    """Alembic's batch mode keeps a table's constraints in a set, and writes them in another order each time."""
    lines = [line.strip().rstrip(",") for line in sql.splitlines()]
    constraints = [line for line in lines if line.startswith(("CONSTRAINT", "PRIMARY", "UNIQUE", "FOREIGN", "CHECK"))]
    return "\n".join([*(line for line in lines if line not in constraints), *sorted(constraints)])


async def _read(url: str, schemas: list[str], extensions: str | None) -> dict[str, Catalog]:
    connection = await asyncpg.connect(url)
    try:
        return {schema: await _read_schema(connection, schema, extensions) for schema in schemas}
    finally:
        await connection.close()


async def _read_schema(connection: asyncpg.Connection, schema: str, extensions: str | None) -> Catalog:
    path = ", ".join('"' + name.replace('"', '""') + '"' for name in (schema, extensions) if name)
    await connection.execute(f"SET search_path = {path}")
    rows = await connection.fetch(_QUERY, schema)
    # A data migration that filled another tenant's tables shows in how many rows there are.
    counts = [count for (count,) in await connection.fetch(_COUNTS, schema)]
    if counts:
        rows += await connection.fetch(" UNION ALL ".join(counts))
    found = {name: text or "" for name, text in rows}
    assert len(found) == len(rows), "two objects with one name would hide each other"
    return found
