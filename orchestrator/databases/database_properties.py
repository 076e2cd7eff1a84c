"""What belongs to a PostgreSQL database beside what is in it: a database that is to take its place needs the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import asyncpg

from orchestrator.databases.script import identifier, literal

_RawConnection: TypeAlias = asyncpg.Connection

#: What belongs to a database and is in no dump of it: statements that give a new one what the live one has.
CARRIED_OVER = """
    WITH live AS (SELECT * FROM pg_database WHERE datname = $1)
    SELECT format('ALTER DATABASE %I CONNECTION LIMIT %s', $2::text, datconnlimit) FROM live WHERE datconnlimit <> -1
    UNION ALL
    SELECT format('COMMENT ON DATABASE %I IS %L', $2::text, shobj_description(oid, 'pg_database')) FROM live
    WHERE shobj_description(oid, 'pg_database') IS NOT NULL
    UNION ALL
    SELECT format(
        'ALTER %s SET %I TO %s',
        CASE setrole WHEN 0 THEN format('DATABASE %I', $2::text)
        ELSE format('ROLE %I IN DATABASE %I', pg_get_userbyid(setrole), $2::text) END,
        split_part(setting, '=', 1),
        -- Lists are kept as they are written; anything else is one value.
        CASE WHEN split_part(setting, '=', 1) IN ('search_path', 'temp_tablespaces', 'session_preload_libraries',
            'local_preload_libraries') THEN substr(setting, strpos(setting, '=') + 1)
        ELSE quote_literal(substr(setting, strpos(setting, '=') + 1)) END)
    FROM live JOIN pg_db_role_setting ON setdatabase = live.oid, unnest(setconfig) AS setting
    UNION ALL
    SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', $2::text) FROM live WHERE datacl IS NOT NULL
    UNION ALL
    SELECT format('GRANT %s ON DATABASE %I TO %s%s', privilege_type, $2::text,
        CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
        CASE WHEN is_grantable AND grantee <> datdba THEN ' WITH GRANT OPTION' ELSE '' END)
    FROM live, aclexplode(datacl)
"""
#: Providers of a database's locale, and what their locale is called in CREATE DATABASE.
_PROVIDERS = {"i": ("icu", "ICU_LOCALE"), "b": ("builtin", "BUILTIN_LOCALE")}


async def database_properties(raw: _RawConnection) -> dict[str, str | None]:
    """What a database like this one has to be made with."""
    row = await raw.fetchrow(
        "SELECT pg_get_userbyid(datdba) AS owner, pg_encoding_to_char(encoding) AS encoding, datcollate, datctype,"
        " to_jsonb(d)->>'datlocprovider' AS provider,"
        " coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale') AS locale,"
        " to_jsonb(d)->>'daticurules' AS rules"
        " FROM pg_database d WHERE datname = current_database()"
    )
    return dict(row)


def made_with(properties: Mapping[str, str | None]) -> str:
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
