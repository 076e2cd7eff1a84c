"""The statements behind :mod:`orchestrator.databases.fingerprint`: what is where, and all that it comes to."""

from __future__ import annotations

from functools import cache

from orchestrator.databases.fingerprint_lines import FUNCTIONS, TYPES, lines

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
    WHERE classid = 'pg_type'::regclass AND (typcategory <> 'A' OR typtype = 'd')
),
relations AS (
    SELECT space, array_agg(c.oid) AS oids, bool_or(relhasrules) AS has_rules, bool_or(relhastriggers) AS has_triggers,
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
    CASE WHEN r.has_rules OR f.has_sql THEN coalesce(r.locked, 0) ELSE 0 END,
    array_remove(ARRAY[CASE WHEN r.has_rules THEN 'rules' END, CASE WHEN r.has_triggers THEN 'triggers' END,
        CASE WHEN EXISTS (SELECT FROM pg_policy) THEN 'policies' END, CASE WHEN t.oids IS NOT NULL THEN 'types' END,
        CASE WHEN f.oids IS NOT NULL THEN 'functions' END], NULL)
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
type AS ({types}),
function AS ({functions}),
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

_TYPES = """
    SELECT typnamespace AS space, array_agg(t.oid) AS oids FROM pg_type t WHERE t.oid = ANY($3::oid[])
    AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_type'::regclass AND objid = t.oid AND deptype = 'e')
    GROUP BY 1
"""
_FUNCTIONS = """
    SELECT pronamespace AS space, array_agg(f.oid) AS oids FROM pg_proc f WHERE f.oid = ANY($4::oid[])
    AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = f.oid AND deptype = 'e')
    GROUP BY 1
"""
#: In the place of either, where there are none.
_NONE = "SELECT 0::oid AS space, {given}::oid[] AS oids WHERE false"

_DIGEST = """left(encode(sha256(convert_to(
            coalesce(string_agg(line, E'\\n' ORDER BY line COLLATE "C"), ''), 'UTF8')), 'hex'), 32)"""
_LINES = """coalesce(array_agg(line ORDER BY line COLLATE "C"), '{}')"""


@cache
def shapes_sql(version: int, kinds: frozenset[str]) -> str:
    """The statement that digests schemas.

    Args:
        version: the server's major version.
        kinds: of what there may be any, as the survey says; and ``extensions`` where they count.

    Returns:
        SQL for ``$1`` names of schemas, ``$2``, ``$3`` and ``$4`` the OIDs of their relations, types and functions. A
        row has the schema, its digest, and whether it was read under its own path.
    """
    return _shapes(kinds, _DIGEST, lines(version, kinds, digested=True))


@cache
def lines_sql(version: int, kinds: frozenset[str]) -> str:
    """The same with lines that can be taken apart (``definitions_postgresql``) in place of their digest."""
    return _shapes(kinds, _LINES, lines(version, kinds, digested=False))


def _shapes(kinds: frozenset[str], found: str, their_lines: str) -> str:
    types = _TYPES if TYPES in kinds else _NONE.format(given="$3")
    functions = _FUNCTIONS if FUNCTIONS in kinds else _NONE.format(given="$4")
    parts = {"{types}": types, "{functions}": functions, "{found}": found, "{lines}": their_lines}
    sql = _SHAPES
    for place, text in parts.items():
        sql = sql.replace(place, text)
    return sql
