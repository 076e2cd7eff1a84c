"""What each object of a schema says of itself, as ``statements`` puts it together.

A line per object, as the text of a ``ROW``: that quotes what needs quoting and keeps NULL apart from nothing, so that
different objects never print alike.

``OFFSET 0`` keeps the planner from joining the other way round: it would read the whole of a catalog for every schema,
where that was small when it was analyzed, or where most rows of it are of nobody (most constraints are no domain's).
"""

from __future__ import annotations

from collections.abc import Collection

from orchestrator.databases.definitions import COMMENTS, OWNERS

#: What few relations have is looked up for those alone.
_RELATIONS = """
SELECT ROW('relation', c.relname, relkind, relpersistence, relreplident, relrowsecurity, relforcerowsecurity,
    {options}, {method}, pg_get_expr(relpartbound, c.oid), CASE relkind WHEN 'p' THEN pg_get_partkeydef(c.oid) END,
    nullif(reloftype, 0)::regtype, {parents}, {foreign})::text AS line
FROM unnest(s.relations || s.sequences) o JOIN pg_class c ON c.oid = o
"""
_OPTIONS = """CASE WHEN reloptions IS NOT NULL THEN
        (SELECT array_agg(o ORDER BY o COLLATE "C") FROM unnest(reloptions) o) END"""
_METHOD = "CASE WHEN relam <> 0 THEN (SELECT amname FROM pg_am WHERE oid = relam) END"
#: Those below 12000 are the same on every server of a major version.
_METHOD_DIGESTED = "CASE WHEN relam < 12000 THEN relam::text ELSE (SELECT amname FROM pg_am WHERE oid = relam) END"
_PARENTS = """CASE WHEN relkind IN ('r', 'p', 'f') THEN
        (SELECT array_agg(inhparent::regclass::text ORDER BY inhseqno) FROM pg_inherits WHERE inhrelid = c.oid) END"""
_FOREIGN = """CASE relkind WHEN 'f' THEN (SELECT ROW(srvname, ftoptions)::text
        FROM pg_foreign_table JOIN pg_foreign_server v ON v.oid = ftserver WHERE ftrelid = c.oid) END"""

#: A default says nothing of other columns, and prints quicker where it is not told whose it is.
_COLUMNS = """
SELECT ROW('column', c.relname, attname, format_type(atttypid, atttypmod), attnotnull,
    pg_get_expr(adbin, CASE attgenerated WHEN '' THEN 0 ELSE adrelid END),
    attidentity, attgenerated, nullif(attcollation, 0)::regcollation, attstorage, {compression}, attislocal,
    {place})::text
FROM unnest(s.relations) o JOIN pg_class c ON c.oid = o JOIN pg_attribute a ON attrelid = c.oid
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attnum > 0 AND NOT attisdropped
"""
_PLACE = """CASE relkind WHEN 'c' THEN (SELECT count(*) FROM pg_attribute
        WHERE attrelid = o AND attnum BETWEEN 1 AND a.attnum AND NOT attisdropped) END"""

_CONSTRAINTS = """
SELECT line FROM unnest(s.relations) o {columns} CROSS JOIN LATERAL (
    SELECT ROW('constraint', o::regclass, conname, contype, convalidated, condeferrable, condeferred, conislocal,
        connoinherit, {definition})::text AS line
    FROM pg_constraint c WHERE conrelid = o OFFSET 0) line
"""
_CONSTRAINT = "pg_get_constraintdef(c.oid)"
#: All that the definition of a NOT NULL says besides is its column; of a key, nothing that its index does not say; of a
#: foreign key over one column, which one and what it leads to.
_CONSTRAINT_DIGESTED = """CASE
    WHEN contype = 'n' THEN names[conkey[1]]
    WHEN contype = 'f' AND cardinality(conkey) = 1 THEN ROW(names[conkey[1]], confrelid::regclass,
        (SELECT attname FROM pg_attribute WHERE attrelid = confrelid AND attnum = confkey[1]),
        confmatchtype, confupdtype, confdeltype{set}{enforced})::text
    WHEN contype NOT IN ('p', 'u') {temporal} THEN pg_get_constraintdef(c.oid) END"""

#: The plain form of ``pg_get_indexdef`` always names the table's schema; the pretty one asks the search path.
_INDEXES = """
SELECT line FROM unnest(s.relations) o {columns} CROSS JOIN LATERAL (
    SELECT ROW('index', o::regclass, c.relname, indisvalid, indisready, indisprimary, indisreplident, relispartition,
        {definition})::text AS line
    FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE indrelid = o OFFSET 0) line
"""
_INDEX = "pg_get_indexdef(indexrelid, 0, true)"
#: Of a B-tree or hash index over few columns, with what every server of this major version has by the same OIDs: those
#: below 12000 are given by the version's own files, collations from 10000 on by the system's. ``indkey`` counts from 0.
_INDEX_DIGESTED = """CASE WHEN relam IN (403, 405) AND indnatts <= 4 AND indexprs IS NULL AND indpred IS NULL
        AND 12000 > ALL (indclass::oid[]) AND 10000 > ALL (indcollation::oid[])
    THEN ROW(relam, indisunique, indisexclusion, {nulls}, indnkeyatts, indclass, indcollation, indoption, reloptions,
        names[indkey[0]], names[indkey[1]], names[indkey[2]], names[indkey[3]])::text
    ELSE pg_get_indexdef(indexrelid, 0, true) END"""
#: The table's columns by their numbers; dropped ones have kept theirs.
_NAMES = """CROSS JOIN LATERAL (SELECT array_agg(attname ORDER BY attnum) AS names
    FROM pg_attribute WHERE attrelid = o AND attnum > 0) columns"""

#: Not where it stands: that is data.
_SEQUENCES = """
SELECT ROW('sequence', o::regclass, format_type(seqtypid, NULL), seqstart, seqincrement, seqmin, seqmax, seqcache,
    seqcycle, (SELECT ROW(deptype, refobjid::regclass, attname)::text
        FROM pg_depend JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
        WHERE classid = 'pg_class'::regclass AND objid = o AND objsubid = 0 AND refclassid = 'pg_class'::regclass
        AND deptype IN ('a', 'i')))::text
FROM unnest(s.sequences) o JOIN pg_sequence ON seqrelid = o
"""

_RULES = """
SELECT line FROM unnest(s.relations) o CROSS JOIN LATERAL (
    SELECT ROW('rule', o::regclass, rulename, ev_enabled,
        CASE rulename WHEN '_RETURN' THEN pg_get_viewdef(o) ELSE pg_get_ruledef(r.oid, true) END)::text AS line
    FROM pg_rewrite r WHERE ev_class = o OFFSET 0) line
"""

#: Those that are PostgreSQL's own carry out a constraint, and say something only where somebody has switched them off,
#: which no constraint's definition tells. Their names are OIDs.
_TRIGGERS = """
SELECT line FROM unnest(s.relations) o CROSS JOIN LATERAL (
    SELECT coalesce(CASE WHEN tgisinternal THEN
        (SELECT ROW('constraint trigger', conrelid::regclass, conname, conrelid = o, tgenabled)::text
            FROM pg_constraint WHERE pg_constraint.oid = tgconstraint) END,
        ROW('trigger', o::regclass, tgname, tgenabled, pg_get_triggerdef(t.oid, true))::text) AS line
    FROM pg_trigger t WHERE tgrelid = o AND (NOT tgisinternal OR tgenabled <> 'O') OFFSET 0) line
"""

_POLICIES = """
SELECT ROW('policy', o::regclass, polname, polcmd, polpermissive, pg_get_expr(polqual, polrelid),
    pg_get_expr(polwithcheck, polrelid),
    (SELECT array_agg(coalesce(rolname, 'public') ORDER BY rolname COLLATE "C")
        FROM unnest(polroles) role LEFT JOIN pg_roles a ON a.oid = role))::text
FROM unnest(s.relations) o CROSS JOIN LATERAL (SELECT * FROM pg_policy WHERE polrelid = o OFFSET 0) p
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
FROM unnest(s.types) o CROSS JOIN LATERAL (SELECT * FROM pg_constraint WHERE contypid = o OFFSET 0) c
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
FROM pg_extension
"""


#: What is said of an object: what it is, its name as its own line has it, of a column or constraint its table's first.
_COMMENTS = """
SELECT ROW('comment', CASE WHEN attname IS NULL THEN 'relation' ELSE 'column' END, o::regclass, attname,
    description)::text
FROM unnest(s.relations || s.sequences) o JOIN pg_description d ON classoid = 'pg_class'::regclass AND objoid = o
LEFT JOIN pg_attribute ON attrelid = o AND attnum = objsubid AND objsubid > 0
UNION ALL SELECT ROW('comment', 'index', indexrelid::regclass, NULL, description)::text
FROM unnest(s.relations) o JOIN pg_index ON indrelid = o
JOIN pg_description d ON classoid = 'pg_class'::regclass AND objoid = indexrelid
UNION ALL SELECT ROW('comment', 'constraint', o::regclass, conname, description)::text
FROM unnest(s.relations) o JOIN pg_constraint c ON conrelid = o
JOIN pg_description d ON classoid = 'pg_constraint'::regclass AND objoid = c.oid
"""
_COMMENTS_ON_TYPES = """
SELECT ROW('comment', 'type', typname, NULL, description)::text FROM unnest(s.types) o JOIN pg_type t ON t.oid = o
JOIN pg_description d ON classoid = 'pg_type'::regclass AND objoid = o
"""
_COMMENTS_ON_FUNCTIONS = """
SELECT ROW('comment', 'function', proname || '(' || pg_get_function_arguments(o) || ')', NULL, description)::text
FROM unnest(s.functions) o JOIN pg_proc f ON f.oid = o
JOIN pg_description d ON classoid = 'pg_proc'::regclass AND objoid = o
"""
_OWNERS = """
SELECT ROW('owner', 'relation', o::regclass, NULL, pg_get_userbyid(relowner))::text
FROM unnest(s.relations || s.sequences) o JOIN pg_class c ON c.oid = o
"""
_OWNERS_OF_TYPES = """
SELECT ROW('owner', 'type', typname, NULL, pg_get_userbyid(typowner))::text
FROM unnest(s.types) o JOIN pg_type t ON t.oid = o
"""
_OWNERS_OF_FUNCTIONS = """
SELECT ROW('owner', 'function', proname || '(' || pg_get_function_arguments(o) || ')', NULL,
    pg_get_userbyid(proowner))::text
FROM unnest(s.functions) o JOIN pg_proc f ON f.oid = o
"""


#: Only who has objects of these kinds is asked for them: for a tenant with its own database, planning a query takes
#: longer than running it.
RULES, TRIGGERS, POLICIES, TYPES, FUNCTIONS = "rules", "triggers", "policies", "types", "functions"
EXTENSIONS = "extensions"
#: Relations that are of a kind, or have options, or another access method than the server's own.
SEQUENCES, COMPOSITES, FOREIGN, OPTIONS, METHODS = "sequences", "composites", "foreign", "options", "methods"
#: Relations that have a parent, or belong to an extension: anywhere in the database.
PARENTS, OWNED = "parents", "owned"


def lines(version: int, kinds: Collection[str], *, digested: bool) -> str:
    """A query for the lines of the schema ``s``, of its own search path.

    Args:
        version: the server's major version; columns, functions and multiranges came with 14 that older ones do not
            have.
        kinds: of which kinds there may be any; and :data:`~orchestrator.databases.definitions.COMMENTS` and ``OWNERS``
            where they count.
        digested: nobody is to read the lines. Then most constraints and indexes are told by what the catalogs say, as
            far as that is the same for equal ones: to have the server write a definition costs several times as much,
            and that was half of all.
    """
    newer = version >= 14
    constraint, index, columns, method = _CONSTRAINT, _INDEX, "", _METHOD
    if digested:
        constraint = (
            _CONSTRAINT_DIGESTED.replace("{temporal}", "OR conperiod" if version >= 18 else "")
            .replace("{set}", ", confdelsetcols IS NULL" if version >= 15 else "")
            .replace("{enforced}", ", conenforced" if version >= 18 else "")
        )
        index = _INDEX_DIGESTED.replace("{nulls}", "indnullsnotdistinct" if version >= 15 else "NULL")
        columns, method = _NAMES, _METHOD_DIGESTED if METHODS in kinds else "relam::text"
    relations = _RELATIONS
    for place, text, kind in (
        ("{options}", _OPTIONS, OPTIONS),
        ("{parents}", _PARENTS, PARENTS),
        ("{foreign}", _FOREIGN, FOREIGN),
    ):
        relations = relations.replace(place, text if kind in kinds else "NULL")
    relations = relations.replace("{method}", method)
    place = _PLACE if COMPOSITES in kinds else "NULL"
    found = [
        relations,
        _COLUMNS.format(compression="attcompression" if newer else "NULL", place=place),
        _CONSTRAINTS.replace("{definition}", constraint).replace("{columns}", columns),
        _INDEXES.replace("{definition}", index).replace("{columns}", columns),
    ]
    multirange = ", format_type(nullif(rngmultitypid, 0), NULL)" if newer else ""
    # Not format(): an array's braces are not its.
    functions = _FUNCTIONS.replace("{sqlbody}", "pg_get_function_sqlbody(f.oid)" if newer else "NULL")
    of_kind = {
        SEQUENCES: [_SEQUENCES],
        RULES: [_RULES],
        TRIGGERS: [_TRIGGERS],
        POLICIES: [_POLICIES],
        TYPES: [_TYPES.replace("{multirange}", multirange), _DOMAIN_CONSTRAINTS],
        FUNCTIONS: [functions],
        EXTENSIONS: [_EXTENSIONS],
    }
    # By what is asked for, and what there has to be for it.
    asked = {
        (COMMENTS, None): _COMMENTS,
        (COMMENTS, TYPES): _COMMENTS_ON_TYPES,
        (COMMENTS, FUNCTIONS): _COMMENTS_ON_FUNCTIONS,
        (OWNERS, None): _OWNERS,
        (OWNERS, TYPES): _OWNERS_OF_TYPES,
        (OWNERS, FUNCTIONS): _OWNERS_OF_FUNCTIONS,
    }
    found += [part for (what, of), part in asked.items() if what in kinds and (of is None or of in kinds)]
    return " UNION ALL ".join([*found, *(part for kind, parts in of_kind.items() if kind in kinds for part in parts)])
