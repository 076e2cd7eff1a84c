"""What a tenant's schema uses that is not in it: other schemas, extensions, and what must not be copied at all."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeAlias

import asyncpg

from orchestrator.databases.dependents import IN_A_SCHEMA, WITH_ANOTHER, home_of
from orchestrator.databases.own_names import OURS
from orchestrator.errors import DatabaseError
from orchestrator.fleet.tenant import Tenant

_RawConnection: TypeAlias = asyncpg.Connection

#: So many are named.
_NAMED = 3


def _members() -> str:
    """Objects of some schemas, as (class, object)."""
    direct = (
        f"SELECT '{catalog}'::regclass, o.oid FROM {catalog} o WHERE o.{column} = ANY ($1::oid[])"
        for catalog, column in IN_A_SCHEMA.items()
    )
    indirect = (
        f"SELECT '{catalog}'::regclass, o.oid FROM {catalog} o {joined} WHERE c.{column} = ANY ($1::oid[])"
        for catalog, (joined, column) in WITH_ANOTHER.items()
    )
    return " UNION ALL ".join([*direct, *indirect])


#: What objects of some schemas depend on: other schemas, and what is an extension's. Not what they are a part of
#: (deptype i): a foreign key's triggers on the table that it refers to would lead from a shared table to all tenants.
_USED = f"""
    WITH member (classid, objid) AS ({_members()}),
    used AS (
        SELECT DISTINCT d.refclassid AS classid, d.refobjid AS objid
        FROM member m JOIN pg_depend d ON d.classid = m.classid AND d.objid = m.objid AND d.deptype <> 'i'
    ),
    placed AS (
        SELECT {home_of("used")} AS home, (
            SELECT e.refobjid FROM pg_depend e
            WHERE e.classid = used.classid AND e.objid = used.objid AND e.deptype = 'e' LIMIT 1
        ) AS extension FROM used
    )
    SELECT DISTINCT n.oid AS schema, n.nspname AS name, x.extname AS extension
    FROM placed JOIN pg_namespace n ON n.oid = home LEFT JOIN pg_extension x ON x.oid = placed.extension
    WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
"""
#: Tables of other schemas that the rows of these refer to: without theirs, a foreign key does not hold.
_REFERRED_TO = """
    SELECT DISTINCT c.oid::bigint, n.nspname, c.relname FROM pg_constraint k
    JOIN pg_class c ON c.oid = k.confrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE k.contype = 'f' AND k.conrelid = ANY (
        SELECT oid FROM pg_class WHERE relnamespace = $1 UNION SELECT unnest($2::oid[])
    )
"""
_TABLES = """
    SELECT c.oid::bigint, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = ANY ($1) AND c.relkind IN ('r', 'p', 'm')
"""
_EXTENSIONS = """
    SELECT e.extname AS name, n.nspname AS schema, e.extversion AS version FROM pg_extension e
    JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname <> 'plpgsql' ORDER BY e.oid
"""
#: What leads out of the database: a migration of the copy would write where the tenant's does.
_FOREIGN = """
    SELECT format('the foreign table %s', c.oid::regclass) FROM pg_class c
    WHERE c.relkind = 'f' AND ($1::oid IS NULL OR c.relnamespace = $1)
"""
#: Tables that the migrating role does not own: what is run on the copy, which it owns, would not run on the tenant.
_OTHERS = """
    SELECT format('%s (owner: %s)', c.oid::regclass, pg_get_userbyid(c.relowner)) FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'm', 'v', 'S') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND ($1::oid IS NULL OR n.oid = $1) AND NOT pg_has_role(c.relowner, 'USAGE')
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e') ORDER BY c.oid
"""


@dataclass(frozen=True, slots=True)
class Extension:
    """One extension of the tenant's database."""

    name: str
    schema: str
    version: str
    #: Something of the tenant's depends on it, or pending revisions name it.
    needed: bool


@dataclass(frozen=True, slots=True)
class Needs:
    """What a copy has to have beside the tenant's own schema."""

    #: Other schemas.
    schemas: tuple[str, ...] = ()
    #: Tables of theirs that come without rows, as (schema, table).
    without_rows: tuple[tuple[str, str], ...] = ()
    extensions: tuple[Extension, ...] = ()
    #: For people.
    notes: tuple[str, ...] = ()


async def needs_of(raw: _RawConnection, tenant: Tenant, words: Collection[str], extensions_schema: str | None) -> Needs:
    """What a copy of ``tenant`` needs.

    Args:
        raw: a connection to its database.
        tenant: whom.
        words: what pending revisions name: schemas of these names come along.
        extensions_schema: where all tenants find extensions.

    Raises:
        DatabaseError: it must not be copied.
    """
    own = None
    if tenant.schema is not None:
        own = await raw.fetchval("SELECT oid::bigint FROM pg_namespace WHERE nspname = $1", tenant.schema)
    if foreign := [row[0] for row in await raw.fetch(_FOREIGN, own)]:
        raise DatabaseError(
            f"tenant {tenant.id} cannot be rehearsed: a migration of its copy would write where {_some(foreign)} leads",
            hint="rehearse another tenant: orchestrator rehearse -t TENANT",
        )
    notes = []
    if others := [row[0] for row in await raw.fetch(_OTHERS, own)]:
        notes.append(
            f"the migrating role may not alter what is another role's, and owns all of the copy: {_some(others)};"
            " what went well here may be refused there"
        )
    if own is None:
        return Needs(notes=tuple(notes))
    seen, used = {own: str(tenant.schema)}, set()
    todo = [own]
    for oid, name in await raw.fetch(
        "SELECT oid::bigint, nspname FROM pg_namespace WHERE nspname = ANY ($1) AND NOT nspname ^@ ANY ($2)"
        " AND nspname !~ '^pg_' AND nspname <> 'information_schema'",
        [word for word in words if word != extensions_schema],
        list(OURS),
    ):
        if oid not in seen:
            seen[oid] = name
            todo.append(oid)
    while todo:
        found = await raw.fetch(_USED, todo)
        todo = []
        for oid, name, extension in found:
            if extension is not None:
                used.add(extension)
            elif oid not in seen:
                seen[oid] = name
                todo.append(oid)
    kept: set[int] = set()
    while True:
        more = {row[0] for row in await raw.fetch(_REFERRED_TO, own, list(kept))} | kept
        if more == kept:
            break
        kept = more
    others_names = [name for oid, name in seen.items() if oid != own]
    tables = await raw.fetch(_TABLES, others_names)
    extensions = tuple(
        Extension(row["name"], row["schema"], row["version"], row["name"] in used or row["name"] in words)
        for row in await raw.fetch(_EXTENSIONS)
    )
    if others_names:
        notes.append(f"of the schemas that it shares ({_some(others_names)}), only tables that it refers to have rows")
    without = tuple((schema, table) for oid, schema, table in tables if oid not in kept)
    return Needs(tuple(others_names), without, extensions, tuple(notes))


def _some(names: Collection[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more
