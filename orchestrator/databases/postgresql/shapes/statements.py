"""The statements behind ``fingerprint``: what is where, and all that it comes to."""

from __future__ import annotations

from functools import cache

from orchestrator.databases.postgresql.shapes.lines import FUNCTIONS, OWNED, TYPES, lines

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

#: Keeps the schema that a search path finds for ``SURVEY``, before ``SETTINGS`` set another: a question less.
NOTED = "SELECT set_config('orchestrator.schema', current_schema(), true);"
#: Which objects are where. No catalog has an index that begins with the schema, but ``pg_depend`` has one that begins
#: with what is depended on, and every relation, type and function depends on its schema; only a composite type's
#: relation depends on the type instead. So one schema among thousands costs what is in it, not a look at everything.
#: NULL for ``$1`` means the schema that ``NOTED`` has noted.
#: ``prolang`` 14 is SQL: only such a function's body may be parsed, and then locks like a view.
SURVEY = """
SELECT s.nspname::text, coalesce(array_agg(c.oid) FILTER (WHERE relkind IS NOT NULL), '{}'),
    coalesce(array_agg(t.oid) FILTER (WHERE typrelid = 0), '{}'),
    coalesce(array_agg(f.oid) FILTER (WHERE prolang IS NOT NULL), '{}'),
    CASE WHEN bool_or(relhasrules OR prolang = 14) THEN count(*) FILTER (WHERE relkind IN ('r', 'p', 'v', 'm', 'f'))
        ELSE 0 END,
    array_remove(ARRAY[CASE WHEN bool_or(relhasrules) THEN 'rules' END,
        CASE WHEN bool_or(relhastriggers) THEN 'triggers' END, CASE WHEN bool_or(relkind = 'S') THEN 'sequences' END,
        CASE WHEN bool_or(relkind = 'c') THEN 'composites' END, CASE WHEN bool_or(relkind = 'f') THEN 'foreign' END,
        CASE WHEN bool_or(reloptions IS NOT NULL) THEN 'options' END,
        CASE WHEN bool_or(relam >= 12000) THEN 'methods' END, CASE WHEN bool_or(typrelid = 0) THEN 'types' END,
        CASE WHEN bool_or(prolang IS NOT NULL) THEN 'functions' END,
        CASE WHEN EXISTS (SELECT FROM pg_policy) THEN 'policies' END,
        CASE WHEN EXISTS (SELECT FROM pg_inherits) THEN 'parents' END,
        CASE WHEN EXISTS (SELECT FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
            AND classid = 'pg_class'::regclass) THEN 'owned' END], NULL)
FROM pg_namespace s
LEFT JOIN pg_depend d ON refclassid = 'pg_namespace'::regclass AND refobjid = s.oid AND deptype = 'n'
    AND classid IN ('pg_class'::regclass, 'pg_type'::regclass, 'pg_proc'::regclass)
LEFT JOIN pg_type t ON t.oid = CASE classid WHEN 'pg_type'::regclass THEN objid END
    AND (typcategory <> 'A' OR typtype = 'd')
LEFT JOIN pg_class c ON c.oid = CASE classid WHEN 'pg_class'::regclass THEN objid ELSE typrelid END
    AND relkind NOT IN ('i', 'I', 't')
LEFT JOIN pg_proc f ON f.oid = CASE classid WHEN 'pg_proc'::regclass THEN objid END
WHERE s.nspname = ANY(coalesce($1::text[], ARRAY[current_setting('orchestrator.schema', true)]))
    AND has_schema_privilege(s.oid, 'USAGE')
GROUP BY s.oid, s.nspname
"""

#: For every schema of ``$1``, in turn: its path is set, then all its lines are read. ``s.ident`` is its name in SQL.
#: The lines refer to ``s``, which ends with the path: they cannot be read before it is set.
_SHAPES = """
WITH relation AS (
    SELECT relnamespace AS space, array_agg(c.oid) FILTER (WHERE relkind <> 'S') AS oids,
        array_agg(c.oid) FILTER (WHERE relkind = 'S') AS sequences
    FROM pg_class c WHERE c.oid = ANY($2::oid[]) {unowned} GROUP BY 1
),
{grouped}space AS MATERIALIZED (
    SELECT n.oid, n.nspname, r.oids AS relations, r.sequences{columns}
    FROM pg_namespace n LEFT JOIN relation r ON r.space = n.oid{joins}
    WHERE n.nspname = ANY($1::text[]) AND $3::oid[] IS NOT NULL AND $4::oid[] IS NOT NULL
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

#: How else a schema's objects are put together, where there are any.
_GROUPED = {
    TYPES: """type AS (
    SELECT typnamespace AS space, array_agg(t.oid) AS types FROM pg_type t WHERE t.oid = ANY($3::oid[])
    AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_type'::regclass AND objid = t.oid AND deptype = 'e')
    GROUP BY 1
),
""",
    FUNCTIONS: """function AS (
    SELECT pronamespace AS space, array_agg(f.oid) AS functions FROM pg_proc f WHERE f.oid = ANY($4::oid[])
    AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = f.oid AND deptype = 'e')
    GROUP BY 1
),
""",
}
_UNOWNED = """
    AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')"""

_DIGEST = """left(encode(sha256(convert_to(
            coalesce(string_agg(line, E'\\n' ORDER BY line COLLATE "C"), ''), 'UTF8')), 'hex'), 32)"""
_LINES = """coalesce(array_agg(line ORDER BY line COLLATE "C"), '{}')"""


@cache
def shapes_sql(version: int, kinds: frozenset[str]) -> str:
    """The statement that digests schemas.

    Args:
        version: the server's major version.
        kinds: of what there may be any, as the survey says; and ``extensions``, ``comments``, ``owners`` where they
            count.

    Returns:
        SQL for ``$1`` names of schemas, ``$2``, ``$3`` and ``$4`` the OIDs of their relations, types and functions. A
        row has the schema, its digest, and whether it was read under its own path.
    """
    return _shapes(kinds, _DIGEST, lines(version, kinds, digested=True))


@cache
def lines_sql(version: int, kinds: frozenset[str]) -> str:
    """The same with lines that can be taken apart (``definitions``) in place of their digest."""
    return _shapes(kinds, _LINES, lines(version, kinds, digested=False))


def _shapes(kinds: frozenset[str], found: str, their_lines: str) -> str:
    there = [kind for kind in _GROUPED if kind in kinds]
    parts = {
        "{unowned}": _UNOWNED if OWNED in kinds else "",
        "{grouped}": "".join(_GROUPED[kind] for kind in there),
        "{columns}": "".join(f", {kind}" for kind in there),
        "{joins}": "".join(f" LEFT JOIN {kind[:-1]} ON {kind[:-1]}.space = n.oid" for kind in there),
        "{found}": found,
        "{lines}": their_lines,
    }
    sql = _SHAPES
    for place, text in parts.items():
        sql = sql.replace(place, text)
    return sql
