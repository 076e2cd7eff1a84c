"""The statements behind :mod:`orchestrator.databases.fingerprint`.

A line per object, as the text of a ``ROW``: that quotes what needs quoting and keeps NULL apart from nothing, so that
different objects never print alike.
"""

from __future__ import annotations

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

_RELATIONS = """
SELECT ROW('relation', c.relname, relkind, relpersistence, relreplident, relrowsecurity, relforcerowsecurity,
    (SELECT array_agg(o ORDER BY o COLLATE "C") FROM unnest(reloptions) o),
    (SELECT amname FROM pg_am WHERE oid = relam),
    pg_get_expr(relpartbound, c.oid), CASE relkind WHEN 'p' THEN pg_get_partkeydef(c.oid) END,
    nullif(reloftype, 0)::regtype,
    (SELECT array_agg(inhparent::regclass::text ORDER BY inhseqno) FROM pg_inherits WHERE inhrelid = c.oid),
    (SELECT ROW(srvname, ftoptions)::text FROM pg_foreign_table JOIN pg_foreign_server v ON v.oid = ftserver
        WHERE ftrelid = c.oid))::text AS line
FROM unnest(s.relations) o JOIN pg_class c ON c.oid = o
"""

_COLUMNS = """
SELECT ROW('column', c.relname, attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid),
    attidentity, attgenerated, nullif(attcollation, 0)::regcollation, attstorage, {compression}, attislocal,
    CASE relkind WHEN 'c' THEN row_number() OVER (PARTITION BY attrelid ORDER BY attnum) END)::text
FROM unnest(s.relations) o JOIN pg_class c ON c.oid = o JOIN pg_attribute ON attrelid = c.oid
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attnum > 0 AND NOT attisdropped AND relkind <> 'S'
"""

_CONSTRAINTS = """
SELECT ROW('constraint', o::regclass, conname, contype, convalidated, condeferrable, condeferred, conislocal,
    connoinherit, pg_get_constraintdef(c.oid))::text
FROM unnest(s.relations) o JOIN pg_constraint c ON conrelid = o
"""

#: The plain form of ``pg_get_indexdef`` always names the table's schema; the pretty one asks the search path.
_INDEXES = """
SELECT ROW('index', o::regclass, c.relname, indisvalid, indisready, indisprimary, indisreplident, relispartition,
    pg_get_indexdef(indexrelid, 0, true))::text
FROM unnest(s.relations) o JOIN pg_index ON indrelid = o JOIN pg_class c ON c.oid = indexrelid
"""

#: Not where it stands: that is data.
_SEQUENCES = """
SELECT ROW('sequence', o::regclass, format_type(seqtypid, NULL), seqstart, seqincrement, seqmin, seqmax, seqcache,
    seqcycle, (SELECT ROW(deptype, refobjid::regclass, attname)::text
        FROM pg_depend JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
        WHERE classid = 'pg_class'::regclass AND objid = o AND objsubid = 0 AND refclassid = 'pg_class'::regclass
        AND deptype IN ('a', 'i')))::text
FROM unnest(s.relations) o JOIN pg_sequence ON seqrelid = o
"""

_RULES = """
SELECT ROW('rule', o::regclass, rulename, ev_enabled,
    CASE rulename WHEN '_RETURN' THEN pg_get_viewdef(o) ELSE pg_get_ruledef(r.oid, true) END)::text
FROM unnest(s.relations) o JOIN pg_rewrite r ON ev_class = o
"""

_TRIGGERS = """
SELECT ROW('trigger', o::regclass, tgname, tgenabled, pg_get_triggerdef(t.oid, true))::text
FROM unnest(s.relations) o JOIN pg_trigger t ON tgrelid = o WHERE NOT tgisinternal
"""

_POLICIES = """
SELECT ROW('policy', o::regclass, polname, polcmd, polpermissive, pg_get_expr(polqual, polrelid),
    pg_get_expr(polwithcheck, polrelid),
    (SELECT array_agg(coalesce(rolname, 'public') ORDER BY rolname COLLATE "C")
        FROM unnest(polroles) p LEFT JOIN pg_roles a ON a.oid = p))::text
FROM unnest(s.relations) o JOIN pg_policy ON polrelid = o
"""

#: A domain's constraints have lines of their own. Multiranges come with their ranges, and have nothing but a name.
_TYPES = """
SELECT ROW('type', typname, typtype, typcategory, typdelim, typlen, typnotnull,
    CASE typtype WHEN 'd' THEN format_type(typbasetype, typtypmod) END, pg_get_expr(typdefaultbin, 0),
    nullif(typcollation, 0)::regcollation,
    (SELECT array_agg(enumlabel ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = o),
    (SELECT ROW(format_type(rngsubtype, NULL), nullif(rngcollation, 0)::regcollation, opcname,
        nullif(rngcanonical, 0), nullif(rngsubdiff, 0){multirange})::text
        FROM pg_range JOIN pg_opclass c ON c.oid = rngsubopc WHERE rngtypid = o),
    CASE typtype WHEN 'b' THEN ROW(typinput, typoutput, typreceive, typsend)::text END)::text
FROM unnest(s.types) o JOIN pg_type t ON t.oid = o
"""

_DOMAIN_CONSTRAINTS = """
SELECT ROW('domain constraint', format_type(o, NULL), conname, convalidated, pg_get_constraintdef(c.oid))::text
FROM unnest(s.types) o JOIN pg_constraint c ON contypid = o
"""

#: ``SET search_path`` keeps the path as text: its elements that are the schema itself are said as such. FROM CURRENT
#: keeps the quotes that the session had set.
_FUNCTIONS = """
SELECT ROW('function', proname, pg_get_function_arguments(f.oid), pg_get_function_result(f.oid), prokind, lanname,
    provolatile, proparallel, proisstrict, prosecdef, proleakproof, procost, prorows,
    (SELECT array_agg(CASE WHEN c LIKE 'search_path=%' THEN
        (SELECT array_agg(CASE WHEN name[1] IN (s.ident, '"' || replace(s.nspname, '"', '""') || '"') THEN '()'
            ELSE name[1] END) FROM regexp_matches(substr(c, 13), '"(?:[^"]|"")*"|[^", ]+', 'g') name)::text
        ELSE c END ORDER BY n) FROM unnest(proconfig) WITH ORDINALITY AS settings (c, n)),
    prosrc, probin, {sqlbody},
    (SELECT ROW(aggkind, aggnumdirectargs, aggtransfn, aggfinalfn, aggcombinefn, aggserialfn, aggdeserialfn,
        aggmtransfn, aggminvtransfn, aggmfinalfn, aggfinalextra, aggmfinalextra, aggfinalmodify, aggmfinalmodify,
        aggsortop::regoperator, format_type(aggtranstype, NULL), aggtransspace,
        format_type(nullif(aggmtranstype, 0), NULL), aggmtransspace, agginitval, aggminitval)::text
        FROM pg_aggregate WHERE aggfnoid = o))::text
FROM unnest(s.functions) o JOIN pg_proc f ON f.oid = o JOIN pg_language l ON l.oid = prolang
"""

_EXTENSIONS = """
SELECT ROW('extension', extname, extversion, CASE extnamespace WHEN s.oid THEN NULL ELSE extnamespace::regnamespace END
    )::text
FROM pg_extension WHERE $5::bool
"""


def shapes_sql(version: int) -> str:
    """The statement that digests schemas.

    Args:
        version: the server's major version; columns, functions and multiranges came with 14 that older ones do not have.

    Returns:
        SQL for ``$1`` names of schemas, ``$2``, ``$3`` and ``$4`` the OIDs of their relations, types and functions, and
        ``$5`` whether extensions count. A row has the schema, its digest, and whether it was read under its own path.
    """
    return _shapes(_DIGEST, version)


def lines_sql(version: int) -> str:
    """The same with the lines themselves in place of their digest.

    Args:
        version: the server's major version.
    """
    return _shapes(_LINES, version)


def _shapes(found: str, version: int) -> str:
    newer = version >= 14
    lines = " UNION ALL ".join(
        [
            _RELATIONS,
            _COLUMNS.format(compression="attcompression" if newer else "NULL"),
            _CONSTRAINTS,
            _INDEXES,
            _SEQUENCES,
            _RULES,
            _TRIGGERS,
            _POLICIES,
            _TYPES.replace("{multirange}", ", format_type(nullif(rngmultitypid, 0), NULL)" if newer else ""),
            _DOMAIN_CONSTRAINTS,
            # Not format(): an array's braces are not its.
            _FUNCTIONS.replace("{sqlbody}", "pg_get_function_sqlbody(f.oid)" if newer else "NULL"),
            _EXTENSIONS,
        ]
    )
    return _SHAPES.replace("{found}", found).replace("{lines}", lines)
