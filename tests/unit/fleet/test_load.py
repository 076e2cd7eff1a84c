"""load(): what each key of tenants.yaml means."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ConfigurationError
from orchestrator.fleet.fleet import FailureBudget, Fleet, Policy, Wave
from orchestrator.fleet.load import load
from orchestrator.fleet.secrets import Template
from orchestrator.fleet.selection import Selection
from orchestrator.fleet.sources import (
    DatabaseSource,
    EntryPointSource,
    PythonSource,
    SchemaSource,
    SqlSource,
)
from orchestrator.fleet.tenant import Isolation, Limits, Server, Tenant

Load = Callable[[str], Fleet]

CONTRACT = """
servers:                                   # physical servers: budgets live here
  main:
    url: postgresql+asyncpg://migrator:${file:/run/secrets/pg}@db1.internal/app
    direct_url: ${MAIN_DIRECT_URL:-}       # past the pooler, for locks and DDL
    max_concurrency: 4
    extensions_schema: extensions          # kept on every tenant's search path
defaults: {server: main, isolation: schema, target: heads}
tenants:
  - id: acme                               # schema (or database, or file) defaults to the id
    tags: [eu, enterprise]
  - {id: globex, isolation: database, database: globex_prod, pin: 3f2a9c, reason: "custom index, see OPS-12"}
  - {id: initech, url: "${INITECH_URL}"}   # a server of its own
sources:
  - {sql: "SELECT slug AS id, schema_name AS schema, plan AS tags FROM public.tenants WHERE active", server: main}
    # beside sql: `register:` and `unregister:` statements let onboard and offboard write there
  - {schemas: "tenant_*", server: main}
  - {databases: "tenant_*", server: main}
  - {python: "myapp.tenants:all_tenants"}
policy: {max_failures: 0, lock_timeout: 2s, statement_timeout: 1h, retries: 5}
waves:
  - {name: canary, select: {tags: [canary]}, max_failures: 0}
  - {name: first, percent: 10}
  - {name: rest}
"""


def test_contract(load_text: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The example that docs/cli.md gives (without `bake:`, which a later release runs), field by field."""
    monkeypatch.delenv("MAIN_DIRECT_URL", raising=False)
    monkeypatch.delenv("INITECH_URL", raising=False)
    fleet = load_text(CONTRACT)
    url = Template("postgresql+asyncpg://migrator:${file:/run/secrets/pg}@db1.internal/app", tmp_path)
    assert fleet.servers == {
        "main": Server("main", url, None, max_concurrency=4, extensions_schema="extensions"),
        "initech": Server("initech", Template("${INITECH_URL}", tmp_path)),
    }
    globex = Tenant(
        "globex", "main", Isolation.DATABASE, database="globex_prod", pin="3f2a9c", reason="custom index, see OPS-12"
    )
    assert fleet.tenants == (
        Tenant("acme", "main", Isolation.SCHEMA, schema="acme", tags=("eu", "enterprise")),
        globex,
        Tenant("initech", "initech", Isolation.DATABASE),
    )
    sql = "SELECT slug AS id, schema_name AS schema, plan AS tags FROM public.tenants WHERE active"
    assert fleet.sources == (
        SqlSource(sql, "main"),
        SchemaSource("tenant_*", "main"),
        DatabaseSource("tenant_*", "main"),
        PythonSource("myapp.tenants:all_tenants"),
    )
    assert fleet.policy == Policy(FailureBudget(0), Limits(2.0, 3600.0, 60.0), retries=5)
    assert fleet.waves == (
        Wave("canary", Selection(tags=("canary",)), max_failures=FailureBudget(0)),
        Wave("first", percent=10.0),
        Wave("rest"),
    )
    assert (fleet.path, fleet.root, fleet.journal) == (tmp_path / "tenants.yaml", tmp_path, None)


def test_relative_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The fleet's path is absolute, and stays beside a link to the file (mounted configuration)."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "t.yaml").write_text("servers: {m: postgresql://h/d}\ntenants: [a]\n")
    (tmp_path / "tenants.yaml").symlink_to(tmp_path / "real" / "t.yaml")
    monkeypatch.chdir(tmp_path)
    assert load("tenants.yaml").path == tmp_path / "tenants.yaml"


SERVERS = """
servers:
  pg: postgresql://db1/app
  lite: sqlite:///data/tenants
  other: {url: "postgresql://db2/app"}
defaults: {server: pg}
tenants:
"""


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("acme", {"server": "pg", "isolation": "schema", "schema": "acme"}),
        ("{id: a}", {"server": "pg", "isolation": "schema", "schema": "a", "target": "heads"}),
        ("{id: a, schema: b}", {"isolation": "schema", "schema": "b", "database": None}),
        ("{id: a, database: d}", {"isolation": "schema", "schema": "a", "database": "d"}),
        ("{id: a, isolation: database}", {"isolation": "database", "schema": None, "database": "a"}),
        (
            "{id: a, isolation: database, database: d, schema: s}",
            {"isolation": "database", "schema": "s", "database": "d"},
        ),
        ("{id: a, server: lite}", {"isolation": "file", "schema": None, "database": None, "file": "data/tenants/a.db"}),
        ("{id: a, server: lite, isolation: file}", {"isolation": "file", "file": "data/tenants/a.db"}),
        ("{id: a, server: lite, file: x/../y.db}", {"isolation": "file", "file": "y.db"}),
        ("{id: a, server: lite, file: /abs/y.db}", {"isolation": "file", "file": "/abs/y.db"}),
        ("{id: a, url: postgres://h/d}", {"server": "a", "isolation": "database", "database": None, "schema": None}),
        ("{id: a, url: postgres://h/d, isolation: database, database: x}", {"server": "a", "database": "x"}),
        ("{id: a, url: postgres://h/d, isolation: schema}", {"server": "a", "isolation": "schema", "schema": "a"}),
        ("{id: a, url: sqlite:///own.db}", {"server": "a", "isolation": "file", "file": "own.db"}),
        ("{id: a, url: sqlite+aiosqlite:////abs/own.db}", {"isolation": "file", "file": "/abs/own.db"}),
        ("{id: public, target: shared@head}", {"schema": "public", "target": "shared@head"}),
        ("{id: a, tags: 'eu, canary'}", {"tags": ("eu", "canary")}),
        ("{id: a, tags: }", {"tags": ()}),
        ("{id: a, pin: abc, until: 2027-01-31}", {"pin": "abc", "until": date(2027, 1, 31)}),
        ('{id: a, pin: abc, until: "2027-01-31"}', {"pin": "abc", "until": date(2027, 1, 31)}),
        ('{id: "no"}', {"id": "no", "schema": "no"}),
        ("{id: Ümläut}", {"id": "Ümläut"}),
    ],
)
def test_tenant(load_text: Load, tmp_path: Path, entry: str, expected: dict[str, Any]) -> None:
    """Isolation and names follow from the keys; files are relative to tenants.yaml, and absolute in the value."""
    (tenant,) = load_text(f"{SERVERS}  - {entry}\n").tenants
    if "file" in expected:
        expected["file"] = str(tmp_path / expected["file"])
    assert {name: getattr(tenant, name) for name in expected} == expected


def test_defaults(load_text: Load) -> None:
    """Defaults hold for a tenant that does not say otherwise, tags too."""
    text = """
    servers: {pg: postgresql://h/d, lite: sqlite:///x}
    defaults: {server: pg, isolation: database, target: tenant@head, tags: [eu]}
    tenants: [a, {id: b, isolation: schema, target: abc, tags: []}, {id: c, server: lite}]
    """
    a, b, c = load_text(text).tenants
    assert (a.isolation, a.database, a.target, a.tags) == (Isolation.DATABASE, "a", "tenant@head", ("eu",))
    assert (b.isolation, b.schema, b.target, b.tags) == (Isolation.SCHEMA, "b", "abc", ())
    assert c.isolation is Isolation.FILE


def test_only_server_is_the_default(load_text: Load) -> None:
    """With one server there is nothing to choose."""
    fleet = load_text("servers: {pg: postgresql://h/d}\ntenants: [a]\nsources: [{schemas: 't_*'}]")
    assert fleet.tenants[0].server == "pg"
    assert fleet.sources == (SchemaSource("t_*", "pg"),)


@pytest.mark.parametrize(
    ("direct", "expected"),
    [
        ("${MAIN_DIRECT_URL:-}", None),
        ("${EMPTY}", None),
        ("", None),
        ("postgresql://direct/app", "postgresql://direct/app"),
        ("${file:direct}", "${file:direct}"),
    ],
)
def test_direct_url(load_text: Load, monkeypatch: pytest.MonkeyPatch, direct: str, expected: str | None) -> None:
    """A direct address that comes out empty is none."""
    monkeypatch.delenv("MAIN_DIRECT_URL", raising=False)
    monkeypatch.setenv("EMPTY", "")
    server = load_text(f"servers: {{m: {{url: 'postgresql://h/d', direct_url: '{direct}'}}}}\ntenants: [a]").servers[
        "m"
    ]
    assert (server.direct_url.text if server.direct_url else None) == expected


def test_server_limits(load_text: Load) -> None:
    """A server's own timeouts, and what holds without them."""
    text = (
        "servers: {m: {url: 'postgresql://h/d', lock_timeout: 100ms, statement_timeout: 10m}, n: 'postgresql://h2/d'}"
    )
    servers = load_text(f"{text}\ndefaults: {{server: m}}\ntenants: [a]").servers
    assert servers["m"].limits == Limits(0.1, 600.0)
    assert (servers["n"].limits, servers["n"].max_concurrency) == (Limits(), 8)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2s", 2), ("100ms", 0.1), ("1h", 3600), ("10m", 600), ("1.5 s", 1.5), ("3", 3), ("0.5", 0.5), ("0", 0)],
)
def test_durations(load_text: Load, text: str, seconds: float) -> None:
    """A number with a unit, or seconds; 0 is no limit."""
    fleet = load_text(f"servers: {{m: 'postgresql://h/d'}}\ntenants: [a]\npolicy: {{lock_timeout: {text}}}")
    assert fleet.policy.limits == Limits(seconds, 3600.0, 60.0)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("0", FailureBudget(0)),
        ("7", FailureBudget(7)),
        ("10%", FailureBudget(None, 10.0)),
        ("0%", FailureBudget(None, 0.0)),
    ],
)
def test_budgets(load_text: Load, text: str, budget: FailureBudget) -> None:
    """Failures as a number of tenants or a percentage."""
    fleet = load_text(f"servers: {{m: 'postgresql://h/d'}}\ntenants: [a]\npolicy: {{max_failures: {text}}}")
    assert fleet.policy.max_failures == budget


def test_waves(load_text: Load) -> None:
    """Whom a wave takes: by tags, patterns, servers, exclusions; how many: percent or count."""
    text = """
    servers: {m: postgresql://h/d}
    tenants: [a]
    waves:
      - {name: one, select: {tags: eu, tenants: ["a*", b], servers: [m], exclude: [c]}, percent: 10%, max_failures: 5%}
      - {name: two, count: 3, max_failures: 1}
    """
    select = Selection(patterns=("a*", "b"), tags=("eu",), servers=("m",), exclude=("c",))
    assert load_text(text).waves == (
        Wave("one", select, percent=10.0, max_failures=FailureBudget(None, 5.0)),
        Wave("two", count=3, max_failures=FailureBudget(1)),
    )


def test_sources_only(load_text: Load) -> None:
    """A fleet may come from sources alone; statements to register and options of entry points are kept."""
    text = """
    servers: {m: postgresql://h/d}
    tenants:
    sources:
      - {sql: SELECT 1, register: "INSERT :id", unregister: "DELETE :id"}
      - {entry_point: crm, options: {region: eu, limit: 5}}
    """
    fleet = load_text(text)
    assert fleet.tenants == ()
    assert fleet.sources == (
        SqlSource("SELECT 1", "m", "INSERT :id", "DELETE :id"),
        EntryPointSource("crm", {"region": "eu", "limit": 5}),
    )


def test_journal_is_kept_and_not_shown(load_text: Load) -> None:
    """The journal's address is a template's text; showing the fleet does not show it."""
    fleet = load_text("servers: {m: postgresql://h/d}\ntenants: [a]\njournal: postgresql://u:geheim@h/journal")
    assert fleet.journal == "postgresql://u:geheim@h/journal"
    assert "geheim" not in repr(fleet)


def test_fleet_shows_no_secret(load_text: Load) -> None:
    """A literal password in tenants.yaml is not in the fleet's repr."""
    fleet = load_text("servers: {m: postgresql://u:geheim@h/d}\ntenants: [{id: a, url: 'postgresql://u:geheim@h2/d'}]")
    assert "geheim" not in repr(fleet)


def test_garbage_collector_runs_again(load_text: Load) -> None:
    """Loading pauses the collector; after success and failure it runs as before."""
    load_text("servers: {m: postgresql://h/d}\ntenants: [a]")
    assert gc.isenabled()
    with pytest.raises(ConfigurationError):
        load_text("tenants: [a]")
    assert gc.isenabled()


def test_byte_order_mark(tmp_path: Path) -> None:
    """An editor's byte order mark does no harm."""
    (tmp_path / "t.yaml").write_bytes(b"\xef\xbb\xbfservers: {m: postgresql://h/d}\ntenants: [a]\n")
    assert [tenant.id for tenant in load(tmp_path / "t.yaml").tenants] == ["a"]


def test_same_names_on_different_servers(load_text: Load) -> None:
    """A target is server, database and schema together."""
    text = """
    servers: {one: postgresql://h1/d, two: postgresql://h2/d, three: "postgresql://h1:5433/d"}
    tenants:
      - {id: a, server: one, schema: s}
      - {id: b, server: two, schema: s}
      - {id: c, server: three, schema: s}
      - {id: d, server: one, schema: s, database: other}
      - {id: e, server: one, isolation: database}
    """
    assert len(load_text(text).tenants) == 5


def test_loading_imports_no_sqlalchemy(tmp_path: Path) -> None:
    """`orchestrator --help` and `tenants list` must not wait for SQLAlchemy and Alembic."""
    (tmp_path / "t.yaml").write_text("servers: {m: postgresql://h/d}\ntenants: [a]\n")
    code = (
        "import sys; from orchestrator.fleet.load import load; load(sys.argv[1]); "
        "sys.exit(bool({'sqlalchemy', 'alembic', 'asyncpg'} & sys.modules.keys()))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert (
        subprocess.run([sys.executable, "-c", code, tmp_path / "t.yaml"], env=environment, check=False).returncode == 0
    )


def test_empty_fleet(tmp_path: Path) -> None:
    """Without tenants there is nothing to migrate; whoever puts the first one in may read it all the same."""
    path = tmp_path / "tenants.yaml"
    path.write_text("servers: {main: postgresql://h/d}\ntenants: []\n")
    with pytest.raises(ConfigurationError, match="the fleet is empty"):
        load(path)
    assert load(path, may_be_empty=True).tenants == ()
