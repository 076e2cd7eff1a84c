"""Empties a database for the next test: to make and drop one takes PostgreSQL longer than what most tests do in it.

What is emptied is looked at before it is used again. A database with anything in its catalogs that a new one has not,
whatever it is, is dropped.
"""

from __future__ import annotations

import asyncpg

#: A database with more schemas is dropped: that is quicker then.
_MOST_SCHEMAS = 30
#: Ends other sessions, as DROP DATABASE WITH (FORCE) does, and drops what tests make. {public} makes that schema anew.
_EMPTY = """
SET lock_timeout = '2s';
SET statement_timeout = '20s';
SET client_min_messages = error;
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid();
DO $$
DECLARE name text;
BEGIN
    IF (SELECT count(*) FROM pg_namespace) > {most} THEN
        RAISE EXCEPTION 'it has many schemas';
    END IF;
    FOR name IN SELECT evtname FROM pg_event_trigger LOOP
        EXECUTE format('DROP EVENT TRIGGER %I', name);
    END LOOP;
    FOR name IN SELECT extname FROM pg_extension WHERE oid >= 16384 LOOP
        EXECUTE format('DROP EXTENSION IF EXISTS %I CASCADE', name);
    END LOOP;
    FOR name IN SELECT nspname FROM pg_namespace WHERE oid >= 16384 OR nspname = 'public' LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', name);
    END LOOP;
    EXECUTE format('ALTER DATABASE %I RESET ALL', current_database());
END $$;
{public};
COMMENT ON SCHEMA public IS 'standard public schema'
"""
#: As initdb makes it, before PostgreSQL 15 and since.
_OPEN = "CREATE SCHEMA public; GRANT ALL ON SCHEMA public TO PUBLIC"
_CLOSED = "CREATE SCHEMA public AUTHORIZATION pg_database_owner; GRANT USAGE ON SCHEMA public TO PUBLIC"
#: The catalogs of this database; rows of statistics come and go by themselves.
_CATALOGS = """
SELECT relname FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r' AND NOT relisshared
AND relname !~ '^pg_statistic'
"""
#: Which column of a catalog says that a row is about the schema public.
_ABOUT_PUBLIC = {"pg_namespace": "oid", "pg_description": "objoid", "pg_depend": "objid", "pg_init_privs": "objoid"}
#: What is kept of a database outside of its catalogs is as CREATE DATABASE leaves it.
_AS_MADE = """
SELECT datdba = current_user::regrole AND NOT datistemplate AND datallowconn AND datconnlimit = -1 AND datacl IS NULL
AND NOT EXISTS (SELECT FROM pg_db_role_setting WHERE setdatabase = d.oid)
AND NOT EXISTS (SELECT FROM pg_shdescription WHERE classoid = 'pg_database'::regclass AND objoid = d.oid)
AND NOT EXISTS (SELECT FROM pg_prepared_xacts WHERE database = datname)
AND NOT EXISTS (SELECT FROM pg_replication_slots WHERE database = datname)
AND NOT EXISTS (SELECT FROM pg_subscription WHERE subdbid = d.oid)
FROM pg_database d WHERE datname = current_database()
"""


async def empty(connection: asyncpg.Connection, made: int) -> bool:
    """Empty the database that ``connection`` is in.

    Args:
        connection: a superuser's.
        made: a transaction id from when the database was new.

    Returns:
        Whether nothing is there now that was not there then.

    Raises:
        asyncpg.PostgresError: it cannot be emptied, or is not worth it.
    """
    public = _CLOSED if connection.get_server_version() >= (15,) else _OPEN
    await connection.execute(_EMPTY.format(most=_MOST_SCHEMAS, public=public))
    if not await connection.fetchval(_AS_MADE):
        return False
    catalogs = [row[0] for row in await connection.fetch(_CATALOGS)]
    newer = " UNION ALL ".join(f"(SELECT FROM {name} WHERE {_newer(name, made)} LIMIT 1)" for name in catalogs)
    return not await connection.fetchval(f"SELECT EXISTS ({newer})")


def _newer(catalog: str, made: int) -> str:
    """A condition for rows that were written since, but for those that :data:`_EMPTY` writes."""
    # A row that CREATE DATABASE has copied is as old as the template's.
    condition = f"age(xmin) <= age('{made}'::xid)"
    if column := _ABOUT_PUBLIC.get(catalog):
        condition += f" AND {column} <> 'public'::regnamespace"
    return condition
