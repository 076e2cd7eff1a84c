"""What belongs to a PostgreSQL database beside what is in it: a database that is to take its place needs the same.

Read of the live one when it is restored, and kept with every backup for when there is no live one any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import asyncpg

from orchestrator.databases.claims import settled
from orchestrator.databases.postgresql.script import identifier, literal

_RawConnection: TypeAlias = asyncpg.Connection

#: What CREATE DATABASE is told, by column; older servers lack some.
_MADE_WITH = """
    SELECT pg_get_userbyid(datdba) AS owner, pg_encoding_to_char(encoding) AS encoding, datcollate, datctype,
        to_jsonb(d)->>'datlocprovider' AS provider,
        coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale') AS locale,
        to_jsonb(d)->>'daticurules' AS rules, datconnlimit AS connection_limit,
        shobj_description(d.oid, 'pg_database') AS comment, datacl IS NOT NULL AS has_rights
    FROM pg_database d WHERE datname = $1
"""
_SETTINGS = """
    SELECT CASE WHEN setrole <> 0 THEN pg_get_userbyid(setrole) END AS role, split_part(setting, '=', 1) AS name,
        substr(setting, strpos(setting, '=') + 1) AS value
    FROM pg_database d JOIN pg_db_role_setting ON setdatabase = d.oid,
        unnest(setconfig) WITH ORDINALITY AS s(setting, at)
    WHERE datname = $1 ORDER BY setrole, at
"""
_RIGHTS = """
    SELECT CASE WHEN grantee <> 0 THEN pg_get_userbyid(grantee) END AS role, privilege_type AS privilege,
        is_grantable AND grantee <> datdba AS grantable
    FROM pg_database d, aclexplode(datacl) WHERE datname = $1 ORDER BY grantee <> datdba, 1, 2
"""
#: Providers of a database's locale, and what their locale is called in CREATE DATABASE.
_PROVIDERS = {"i": ("icu", "ICU_LOCALE"), "b": ("builtin", "BUILTIN_LOCALE")}
#: Settings that are lists: kept as they are written, while anything else is one value.
_LISTS = frozenset({"search_path", "temp_tablespaces", "session_preload_libraries", "local_preload_libraries"})


async def database_properties(raw: _RawConnection, database: str) -> dict[str, Any]:
    """What a database like this one has to be made with, and given afterwards; plain JSON.

    Args:
        raw: a connection to any database of the server.
        database: the name of the one that is meant.
    """
    properties = dict(await raw.fetchrow(_MADE_WITH, database))
    has_rights = properties.pop("has_rights")
    # A database is dumped after it was set aside, and made again to be used.
    properties["comment"] = settled(properties["comment"])
    # Nobody has ever said what rights there are: what a new database has by itself.
    rights = [dict(row) for row in await raw.fetch(_RIGHTS, database)] if has_rights else None
    properties["rights"] = rights
    properties["settings"] = [dict(row) for row in await raw.fetch(_SETTINGS, database)]
    return properties


def made_with(properties: Mapping[str, Any]) -> str:
    """The options of CREATE DATABASE."""
    parts = ["TEMPLATE template0"]
    if owner := properties.get("owner"):
        parts.append(f"OWNER {identifier(owner)}")
    for key, option in (("encoding", "ENCODING"), ("datcollate", "LC_COLLATE"), ("datctype", "LC_CTYPE")):
        if value := properties.get(key):
            parts.append(f"{option} {literal(value)}")
    provider, option = _PROVIDERS.get(properties.get("provider") or "", (None, ""))
    if provider is not None and (locale := properties.get("locale")):
        parts.append(f"LOCALE_PROVIDER {provider} {option} {literal(locale)}")
        if rules := properties.get("rules"):
            parts.append(f"ICU_RULES {literal(rules)}")
    return " ".join(parts)


def given_afterwards(properties: Mapping[str, Any], database: str) -> Iterator[str]:
    """Statements that give a new database what else the old one has: settings, rights, a comment, a limit.

    Args:
        properties: of the old one; a backup of an earlier version has none of these.
        database: the new one's name.
    """
    name = identifier(database)
    if (limit := properties.get("connection_limit", -1)) != -1:
        yield f"ALTER DATABASE {name} CONNECTION LIMIT {int(limit)}"
    if (comment := properties.get("comment")) is not None:
        yield f"COMMENT ON DATABASE {name} IS {literal(comment)}"
    for each in properties.get("settings") or ():
        whose = f"DATABASE {name}" if each["role"] is None else f"ROLE {identifier(each['role'])} IN DATABASE {name}"
        value = each["value"] if each["name"] in _LISTS else literal(each["value"])
        yield f"ALTER {whose} SET {_setting(each['name'])} TO {value or literal('')}"
    rights = properties.get("rights")
    if rights is None:
        return
    yield f"REVOKE ALL ON DATABASE {name} FROM PUBLIC"
    if owner := properties.get("owner"):
        yield f"REVOKE ALL ON DATABASE {name} FROM {identifier(owner)}"
    for each in rights:
        to = "PUBLIC" if each["role"] is None else identifier(each["role"])
        grant = f"GRANT {each['privilege']} ON DATABASE {name} TO {to}"
        yield f"{grant} WITH GRANT OPTION" if each["grantable"] else grant


def _setting(name: str) -> str:
    """A setting's name in SQL: an extension's has a dot in it, which parts two names."""
    return ".".join(identifier(part) for part in name.split("."))
