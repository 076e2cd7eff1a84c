"""What outside of a schema hangs on something in it, whatever kind of object it is.

PostgreSQL itself says it: pg_depend is what DROP ... CASCADE goes by
(https://www.postgresql.org/docs/current/catalog-pg-depend.html). A list of kinds to look for would always be one short.
Bodies of functions that are kept as text are not in it; they name what they use, and mean whatever has the name then.
"""

from __future__ import annotations

from typing import TypeAlias

import asyncpg

_RawConnection: TypeAlias = asyncpg.Connection

#: So many are told.
_TOLD = 3
#: Objects that belong to a schema: those with its oid in this column of their catalog.
IN_A_SCHEMA = {
    "pg_class": "relnamespace",
    "pg_type": "typnamespace",
    "pg_proc": "pronamespace",
    "pg_constraint": "connamespace",
    "pg_operator": "oprnamespace",
    "pg_opclass": "opcnamespace",
    "pg_opfamily": "opfnamespace",
    "pg_collation": "collnamespace",
    "pg_conversion": "connamespace",
    "pg_statistic_ext": "stxnamespace",
    "pg_default_acl": "defaclnamespace",
    "pg_ts_config": "cfgnamespace",
    "pg_ts_dict": "dictnamespace",
    "pg_ts_parser": "prsnamespace",
    "pg_ts_template": "tmplnamespace",
}
#: Objects that are where their table, or their family of operators, is: what joins the two, and its schema's column.
WITH_ANOTHER = {
    "pg_attrdef": ("JOIN pg_class c ON c.oid = o.adrelid", "relnamespace"),
    "pg_rewrite": ("JOIN pg_class c ON c.oid = o.ev_class", "relnamespace"),
    "pg_trigger": ("JOIN pg_class c ON c.oid = o.tgrelid", "relnamespace"),
    "pg_policy": ("JOIN pg_class c ON c.oid = o.polrelid", "relnamespace"),
    "pg_amop": ("JOIN pg_opfamily c ON c.oid = o.amopfamily", "opfnamespace"),
    "pg_amproc": ("JOIN pg_opfamily c ON c.oid = o.amprocfamily", "opfnamespace"),
}


def home_of(row: str) -> str:
    """An expression: the schema of the object that ``row`` (``classid``, ``objid``) is about; NULL for one in none."""
    direct = (
        f"WHEN '{catalog}'::regclass THEN (SELECT {column} FROM {catalog} o WHERE o.oid = {row}.objid)"
        for catalog, column in IN_A_SCHEMA.items()
    )
    indirect = (
        f"WHEN '{catalog}'::regclass THEN (SELECT c.{column} FROM {catalog} o {joined} WHERE o.oid = {row}.objid)"
        for catalog, (joined, column) in WITH_ANOTHER.items()
    )
    return f"CASE {row}.classid {' '.join([*direct, *indirect])} END"


#: From the schema to what depends on it, and on to what depends on that, for as long as it is in the schema itself. A
#: part of an object (deptype i), as a foreign key's triggers on the other table are, is where the object is; a large
#: value's table is nobody else's. An extension that objects in the schema belong to would be dropped with them.
_DEPENDENTS = f"""
    WITH RECURSIVE walked(classid, objid, own) AS (
        SELECT 'pg_namespace'::regclass::oid, $1::oid, true
        UNION
        SELECT d.classid, d.objid, d.deptype = 'i' OR coalesce({home_of("d")} IN ($1, 'pg_toast'::regnamespace), false)
        FROM walked w JOIN pg_depend d ON d.refclassid = w.classid AND d.refobjid = w.objid
        WHERE w.own
    ), outside AS (
        SELECT classid, objid FROM walked GROUP BY classid, objid HAVING NOT bool_or(own)
        UNION
        SELECT d.refclassid, d.refobjid FROM walked w JOIN pg_depend d ON d.classid = w.classid AND d.objid = w.objid
        WHERE w.own AND d.deptype = 'e'
    )
    SELECT format('%s %s', o.type, o.identity) FROM outside, pg_identify_object(classid, objid, 0) o ORDER BY 1
"""


async def dependents(raw: _RawConnection, schema: int) -> str | None:
    """Name what is outside of a schema and depends on something in it.

    Args:
        raw: a connection to its database.
        schema: its oid.

    Returns:
        The first few, for people; ``None`` where there is nothing.
    """
    found = [row[0] for row in await raw.fetch(_DEPENDENTS, schema)]
    more = f" and {len(found) - _TOLD} more" if len(found) > _TOLD else ""
    return ", ".join(found[:_TOLD]) + more if found else None
