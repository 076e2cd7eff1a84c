"""What a run asks of its servers before the first tenant: over how many connections, and what is read ahead."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from orchestrator.actions import servers as module
from orchestrator.actions.drift import drift
from orchestrator.actions.servers import opened_servers
from orchestrator.errors import ConfigurationError, DatabaseError
from orchestrator.rollout.inventory import Inventory
from tests.projects import ACCOUNTS, ENV, PROJECTS, Project, make_project
from tests.servers import execute, fetch

VERSIONS = "alembic_version"


@pytest.fixture
def project(tmp_path: Path, database: str) -> Project:
    """Five tenants that a source finds, each with its schema, none with a table."""
    execute(database, ";".join(f"CREATE SCHEMA t{number}" for number in range(5)))
    text = f"{{servers: {{main: '{database}'}}, sources: [{{schemas: 't*', server: main}}]}}"
    return make_project(tmp_path, {"r1": ACCOUNTS}, text)


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[asyncpg.Connection]:
    """Every connection that the driver has opened."""
    opened: list[asyncpg.Connection] = []
    connect = asyncpg.connect

    async def counted(*args: Any, **options: Any) -> asyncpg.Connection:
        opened.append(await connect(*args, **options))
        return opened[-1]

    monkeypatch.setattr(asyncpg, "connect", counted)
    return opened


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], str]]:
    """Whose heads have been read, and from which table."""
    read: list[tuple[list[str], str]] = []
    take = module.take_inventory

    async def noted(tenants: Any, databases: Any, version_table: str) -> Inventory:
        read.append(([tenant.id for tenant in tenants], version_table))
        return await take(tenants, databases, version_table)

    monkeypatch.setattr(module, "take_inventory", noted)
    return read


async def test_nothing_to_do_costs_one_connection(project: Project, connected: list[asyncpg.Connection]) -> None:
    """The source, the heads and the free connections are asked over one connection, however many tenants there are."""
    await project.upgrade()
    connected.clear()

    assert (await project.upgrade()).summary == {"already_current": 5}

    assert len(connected) == 1
    assert connected[0].is_closed()


async def test_connections_end_with_the_command(project: Project, connected: list[asyncpg.Connection]) -> None:
    """What was opened for the run is closed when it is over."""
    assert (await project.upgrade()).satisfied

    assert connected
    assert all(each.is_closed() for each in connected)


async def test_heads_are_read_once(project: Project, readings: list[tuple[list[str], str]]) -> None:
    """What was read ahead is what the plan is made from, for the selected tenants and nobody else."""
    await project.upgrade(tenants=["t1", "t3"])

    assert readings == [(["t1", "t3"], VERSIONS)]


async def test_another_version_table_is_read(
    tmp_path: Path, database: str, readings: list[tuple[list[str], str]]
) -> None:
    """What env.py calls the version table is known only later: its heads are read then, and count."""
    env = ENV.replace("for_each_tenant(migrate)", "for_each_tenant(migrate, version_table='revisions')").replace(
        "version_table_schema=tenant.schema", "version_table_schema=tenant.schema, version_table='revisions'"
    )
    text = f"{{servers: {{main: '{database}'}}, defaults: {{server: main}}, tenants: [a, b]}}"
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": PROJECTS}, text, env)
    # Read from this table, everybody would be done.
    execute(database, f"CREATE SCHEMA a; CREATE TABLE a.{VERSIONS} AS SELECT 'r2' AS version_num")

    assert (await project.upgrade()).summary == {"succeeded": 2}

    assert [table for _, table in readings] == [VERSIONS, "revisions"]
    assert fetch(database, "SELECT version_num FROM a.revisions")[0][0] == "r2"

    execute(database, f"DROP TABLE a.{VERSIONS}")
    (shape,) = (await drift(project.fleet)).shapes
    assert (shape.heads, shape.tenants, shape.difference) == (("r2",), ("a", "b"), ())


async def test_a_broken_directory_is_the_error(project: Project, connected: list[asyncpg.Connection]) -> None:
    """What is wrong with env.py is told although servers were asked meanwhile, and their connections are closed."""
    (project.path / "alembic" / "env.py").write_text("1 / 0", encoding="utf-8")

    with pytest.raises(ConfigurationError, match="ZeroDivisionError"):
        await project.upgrade()

    assert all(each.is_closed() for each in connected)


async def test_a_source_that_cannot_be_read(tmp_path: Path, database: str) -> None:
    """A source's error reaches whoever wants the fleet, and whoever has closed the servers hears nothing more of it."""
    text = f"{{servers: {{main: '{database}'}}, sources: [{{sql: 'SELECT nothing', server: main}}]}}"
    fleet = make_project(tmp_path, {"r1": ACCOUNTS}, text).fleet

    async with opened_servers(fleet, ahead=()) as servers:
        with pytest.raises(DatabaseError, match="nothing"):
            await servers.fleet()


def test_servers_are_asked_without_sqlalchemy() -> None:
    """What `upgrade` and `drift` need to connect and to read is there before SQLAlchemy and Alembic are imported."""
    code = (
        "import sys, orchestrator.cli.upgrade, orchestrator.cli.observing, orchestrator.actions.upgrade,"
        " orchestrator.cli.drift, orchestrator.actions.drift,"
        " orchestrator.fleet.load, orchestrator.databases.postgresql.adapter;"
        " print(sorted({'sqlalchemy', 'alembic', 'asyncpg'} & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout == "['asyncpg']\n"


@pytest.mark.parametrize(
    ("text", "beside"),
    [
        ("{servers: {m: 'postgresql://h/d'}, sources: [{schemas: 't*'}], tenants: [a]}", True),
        ("{servers: {m: 'sqlite:///data'}, tenants: [a]}", False),
        (
            "{servers: {m: 'postgresql://h/d', f: 'sqlite:///x'}, tenants: [{id: a, server: m}, {id: b, server: f}]}",
            False,
        ),
        ("{servers: {m: 'postgresql://h/d'}, sources: [{python: 'os:listdir'}]}", False),
    ],
    ids=["postgresql", "sqlite", "both", "python"],
)
async def test_imports_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, beside: bool) -> None:
    """Two threads never import at once: where reading the fleet may import something, it waits."""
    threads: list[threading.Thread] = []
    monkeypatch.setattr(module, "_import", lambda _: threads.append(threading.current_thread()))
    fleet = make_project(tmp_path, {"r1": ACCOUNTS}, text).fleet

    async with opened_servers(fleet) as servers:
        await servers.imported("anything")

    assert [thread is threading.main_thread() for thread in threads] == [not beside]
