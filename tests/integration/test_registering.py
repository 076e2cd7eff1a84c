"""A tenant becomes one of the fleet where it belongs, and leaves it from where it was; never by half."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.actions.onboarding import registering
from orchestrator.actions.onboarding.registering import Registration, register, register_all, unregister
from orchestrator.actions.servers import Servers, opened_servers
from orchestrator.errors import ConfigurationError, DatabaseError
from orchestrator.fleet import registry
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.load import load
from orchestrator.fleet.sources import SqlSource
from orchestrator.fleet.tenant import Isolation, Tenant
from tests import documents
from tests.servers import execute, fetch

QUERY = "SELECT slug AS id, schema_name AS schema, tags FROM customers WHERE active"
REGISTER = "INSERT INTO customers VALUES (:id, :schema, :tags) ON CONFLICT DO NOTHING"
UNREGISTER = "DELETE FROM customers WHERE slug = :id"
CUSTOMERS = "CREATE TABLE customers (slug text PRIMARY KEY, schema_name text, tags text[], active bool DEFAULT true)"
SQL = {"sql": QUERY, "register": REGISTER, "unregister": UNREGISTER}
SQL_NAME = "the SQL source on server main"


@pytest.fixture
def make_fleet(tmp_path: Path, database: str) -> Callable[..., Fleet]:
    """``make_fleet(source, ..., tenants=[...])`` writes a tenants.yaml with these sources and loads it."""

    def make(*sources: dict[str, Any], tenants: tuple[str, ...] = ("old",)) -> Fleet:
        text = {"servers": {"main": database}, "tenants": list(tenants), "sources": list(sources)}
        (tmp_path / "tenants.yaml").write_text(json.dumps(text, indent=1) + "\n")
        return load(tmp_path / "tenants.yaml", may_be_empty=True)

    return make


@pytest.fixture
def customers(database: str) -> str:
    """The database with a table of customers."""
    execute(database, CUSTOMERS)
    return database


def new(schema: str = "new", **keys: Any) -> Tenant:
    """The tenant that comes."""
    return replace(Tenant("new", "main", Isolation.SCHEMA, schema), **keys)


async def come(fleet: Fleet, tenant: Tenant, source: SqlSource | None = None) -> Registration:
    """Register, by connections of its own."""
    async with opened_servers(fleet) as servers:
        return await register(servers, fleet, tenant, source)


async def go(fleet: Fleet, tenant: Tenant) -> Registration:
    """Unregister, by connections of its own."""
    async with opened_servers(fleet) as servers:
        return await unregister(servers, fleet, tenant)


async def ids(fleet: Fleet) -> list[str]:
    """Who is in the fleet now."""
    async with opened_servers(load(fleet.path, may_be_empty=True)) as servers:
        return sorted(tenant.id for tenant in (await servers.fleet()).tenants)


async def test_tenants_yaml(make_fleet: Callable[..., Fleet]) -> None:
    """Without a source for it, a tenant is written into tenants.yaml, and taken out to the byte."""
    fleet = make_fleet()
    before = fleet.path.read_bytes()
    assert await come(fleet, new(tags=("eu",))) == Registration("tenants.yaml", True)
    assert load(fleet.path).tenants[-1] == new(tags=("eu",))
    assert await come(fleet, new(tags=("eu",))) == Registration("tenants.yaml", False)
    with pytest.raises(ConfigurationError, match=r"tenants\.yaml:\d+: tenant `new` is here already"):
        await come(fleet, new(tags=("us",)))
    assert await go(fleet, new()) == Registration("tenants.yaml", True)
    assert fleet.path.read_bytes() == before
    assert await go(fleet, new()) == Registration(None, False)


async def test_sql_source(make_fleet: Callable[..., Fleet], customers: str) -> None:
    """Where a SQL source on its server has a statement, the tenant is a row there; tenants.yaml is not touched."""
    fleet = make_fleet(SQL)
    before = fleet.path.read_bytes()
    tenant = new("O'Brien; --", tags=("eu", "a b"))
    assert await come(fleet, tenant) == Registration(SQL_NAME, True)
    assert [tuple(row) for row in fetch(customers, "SELECT * FROM customers")] == [
        ("new", "O'Brien; --", ["eu", "a b"], True)
    ]
    assert await come(fleet, tenant) == Registration(SQL_NAME, False)
    assert await ids(fleet) == ["new", "old"]
    assert await go(fleet, tenant) == Registration(SQL_NAME, True)
    assert await go(fleet, tenant) == Registration(None, False)
    assert await ids(fleet) == ["old"]
    assert fleet.path.read_bytes() == before


async def test_one_connection_for_many(make_fleet: Callable[..., Fleet], customers: str) -> None:
    """In a process that stays, tenants come at once by the same servers."""
    fleet = make_fleet(SQL)
    tenants = [Tenant(f"n{number}", "main", Isolation.SCHEMA, f"s{number}") for number in range(20)]
    async with opened_servers(fleet) as servers:
        done = await asyncio.gather(*(register(servers, fleet, tenant) for tenant in tenants))
    assert done == [Registration(SQL_NAME, True)] * 20
    assert len(await ids(fleet)) == 21


async def test_many_in_one_go(
    make_fleet: Callable[..., Fleet], customers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fleet is read twice for all of them, and one that cannot come keeps nobody out."""
    fleet = make_fleet(SQL, tenants=("old", "n3"))
    tenants = [Tenant(f"n{number}", "main", Isolation.SCHEMA, f"s{number}") for number in range(20)]
    reads, read = [], registering.read_sources

    async def counted(*given: Any) -> Fleet:
        reads.append(given)
        return await read(*given)

    monkeypatch.setattr(registering, "read_sources", counted)
    async with opened_servers(fleet) as servers:
        done = await register_all(servers, fleet, tenants)
    assert len(reads) == 2
    assert isinstance(done.pop(3), ConfigurationError)
    assert done == [Registration(SQL_NAME, True)] * 19
    assert len(await ids(fleet)) == 21


async def test_who_is_there_already_keeps_nobody_out(make_fleet: Callable[..., Fleet], database: str) -> None:
    """Of newcomers in one go, a glob finds every second one by itself; the others go into tenants.yaml."""
    fleet = make_fleet({"schemas": "t_*", "server": "main"})
    names = [f"{kind}_{number}" for number in range(3) for kind in ("t", "other")]
    for name in names:
        execute(database, f"CREATE SCHEMA {name}")
    tenants = [Tenant(name, "main", Isolation.SCHEMA, name) for name in names]
    async with opened_servers(fleet) as servers:
        done = await register_all(servers, fleet, tenants)
    assert all(isinstance(each, Registration) for each in done), done
    assert await ids(fleet) == sorted(["old", *names])


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("INSERT INTO customers VALUES (:id, 'elsewhere')", "lists `new` with schema elsewhere on server main"),
        ("INSERT INTO customers VALUES (:id || '2', :schema)", "lists `new2` with schema new on server main"),
        ("INSERT INTO customers VALUES (:id, :schema, NULL, false)", "lists 0 others"),
        ("INSERT INTO customers VALUES (:id, 'pg_x')", "one of PostgreSQL's own schemas"),
        ("INSERT INTO customer VALUES (:id)", 'relation "customer" does not exist'),
        ("INSERT INTO customers VALUES (:id, CAST(:schema AS int))", "invalid input"),
    ],
)
async def test_statement_that_does_something_else(
    make_fleet: Callable[..., Fleet], customers: str, statement: str, message: str
) -> None:
    """A statement after which the query does not list the tenant in its place is rolled back, and that is told."""
    fleet = make_fleet({**SQL, "register": statement})
    with pytest.raises((ConfigurationError, DatabaseError)) as caught:
        await come(fleet, new())
    assert message in caught.value.message
    assert caught.value.hint
    assert fetch(customers, "SELECT * FROM customers") == []
    assert await ids(fleet) == ["old"]


async def test_row_that_is_there_already(make_fleet: Callable[..., Fleet], customers: str) -> None:
    """A row that the query leaves out is not taken for the tenant's, and stays as it is."""
    execute(customers, "INSERT INTO customers VALUES ('new', 'older', NULL, false)")
    fleet = make_fleet(SQL)
    with pytest.raises(ConfigurationError, match="is not listed"):
        await come(fleet, new())
    assert fetch(customers, "SELECT schema_name FROM customers")[0][0] == "older"


async def test_taken(make_fleet: Callable[..., Fleet], customers: str) -> None:
    """An id or a place of another tenant, whatever it is from, is refused before anything is written."""
    execute(customers, "INSERT INTO customers VALUES ('globex', 'gx')")
    fleet = make_fleet(SQL)
    taken = replace(new(), id="globex")
    for attempt in (come, go):
        with pytest.raises(ConfigurationError, match=r"`globex` is in the fleet already: schema gx on server main \("):
            await attempt(fleet, taken)
    with pytest.raises(ConfigurationError, match=r"in the place of another one: gx \(`globex`, the SQL source"):
        await come(fleet, new("gx"))
    with pytest.raises(ConfigurationError, match=r"in the place of another one: old \(`old`, tenants.yaml"):
        await come(fleet, new("old"))
    with pytest.raises(ConfigurationError, match="unknown server `mian`") as caught:
        await come(fleet, new(server="mian"))
    assert caught.value.hint == "did you mean `main`?"
    assert len(fetch(customers, "SELECT 1 FROM customers")) == 1


async def test_glob_that_finds_it(make_fleet: Callable[..., Fleet], database: str) -> None:
    """A tenant that a glob finds needs no line; one of whom a glob would lose something is refused."""
    execute(database, "CREATE SCHEMA t_new")
    fleet = make_fleet({"schemas": "t_*"})
    before = fleet.path.read_bytes()
    tenant = replace(new("t_new"), id="t_new")
    there = Registration("the source schemas 't_*' on server main", False)
    assert await come(fleet, tenant) == await go(fleet, tenant) == there
    for other in (replace(tenant, tags=("eu",)), replace(tenant, schema="t_later", id="t_later", tags=("eu",))):
        with pytest.raises(ConfigurationError, match=r"finds schema t_\w+ on server main by itself, as t_\w+ and"):
            await come(fleet, other)
    with pytest.raises(ConfigurationError, match=r"not as \{id: new, schema: t_x\}"):
        await come(fleet, new("t_x"))
    with pytest.raises(ConfigurationError, match=r"`t_y` .* is not listed: it should be in the source schemas"):
        await come(fleet, replace(tenant, id="t_y", schema="t_y"))
    assert fleet.path.read_bytes() == before


async def test_which_source(make_fleet: Callable[..., Fleet], customers: str) -> None:
    """Of two sources with a statement the caller has to name one; a source that is not of the file is refused."""
    fleet = make_fleet(SQL, {**SQL, "sql": f"{QUERY} AND false"})
    with pytest.raises(ConfigurationError, match="2 sources have a `register:`"):
        await come(fleet, new())
    first = fleet.sources[0]
    assert isinstance(first, SqlSource)
    with pytest.raises(ConfigurationError, match="any more"):
        await come(fleet, new(), replace(first, sql="SELECT 1"))
    assert await come(fleet, new(), first) == Registration(SQL_NAME, True)


async def test_source_on_another_server(
    make_fleet: Callable[..., Fleet], tmp_path: Path, customers: str, make_database: Callable[..., str]
) -> None:
    """A table of all tenants takes those on other servers where its statement says `:server`."""
    execute(customers, "ALTER TABLE customers ADD server text")
    fleet = make_fleet(SQL)
    text = json.loads(fleet.path.read_text())
    text["servers"]["eu"] = make_database()
    text["defaults"] = {"server": "main"}
    fleet.path.write_text(json.dumps(text))
    far = new(server="eu")
    assert (await come(load(fleet.path), far)).where == "tenants.yaml"
    await go(load(fleet.path), far)
    text["sources"][0] |= {
        "sql": "SELECT slug AS id, schema_name AS schema, server FROM customers",
        "register": "INSERT INTO customers (slug, schema_name, server) VALUES (:id, :schema, :server)",
    }
    fleet.path.write_text(json.dumps(text))
    assert (await come(load(fleet.path), far)).where == SQL_NAME
    assert fetch(customers, "SELECT server FROM customers")[0][0] == "eu"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            {"unregister": "UPDATE customers SET tags = NULL WHERE slug = :id"},
            "leaves tenant `new` in it",
        ),
        ({"unregister": None}, "no way to take it out"),
    ],
)
async def test_not_taken_out(
    make_fleet: Callable[..., Fleet], customers: str, source: dict[str, Any], message: str
) -> None:
    """A source that cannot let go of a tenant says so, and is as it was."""
    execute(customers, "INSERT INTO customers VALUES ('new', 'new', '{eu}')")
    fleet = make_fleet({key: value for key, value in {**SQL, **source}.items() if value is not None})
    with pytest.raises(ConfigurationError) as caught:
        await go(fleet, new())
    assert message in caught.value.message
    assert caught.value.hint
    assert fetch(customers, "SELECT tags FROM customers")[0][0] == ["eu"]


async def test_named_elsewhere_meanwhile(
    make_fleet: Callable[..., Fleet], customers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that comes between looking and writing leaves no fleet that nobody can read."""
    fleet = make_fleet({"sql": QUERY})
    before = fleet.path.read_bytes()
    put_in = registry.register

    def and_a_row(path: Path, entry: dict[str, object]) -> bool:
        execute(customers, "INSERT INTO customers VALUES ('new', 'new')")
        return put_in(path, entry)

    monkeypatch.setattr(registering.registry, "register", and_a_row)
    with pytest.raises(ConfigurationError, match="taken already"):
        await come(fleet, new())
    assert fleet.path.read_bytes() == before
    assert await ids(fleet) == ["new", "old"]


async def test_first_of_all_with_a_server_of_its_own(make_fleet: Callable[..., Fleet], database: str) -> None:
    """An empty fleet takes its first tenant, on a server that is only its own."""
    fleet = make_fleet(tenants=())
    url = f"{database}?application_name=own"
    registry.register(fleet.path, {"id": "new", "url": url})
    with_it = load(fleet.path)
    registry.unregister(fleet.path, "new")
    (tenant,) = with_it.tenants
    async with opened_servers(with_it) as servers:
        assert isinstance(servers, Servers)
        assert await register(servers, with_it, tenant) == Registration("tenants.yaml", True)
        assert await register(servers, with_it, tenant) == Registration("tenants.yaml", False)
        assert await unregister(servers, with_it, tenant) == Registration("tenants.yaml", True)


async def test_documented_statements(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What docs/tenants.md shows takes a tenant in, and lets it go; whoever was there before stays."""
    monkeypatch.setenv("DATABASE_URL", database)
    execute(database, "CREATE TABLE customers (slug text PRIMARY KEY, schema_name text, plan text, active bool)")
    execute(database, "INSERT INTO customers VALUES ('old', 'old', 'free', true)")
    (block,) = [each for each in documents.blocks("docs/tenants.md") if "unregister: " in each.text]
    (tmp_path / "tenants.yaml").write_text(block.text)
    fleet = load(tmp_path / "tenants.yaml")
    assert await come(fleet, new(tags=("eu", "team"))) == Registration(SQL_NAME, True)
    assert await ids(fleet) == ["new", "old"]
    assert await go(fleet, new()) == Registration(SQL_NAME, True)
    rows = [tuple(row) for row in fetch(database, "SELECT * FROM customers ORDER BY active")]
    assert rows == [("new", "new", "eu,team", False), ("old", "old", "free", True)]
    with pytest.raises(ConfigurationError, match="is not listed"):
        await come(fleet, new())
