"""What only the PostgreSQL adapter has: settings of a session, sources, rights, many schemas in one reading."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from pydantic_core import PydanticCustomError
from sqlalchemy import text

from orchestrator.databases.answers import Check
from orchestrator.databases.postgresql.adapter import PostgreSQL
from orchestrator.errors import ConfigurationError, DatabaseError
from orchestrator.fleet.secrets import Template
from orchestrator.fleet.tenant import Isolation, Limits, Server, Tenant
from tests.projects import with_role
from tests.servers import PostgresServer, execute, fetch

VERSIONS = "alembic_version"


_made: list[PostgreSQL] = []


@pytest.fixture(autouse=True)
async def close_connections() -> AsyncIterator[None]:
    """Close what the test's adapters keep."""
    yield
    while _made:
        await _made.pop().close()


def server(url: str, **keys: object) -> PostgreSQL:
    """The adapter for the server at ``url``; closed after the test."""
    _made.append(PostgreSQL(Server("main", Template(url, Path("/")), **keys)))  # type: ignore[arg-type]
    return _made[-1]


def tenant(schema: str | None, database: str | None = None) -> Tenant:
    """A tenant of a schema."""
    return Tenant(schema or "whole", "main", Isolation.SCHEMA if schema else Isolation.DATABASE, schema, database)


@pytest.fixture
def role(pg: PostgresServer, database: str) -> Iterator[str]:
    """Address of the test's database for a role that may do nothing in it."""
    name = urlsplit(database).path.lstrip("/")
    execute(pg.url, f'CREATE ROLE "{name}" LOGIN')
    with ExitStack() as after:
        after.callback(execute, pg.url, f'DROP ROLE "{name}"')
        after.callback(execute, database, f'DROP OWNED BY "{name}"')
        yield with_role(database, name, "")


async def settings(adapter: PostgreSQL, of: Tenant, limits: Limits, *names: str) -> list[str]:
    """What the server shows for some settings in a new session."""
    async with adapter.session(of, "orchestrator run-1 Großkunde" + "x" * 60, limits) as session:
        rows = [await session.connection.execute(text(f"SHOW {name}")) for name in names]
        return [row.scalar_one() for row in rows]


async def test_settings_of_a_session(database: str) -> None:
    """A session names itself, has its timeouts, and its backend notices when the client dies."""
    execute(database, "CREATE SCHEMA a")
    names = ["lock_timeout", "statement_timeout", "client_connection_check_interval", "application_name"]

    shown = await settings(server(database), tenant("a"), Limits(1.5, 90), *names)

    assert shown[:3] == ["1500ms", "90s", "1s"]
    assert shown[3].startswith("orchestrator run-1 Gro")


async def test_search_path_is_the_tenants_schema_and_the_extensions(database: str) -> None:
    """Public is not on the path; the server's extensions schema is, behind the tenant's own."""
    execute(database, "CREATE SCHEMA a; CREATE SCHEMA extensions")

    assert await settings(server(database), tenant("a"), Limits(), "search_path") == ['"a"']
    with_extensions = server(database, extensions_schema="extensions")
    assert await settings(with_extensions, tenant("a"), Limits(), "search_path") == ['"a", "extensions"']
    assert await settings(with_extensions, tenant(None), Limits(), "search_path") == ['"public", "extensions"']


async def test_lock_holder_names_itself(database: str) -> None:
    """The holder is told by the name its connection has, and by its process."""
    execute(database, "CREATE SCHEMA a")
    adapter, limits = server(database), Limits()
    async with (
        adapter.session(tenant("a"), "holder", limits) as one,
        adapter.session(tenant("a"), "other", limits) as two,
    ):
        assert await two.lock_holder() is None
        await one.try_lock()
        pid = (await one.connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()

        assert (await two.lock_holder() or "").startswith(f"holder (pid {pid}, ")


async def test_lock_of_the_same_schema_in_another_database(database: str, make_database: Callable[..., str]) -> None:
    """Schemas of one name in two databases are two places."""
    other = make_database()
    for url in (database, other):
        execute(url, "CREATE SCHEMA a")
    name = urlsplit(other).path.lstrip("/")
    adapter = server(database)
    async with (
        adapter.session(tenant("a"), "one", Limits()) as one,
        adapter.session(tenant("a", name), "two", Limits()) as two,
    ):
        assert await one.try_lock()
        assert await two.try_lock()


async def test_more_schemas_than_one_statement_reads(database: str) -> None:
    """120 tenants of one database are each read with their own head."""
    execute(
        database,
        ";".join(
            f"CREATE SCHEMA t{n}; CREATE TABLE t{n}.alembic_version (version_num text);"
            f" INSERT INTO t{n}.alembic_version VALUES ('r{n}')"
            for n in range(120)
        ),
    )

    found = await server(database).read([tenant(f"t{n}") for n in range(120)], VERSIONS)

    assert {id: reading.heads for id, reading in found.items()} == {f"t{n}": (f"r{n}",) for n in range(120)}


async def test_one_unreadable_version_table_hides_no_other(database: str, role: str) -> None:
    """A tenant whose version table the role may not read says so; the others of its statement are read."""
    name = urlsplit(role).username
    for schema in "abc":
        execute(
            database,
            f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.alembic_version (version_num text);"
            f" INSERT INTO {schema}.alembic_version VALUES ('r1'); GRANT USAGE ON SCHEMA {schema} TO \"{name}\"",
        )
    execute(database, f'GRANT SELECT ON a.alembic_version, c.alembic_version TO "{name}"')

    found = await server(role).read([tenant(schema) for schema in "abc"], VERSIONS)

    assert [found[schema].heads for schema in "ac"] == [("r1",), ("r1",)]
    failure = found["b"].failure
    assert failure is not None
    assert (failure.sqlstate, "GRANT" in (failure.hint or "")) == ("42501", True)


async def test_schema_that_the_role_may_not_use(database: str, role: str) -> None:
    """No session where unqualified names would not mean the tenant's schema; the error says what to grant."""
    execute(database, "CREATE SCHEMA a")

    with pytest.raises(DatabaseError, match="may not use schema 'a'") as refused:
        async with server(role).session(tenant("a"), "suite", Limits()):
            pass

    assert 'ON SCHEMA "a"' in (refused.value.hint or "")


async def test_sources(database: str) -> None:
    """Rows of a query, schemas and databases by pattern; PostgreSQL's own are never among them."""
    execute(database, "CREATE SCHEMA tenant_b; CREATE SCHEMA tenant_a; CREATE SCHEMA other")
    adapter = server(database)

    assert await adapter.rows("SELECT 'a' AS id, true AS active") == [{"id": "a", "active": True}]
    assert await adapter.schemas("tenant_*") == ["tenant_a", "tenant_b"]
    assert await adapter.schemas("*") == ["other", "public", "tenant_a", "tenant_b"]
    name = urlsplit(database).path.lstrip("/")
    assert await adapter.databases(name) == [name]
    assert not [each for each in await adapter.databases("*") if each.startswith("template")]


async def test_a_sources_query_cannot_write(database: str) -> None:
    """A source's query runs read-only."""
    with pytest.raises(DatabaseError, match="read-only"):
        await server(database).rows("CREATE TABLE oops (id int)")

    assert fetch(database, "SELECT to_regclass('oops')")[0][0] is None


async def test_work_on_databases_when_the_servers_own_is_missing(pg: PostgresServer, database: str) -> None:
    """The database in the address may be the very one that is to be made."""
    missing = f"{database}_new"
    name = urlsplit(missing).path.lstrip("/")
    try:
        await server(missing).provision(tenant(None, name))

        assert name in await server(missing).databases("*")
    finally:
        pg.drop_database(missing)


async def test_direct_address_is_used(database: str) -> None:
    """Where the address leads through a pooler, work goes past it."""
    nowhere = urlsplit(database)._replace(netloc="127.0.0.1:1").geturl()
    adapter = server(nowhere, direct_url=Template(database, Path("/")))

    assert (await adapter.version()).isdigit()
    assert adapter.identity == server(database).identity


async def test_free_connections(second_pg: PostgresServer) -> None:
    """Every connection to the server is one less."""
    adapter = server(second_pg.url)
    before = await adapter.free_connections() or 0
    held = [await asyncpg.connect(second_pg.url) for _ in range(10)]
    try:
        left = await adapter.free_connections() or 0
    finally:
        for connection in held:
            await connection.close()

    limit = int(fetch(second_pg.url, "SELECT current_setting('max_connections')")[0][0])
    # A backend that was let go a moment ago may still be counted.
    assert 9 <= before - left <= 11
    assert limit - 10 < before < limit


async def test_write_binds_values(database: str) -> None:
    """Values reach the table as they are, whatever is in them, each with the type of where it stands."""
    execute(database, "CREATE TABLE customers (slug varchar(99), tags text[], until date, num bigint)")
    odd = "x'); DROP TABLE customers; -- :id $1"
    sql = (
        "INSERT INTO customers SELECT :id, :tags, :until, CAST(CAST(:num AS text) AS bigint)"
        " WHERE NOT EXISTS (SELECT 1 FROM customers WHERE slug = :id)"
    )
    values = {"id": odd, "tags": ["a,b", "{c}"], "until": date(2027, 1, 31), "num": "42"}
    with pytest.raises(PydanticCustomError, match="no `:num`"):
        await server(database).write(sql, values)
    sql = sql.replace(":num", ":reason")
    for _ in range(2):
        await server(database).write(sql, {**values, "reason": "42"})
    assert [tuple(row) for row in fetch(database, "SELECT * FROM customers")] == [
        (odd, ["a,b", "{c}"], date(2027, 1, 31), 42)
    ]


async def test_write_is_whole_or_not_at_all(database: str) -> None:
    """A check that says no, one that writes, and a statement that fails leave nothing"""
    execute(database, "CREATE TABLE customers (slug text PRIMARY KEY)")
    adapter, seen = server(database), []

    def refuse(rows: Sequence[Mapping[str, Any]]) -> None:
        seen.extend(rows)
        raise ConfigurationError("not so")

    insert, query = "INSERT INTO customers VALUES (:id)", "SELECT slug FROM customers"
    with pytest.raises(ConfigurationError, match="not so"):
        await adapter.write(insert, {"id": "a"}, Check(query, refuse))
    assert seen == [{"slug": "a"}]
    with pytest.raises(DatabaseError, match="read-only transaction"):
        await adapter.write(insert, {"id": "a"}, Check("DELETE FROM customers RETURNING 1", refuse))
    with pytest.raises(DatabaseError, match="null value"):
        await adapter.write(insert, {"id": None})
    assert fetch(database, query) == []
    await adapter.write(insert, {"id": "a"}, Check(query, lambda rows: None))
    assert [row[0] for row in fetch(database, query)] == ["a"]


async def test_schemas_and_databases_are_measured_alike(database: str, make_database: Callable[..., str]) -> None:
    """A schema with rows, in TOAST or not, is larger than a database without any, whatever its catalogs take."""
    empty = make_database().rsplit("/", 1)[1]
    execute(database, "CREATE SCHEMA rows; CREATE TABLE rows.t AS SELECT generate_series(1, 1000) n; ANALYZE rows.t")
    wide = "SELECT string_agg(md5(g::text), '') FROM generate_series(1, 10000) g"
    execute(database, f"CREATE SCHEMA wide; CREATE TABLE wide.t AS {wide}")
    execute(database, "VACUUM ANALYZE wide.t")
    found = await server(database).footprints([tenant("rows"), tenant("wide"), tenant(None, empty), tenant("gone")])
    assert found["wide"].bytes > 100_000
    assert found["wide"].bytes > found["rows"].bytes > found["whole"].bytes
    assert 0 not in {each.made for each in found.values()}
    assert found.keys() == {"rows", "wide", "whole"}
