"""The databases of these tests are used again: never one in which a test could find what another has left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.catalog import catalog
from tests.servers import PostgresServer, execute, fetch

SCHEMAS = """
SELECT nspname, nspowner::regrole::text, nspacl::text, obj_description(oid, 'pg_namespace') FROM pg_namespace ORDER BY 1
"""


@pytest.fixture
def server(pg: PostgresServer) -> Iterator[PostgresServer]:
    """The session's server, with none waiting."""
    server = replace(pg, idle=[], emptied={})
    yield server
    server.drop_idle()


def used_again(server: PostgresServer, sql: str) -> bool:
    """Whether a database in which ``sql`` was run waits for the next test; if not, it is gone."""
    url = server.create_database()
    name = url.rpartition("/")[2]
    execute(url, sql.format(database=name))
    server.drop_database(url)
    there = fetch(server.url, f"SELECT 1 FROM pg_database WHERE datname = '{name}'")
    assert bool(there) == (name in server.idle)
    return bool(there)


def test_it_is_as_new(server: PostgresServer) -> None:
    """Tables, extensions, event triggers, settings and a public schema that was opened are gone, under a new name."""
    new = server.create_database()
    as_new = (fetch(new, SCHEMAS), catalog(new))
    left = """
        CREATE SCHEMA a; CREATE TABLE a.t (id serial PRIMARY KEY); CREATE TABLE public.t (); GRANT ALL ON SCHEMA public
        TO PUBLIC; CREATE EXTENSION hstore; ALTER DATABASE "{database}" SET work_mem = '1MB';
        CREATE FUNCTION t() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
        CREATE EVENT TRIGGER t ON ddl_command_end EXECUTE FUNCTION t()
    """
    for _ in range(3):
        assert used_again(server, left)
    names = [*server.idle]
    again = server.create_database()
    assert len(server.idle) == 2
    assert again.rpartition("/")[2] not in names
    assert (fetch(again, SCHEMAS), catalog(again)) == as_new
    for url in (again, new):
        server.drop_database(url)


@pytest.mark.parametrize(
    "odd",
    [
        "SELECT lo_create(0)",
        "GRANT SELECT ON pg_catalog.pg_authid TO PUBLIC",
        "REVOKE EXECUTE ON FUNCTION pg_catalog.lower(text) FROM PUBLIC",
        "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
        "ALTER ROLE CURRENT_USER IN DATABASE \"{database}\" SET work_mem = '1MB'",
        'ALTER DATABASE "{database}" CONNECTION LIMIT 3',
        "COMMENT ON DATABASE \"{database}\" IS 'kept'",
        "DROP EXTENSION plpgsql",
        "CREATE PUBLICATION kept",
        "DO $$ BEGIN FOR number IN 1..40 LOOP EXECUTE 'CREATE SCHEMA s' || number; END LOOP; END $$",
    ],
)
def test_it_is_dropped_when_something_is_left(server: PostgresServer, odd: str) -> None:
    """Whatever else is in its catalogs, or kept of it elsewhere; and one that would take long to empty."""
    assert not used_again(server, odd)
