"""What a tenant's schema uses that is not in it: other schemas, extensions, and what must not be copied at all."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import asyncpg

from orchestrator.databases.own_names import OURS
from orchestrator.databases.postgresql.dependents import IN_A_SCHEMA, WITH_ANOTHER, home_of
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
        WHERE NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = m.classid AND e.objid = m.objid AND e.deptype = 'e')
    ),
    placed AS (
        SELECT {home_of("used")} AS home, (
            SELECT e.refobjid FROM pg_depend e
            WHERE e.classid = used.classid AND e.objid = used.objid AND e.deptype = 'e' LIMIT 1
        ) AS extension FROM used
    )
    SELECT DISTINCT n.oid::bigint AS schema, n.nspname::text AS name, x.extname AS extension
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
    SELECT e.extname AS name, n.nspname AS schema FROM pg_extension e
    JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname <> 'plpgsql' ORDER BY e.oid
"""
#: Schemas that are called as a word is.
_NAMED_SCHEMAS = """
    SELECT oid::bigint AS oid, nspname::text FROM pg_namespace WHERE nspname = ANY ($1) AND NOT nspname ^@ ANY ($2)
    AND nspname !~ '^pg_' AND nspname <> 'information_schema' AND oid <> $3
"""
#: Extensions whose functions reach other servers or processes.
REACHING = frozenset({"dblink", "http", "pg_net", "pg_background", "plsh", "amqp"})
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


async def needs_of(
    raw: _RawConnection, tenant: Tenant, words: Collection[str], *, allow_outside: bool = False
) -> Needs:
    """What a copy of ``tenant`` needs.

    Args:
        raw: a connection to its database.
        tenant: whom.
        words: what pending revisions name: schemas and extensions of these names come along.
        allow_outside: the operator says that functions may reach other servers.

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
    schemas, used = ({}, set(words)) if own is None else await _used(raw, own, words)
    extensions = tuple(
        Extension(row["name"], row["schema"], row["name"] in used or row["name"] in words)
        for row in await raw.fetch(_EXTENSIONS)
    )
    reaching = [each.name for each in extensions if each.name in REACHING and (own is None or each.needed)]
    if reaching and not allow_outside:
        raise DatabaseError(
            f"tenant {tenant.id} cannot be rehearsed: its triggers and functions may reach other servers by"
            f" {_some(reaching)}, also from a copy",
            hint="where a migration does not have them do that: --allow-outside",
        )
    notes = await _notes(raw, own, list(schemas.values()))
    if own is None:
        # Extensions come with the dump of a whole database.
        return Needs(notes=tuple(notes))
    # What nobody is known to need is left out: bodies of functions, which pg_depend does not know, then fail.
    kept = tuple(each for each in extensions if allow_outside or each.name not in REACHING)
    return Needs(tuple(schemas.values()), await _without_rows(raw, own, schemas), kept, tuple(notes))


async def _used(raw: _RawConnection, own: int, words: Collection[str]) -> tuple[dict[int, str], set[str]]:
    """Other schemas that the tenant's objects depend on, or that revisions name, and so on from there; extensions."""
    named = await raw.fetch(_NAMED_SCHEMAS, list(words), list(OURS), own)
    seen = {row["oid"]: row["nspname"] for row in named}
    used: set[str] = set()
    todo = [own, *seen]
    while todo:
        found = await raw.fetch(_USED, todo)
        used.update(row["extension"] for row in found if row["extension"] is not None)
        new = {row["schema"]: row["name"] for row in found if row["extension"] is None}
        todo = [oid for oid in new if oid != own and oid not in seen]
        seen |= {oid: new[oid] for oid in todo}
    return seen, used


async def _without_rows(raw: _RawConnection, own: int, schemas: Mapping[int, str]) -> tuple[tuple[str, str], ...]:
    """Tables of the other schemas but those that the tenant's rows refer to, and that the rows of these do."""
    kept: set[int] = set()
    while more := {row[0] for row in await raw.fetch(_REFERRED_TO, own, list(kept))} - kept:
        kept |= more
    tables = await raw.fetch(_TABLES, list(schemas.values()))
    return tuple((schema, table) for oid, schema, table in tables if oid not in kept)


async def _notes(raw: _RawConnection, own: int | None, schemas: Collection[str]) -> list[str]:
    notes = []
    if others := [row[0] for row in await raw.fetch(_OTHERS, own)]:
        notes.append(
            f"the migrating role may not alter what is another role's, and owns all of the copy: {_some(others)};"
            " what went well here may be refused there"
        )
    if schemas:
        notes.append(f"of the schemas that it shares ({_some(schemas)}), only tables that it refers to have rows")
    return notes


def _some(names: Collection[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more
