"""The statements behind :mod:`orchestrator.databases.fingerprint`: what is where, and all that it comes to."""

from __future__ import annotations

from orchestrator.databases.fingerprint_lines import lines

#: What a definition's text depends on besides the definition, and what keeps the reading fast and out of the way.
#: Names in the statements mean PostgreSQL's own. A lock is only ever waited for where a tenant is being altered.
#: Every object is looked up by an index: left to itself, the planner goes through the whole of a catalog for every
#: schema where it thinks little of its size, and then thousands of schemas cost millions of rows each.
SETTINGS = """
SET LOCAL search_path = pg_catalog;
SET LOCAL jit = off;
SET LOCAL lock_timeout = '1s';
SET LOCAL statement_timeout = '60s';
SET LOCAL quote_all_identifiers = off;
SET LOCAL standard_conforming_strings = on;
SET LOCAL "DateStyle" = 'ISO, YMD';
SET LOCAL "IntervalStyle" = postgres;
SET LOCAL "TimeZone" = 'UTC';
SET LOCAL extra_float_digits = 1;
SET LOCAL bytea_output = hex;
SET LOCAL xmloption = content;
SET LOCAL lc_monetary = 'C';
SET LOCAL enable_seqscan = off;
SET LOCAL enable_hashjoin = off;
SET LOCAL enable_mergejoin = off;
"""

#: Which objects are where. No catalog has an index that begins with the schema, but ``pg_depend`` has one that begins
#: with what is depended on, and every relation, type and function depends on its schema; only a composite type's
#: relation depends on the type instead. So one schema among thousands costs what is in it, not a look at everything.
#: ``prolang`` 14 is SQL: only such a function's body may be parsed, and then locks like a view.
SURVEY = """
WITH space AS MATERIALIZED (
    SELECT oid, nspname FROM pg_namespace WHERE nspname = ANY($1::text[]) AND has_schema_privilege(oid, 'USAGE')
),
object AS MATERIALIZED (
    SELECT s.oid AS space, classid, objid FROM space s JOIN pg_depend
    ON refclassid = 'pg_namespace'::regclass AND refobjid = s.oid AND deptype = 'n'
    WHERE classid IN ('pg_class'::regclass, 'pg_type'::regclass, 'pg_proc'::regclass)
),
type AS MATERIALIZED (
    SELECT space, t.oid, typrelid FROM object JOIN pg_type t ON t.oid = objid
    WHERE classid = 'pg_type'::regclass AND typcategory <> 'A'
),
relations AS (
    SELECT space, array_agg(c.oid) AS oids, bool_or(relhasrules) AS has_rules,
        count(*) FILTER (WHERE relkind IN ('r', 'p', 'v', 'm', 'f')) AS locked
    FROM (
        SELECT space, objid AS relation FROM object WHERE classid = 'pg_class'::regclass
        UNION ALL SELECT space, typrelid FROM type WHERE typrelid <> 0
    ) r JOIN pg_class c ON c.oid = relation WHERE relkind NOT IN ('i', 'I', 't') GROUP BY 1
),
types AS (SELECT space, array_agg(oid) AS oids FROM type WHERE typrelid = 0 GROUP BY 1),
functions AS (
    SELECT space, array_agg(f.oid) AS oids, bool_or(prolang = 14) AS has_sql
    FROM object JOIN pg_proc f ON f.oid = objid WHERE classid = 'pg_proc'::regclass GROUP BY 1
)
SELECT s.nspname::text, coalesce(r.oids, '{}'), coalesce(t.oids, '{}'), coalesce(f.oids, '{}'),
    CASE WHEN r.has_rules OR f.has_sql THEN coalesce(r.locked, 0) ELSE 0 END
FROM space s LEFT JOIN relations r ON r.space = s.oid LEFT JOIN types t ON t.space = s.oid
LEFT JOIN functions f ON f.space = s.oid
"""

#: For every schema of ``$1``, in turn: its path is set, then all its lines are read. ``s.ident`` is its name in SQL.
#: The lines refer to ``s``, which ends with the path: they cannot be read before it is set.
_SHAPES = """
WITH relation AS (
    SELECT relnamespace AS space, array_agg(c.oid) AS oids FROM pg_class c WHERE c.oid = ANY($2::oid[])
    AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
    GROUP BY 1
),
type AS (
    SELECT typnamespace AS space, array_agg(t.oid) AS oids FROM pg_type t WHERE t.oid = ANY($3::oid[])
    AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_type'::regclass AND objid = t.oid AND deptype = 'e')
    GROUP BY 1
),
function AS (
    SELECT pronamespace AS space, array_agg(f.oid) AS oids FROM pg_proc f WHERE f.oid = ANY($4::oid[])
    AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = f.oid AND deptype = 'e')
    GROUP BY 1
),
space AS MATERIALIZED (
    SELECT n.oid, n.nspname, r.oids AS relations, t.oids AS types, f.oids AS functions
    FROM pg_namespace n LEFT JOIN relation r ON r.space = n.oid LEFT JOIN type t ON t.space = n.oid
    LEFT JOIN function f ON f.space = n.oid
    WHERE n.nspname = ANY($1::text[])
)
SELECT s.nspname::text, shape.found, shape.in_its_scope
FROM (
    SELECT *, quote_ident(nspname) AS ident,
        set_config('search_path', quote_ident(nspname) || ', pg_temp', true) AS path
    FROM space OFFSET 0
) s
CROSS JOIN LATERAL (
    SELECT {found} AS found,
        coalesce(bool_and(line IS NOT NULL AND current_setting('search_path') = s.path), true) AS in_its_scope
    FROM ({lines}) lines
) shape
"""

_DIGEST = """left(encode(sha256(convert_to(
            coalesce(string_agg(line, E'\\n' ORDER BY line COLLATE "C"), ''), 'UTF8')), 'hex'), 32)"""
_LINES = """coalesce(array_agg(line ORDER BY line COLLATE "C"), '{}')"""


def shapes_sql(version: int) -> str:
    """The statement that digests schemas.

    Args:
        version: the server's major version.

    Returns:
        SQL for ``$1`` names of schemas, ``$2``, ``$3`` and ``$4`` the OIDs of their relations, types and functions, and
        ``$5`` whether extensions count. A row has the schema, its digest, and whether it was read under its own path.
    """
    return _SHAPES.replace("{found}", _DIGEST).replace("{lines}", lines(version, digested=True))


def lines_sql(version: int) -> str:
    """The same with lines that can be taken apart (``definitions_postgresql``) in place of their digest.

    Args:
        version: the server's major version.
    """
    return _SHAPES.replace("{found}", _LINES).replace("{lines}", lines(version, digested=False))
