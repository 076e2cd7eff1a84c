"""The schema ``public`` as a tenant: its owner, its rights and its comment, which a dump of it does not tell.

Where they are what a new database has, pg_dump leaves them out: it takes for granted that ``public`` is there. One that
was made by CREATE SCHEMA has neither USAGE for everybody (nor CREATE, before PostgreSQL 15) nor its owner.
"""

from __future__ import annotations

from typing import TypeAlias

import asyncpg

from orchestrator.databases.postgresql.script import identifier, literal
from orchestrator.errors import BackupError

_RawConnection: TypeAlias = asyncpg.Connection

PUBLIC = "public"

#: Takes from everybody what the dump has granted, its owner included. psql runs what this query selects.
_NOTHING_GRANTED = (
    "SELECT DISTINCT format('REVOKE ALL ON SCHEMA public FROM %s CASCADE',"
    " CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END)"
    " FROM pg_namespace, aclexplode(coalesce(nspacl, acldefault('n', nspowner))) WHERE nspname = 'public' \\gexec\n"
)
#: NULL stands for its owner's rights and nobody else's.
_GRANTED = (
    "SELECT format('GRANT %s ON SCHEMA public TO %s%s', privilege_type,"
    " CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,"
    " CASE WHEN is_grantable AND grantee <> nspowner THEN ' WITH GRANT OPTION' ELSE '' END)"
    " FROM pg_namespace, aclexplode(coalesce(nspacl, acldefault('n', nspowner))) WHERE pg_namespace.oid = $1"
    " ORDER BY grantee <> nspowner, 1"
)


async def as_it_is(raw: _RawConnection, schema: int) -> list[str]:
    """Lines for psql that give the schema ``public`` what the live one has.

    Args:
        raw: a connection to its database.
        schema: the live one's oid.
    """
    row = await raw.fetchrow(
        "SELECT pg_get_userbyid(nspowner) AS owner, obj_description(oid, 'pg_namespace') AS comment"
        " FROM pg_namespace WHERE oid = $1",
        schema,
    )
    comment = "NULL" if row["comment"] is None else literal(row["comment"])
    granted = await raw.fetch(_GRANTED, schema)
    return [
        f"ALTER SCHEMA public OWNER TO {identifier(row['owner'])};\n",
        _NOTHING_GRANTED,
        *(f"{statement};\n" for (statement,) in granted),
        f"COMMENT ON SCHEMA public IS {comment};\n",
    ]


def missing(server: int) -> BackupError:
    """What to say where ``public`` is to be restored and is not there.

    Args:
        server: its major version.
    """
    new = (
        "CREATE SCHEMA public AUTHORIZATION pg_database_owner; GRANT USAGE ON SCHEMA public TO PUBLIC"
        if server >= 15
        else "CREATE SCHEMA public; GRANT ALL ON SCHEMA public TO PUBLIC"
    )
    return BackupError(
        "the schema public is not there, and no backup tells its owner and rights",
        hint=f"make it, as a new database has it or as yours had it, and restore then: {new}",
    )
