"""Rows of sources: they become tenants by the rules of tenants.yaml, and errors name source and row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ConfigurationError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.rows import complete, read_rows
from orchestrator.fleet.secrets import Template
from orchestrator.fleet.sources import (
    DatabaseSource,
    Defaults,
    EntryPointSource,
    PythonSource,
    SchemaSource,
    Source,
    SqlSource,
)
from orchestrator.fleet.tenant import Isolation, Limits, Server, Tenant

ROOT = Path("/srv/app")
SERVERS = {
    "main": Server("main", Template("postgresql://db1/app", ROOT)),
    "second": Server("second", Template("postgresql://db2/app", ROOT)),
    "lite": Server("lite", Template("sqlite:///data", ROOT)),
}
DEFAULTS = Defaults(server="main", root=ROOT)
SQL = SqlSource("SELECT 1", "second")
PYTHON = PythonSource("myapp:tenants")


def made(rows: list[Any], source: Source = PYTHON, defaults: Defaults = DEFAULTS) -> list[Tenant]:
    return read_rows(rows, source, SERVERS, defaults).tenants


def refusal(rows: list[Any], source: Source = PYTHON) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        made(rows, source)
    return caught.value


def test_row() -> None:
    """A row's columns are a tenant's keys."""
    row = {"id": "acme", "server": "main", "schema": "s_acme", "tags": ["eu"], "pin": "abc", "target": "tenant@head"}
    expected = Tenant("acme", "main", Isolation.SCHEMA, "s_acme", tags=("eu",), pin="abc", target="tenant@head")
    assert made([row]) == [expected]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["eu", "x"], ("eu", "x")),
        ("eu, x", ("eu", "x")),
        ("eu", ("eu",)),
        ("", ()),
        (None, ("d",)),
        (("a",), ("a",)),
        ({"b", "a"}, ("a", "b")),
    ],
)
def test_tags(tags: Any, expected: tuple[str, ...]) -> None:
    """Tags are a list (an array column) or one comma separated text; NULL leaves the default."""
    (tenant,) = made([{"id": "a", "tags": tags}], defaults=Defaults(server="main", tags=("d",)))
    assert tenant.tags == expected


def test_null_columns_count_as_left_out() -> None:
    """SQL's NULL is nothing given."""
    assert made([{"id": "a", "schema": None, "pin": None, "server": None}]) == made([{"id": "a"}])


def test_server_of_a_row() -> None:
    """A row's own server, else the queried one for SQL, else the default."""
    assert [tenant.server for tenant in made([{"id": "a"}, {"id": "b", "server": "main"}], SQL)] == ["second", "main"]
    assert made([{"id": "a"}], PYTHON)[0].server == "main"


def test_pattern_sources() -> None:
    """The id is the schema's or database's name, on the source's server, whatever the defaults say."""
    defaults = Defaults(server="main", isolation=Isolation.DATABASE)
    (schema,) = made(["tenant_a"], SchemaSource("tenant_*", "second"), defaults)
    assert schema == Tenant("tenant_a", "second", Isolation.SCHEMA, schema="tenant_a")
    (database,) = made([{"id": "tenant_a"}], DatabaseSource("tenant_*", "second"), Defaults(server="main"))
    assert database == Tenant("tenant_a", "second", Isolation.DATABASE, database="tenant_a")


def test_tenant_values() -> None:
    """A Python source may return tenants; they pass through the same rules."""
    tenant = Tenant(
        "a", "main", Isolation.DATABASE, schema="s", database="d", tags=("x",), target="t@head", reason="why", pin="p"
    )
    tenant = replace(tenant, limits=Limits(1.5, None, 60.0))
    assert made([tenant, {"id": "b"}])[0] == tenant
    assert "unknown server `mian`" in refusal([Tenant("a", "mian", Isolation.SCHEMA, schema="a")]).message
    assert "PostgreSQL's own schemas" in refusal([Tenant("a", "main", Isolation.SCHEMA, schema="pg_x")]).message


def test_file_rows() -> None:
    """On a SQLite server a row is a file in its directory."""
    assert made([{"id": "a", "server": "lite"}])[0].file == "/srv/app/data/a.db"
    assert "cannot be a file's name" in refusal([{"id": "../../etc/x", "server": "lite"}]).message


def test_url_makes_a_server_of_its_own() -> None:
    """A row with a url is on a server named by its id."""
    rows = read_rows([{"id": "a", "url": "postgres://u:p@h/d"}], PYTHON, SERVERS, DEFAULTS)
    assert rows.tenants == [Tenant("a", "a", Isolation.DATABASE)]
    assert rows.servers["a"].url.resolve() == "postgres://u:p@h/d"


def test_url_of_a_row_runs_no_command(tmp_path: Path) -> None:
    """Data is not configuration: with ${cmd:} in a row whoever writes the table would run commands here."""
    url = f"postgres://h/${{cmd:touch {tmp_path}/ran}}"
    rows = read_rows([{"id": "a", "url": url}], SQL, SERVERS, DEFAULTS)
    assert rows.servers["a"].url.resolve() == url
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("row", "message", "hint"),
    [
        ({"id": 7}, "(`7`)", None),
        ({"id": 7}, "id: must be text, not int", "CAST(id AS text)"),
        ({"id": "a", "tags": ["x", 1]}, "tags: must be text, not int", "CAST(tags AS text)"),
        ({"id": "a", "plan": "x"}, "unknown key `plan`", "one of: id, server"),
        ({"id": "a", "shema": "x"}, "unknown key `shema`", "did you mean `schema`?"),
        ({"schema": "a"}, "`id` is missing", "add `id:`"),
        ({"id": "a", "server": "mian"}, "unknown server `mian`", "did you mean `main`?"),
        ({"id": "a", "schema": "ü" * 32}, "has 64 bytes", "63 bytes"),
        ({"id": "x" * 64}, "the schema, by default the id", "schema"),
        ({"id": "a\0"}, "invisible characters", "correct"),
        ({"id": "a", "isolation": "file"}, "cannot have isolation file", "isolation: schema"),
        ({"id": "main", "url": "postgres://h/d"}, "named like a declared server", "rename"),
        ({"id": "a", "until": "2027-01-31"}, "`until` ends a pin", "pin"),
        (7, "a row must be a mapping or a tenant, not int", "return rows like"),
        ("a", "a row must be a mapping or a tenant, not str", "return rows like"),
    ],
)
def test_refusals(row: Any, message: str, hint: str | None) -> None:
    """The source, the row's number and what is wrong with it."""
    error = refusal([{"id": "fine"}, row])
    assert error.message.startswith("the Python source myapp:tenants, row 2")
    if hint is not None:
        assert message in error.message
        assert hint in str(error.hint)


def test_all_rows_at_once() -> None:
    """Every bad row is told, a line each."""
    error = refusal([{"id": "a"}, {"id": "b", "x": 1}, {"id": 3}, {"id": "c"}], SQL)
    lines = error.message.split("\n")
    assert lines[0].startswith("the SQL source on server second, row 2 (`b`): unknown key `x`")
    assert lines[1].startswith("the SQL source on server second, row 3: id: must be text")
    assert "query" in str(error.hint)


def test_clashes_within_a_source() -> None:
    """Two rows that are one tenant, or in one place."""
    assert "row 2 (`a`): the id `a` is taken already (row 1)" in refusal([{"id": "a"}, {"id": "a"}]).message
    assert "row 2 (`b`): tenant `b` would be migrated in the place of another one: a (row 1)" in (
        refusal([{"id": "a"}, {"id": "b", "schema": "a"}]).message
    )


TEXT = """
servers: {main: postgresql://db1/app}
tenants: [a, {id: own, url: "postgresql://db9/x"}]
sources: [{sql: SELECT 1}, {entry_point: crm}]
"""


def test_complete(load_text: Callable[[str], Fleet]) -> None:
    """All sources read: the fleet's own tenants first, then each source's; with all servers and no source left."""
    fleet = load_text(TEXT)
    sql, crm = fleet.sources
    whole = complete(
        fleet, [(sql, [{"id": "b"}, {"id": "c"}]), (crm, iter([{"id": "d", "url": "postgresql://db7/x"}]))]
    )
    assert [tenant.id for tenant in whole.tenants] == ["a", "own", "b", "c", "d"]
    assert set(whole.servers) == {"main", "own", "d"}
    assert whole.sources == ()
    assert whole.server_of(whole.tenants[-1]).name == "d"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"id": "a", "schema": "x"},
            "the SQL source on server main, tenant `a`: the id `a` is taken already (`a` from tenants.yaml)",
        ),
        (
            {"id": "x", "schema": "a"},
            "tenant `x` would be migrated in the place of another one: a (`a` from tenants.yaml)",
        ),
        ({"id": "x", "url": "postgresql://db9/x"}, "in the place of another one: x (`own` from tenants.yaml)"),
        ({"id": "x", "server": "own"}, "unknown server `own`"),
    ],
)
def test_clashes_between_sources(load_text: Callable[[str], Fleet], row: dict[str, Any], message: str) -> None:
    """A tenant is in one place only: not in tenants.yaml and in a source; another's own server is no server to name."""
    fleet = load_text(TEXT)
    with pytest.raises(ConfigurationError) as caught:
        complete(fleet, [(fleet.sources[0], [row])])
    assert message in caught.value.message
    assert caught.value.hint


def test_clashes_between_two_sources(load_text: Callable[[str], Fleet]) -> None:
    """A tenant that two sources name is told, also where no tenant is written down."""
    fleet = load_text("servers: {main: postgresql://db1/app}\nsources: [{sql: SELECT 1}, {sql: SELECT 1}]")
    rows = [{"id": "b"}]
    with pytest.raises(ConfigurationError, match="the id `b` is taken already"):
        complete(fleet, [(source, rows) for source in fleet.sources])


def test_tenant_named_like_its_server(load_text: Callable[[str], Fleet]) -> None:
    """A declared server stays one that rows may name, also where a tenant on it has its name."""
    fleet = load_text("servers: {main: postgresql://db1/app}\ntenants: [main]\nsources: [{sql: SELECT 1}]")
    assert [tenant.id for tenant in complete(fleet, [(fleet.sources[0], [{"id": "b"}])]).tenants] == ["main", "b"]


def test_sources_say_what_they_are() -> None:
    """Messages name a source so that its line in tenants.yaml is found."""
    assert str(SchemaSource("t_*", "main")) == "the source schemas 't_*' on server main"
    assert str(EntryPointSource("crm")) == "the source entry point crm"
