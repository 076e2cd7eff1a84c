"""doctor: what would break a run is found before the run, and nothing is invented."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import orchestrator
from orchestrator.databases import diagnosis
from orchestrator.databases.embedded import EmbeddedServer
from orchestrator.fleet.fleet import Fleet
from tests.projects import ACCOUNTS, Project, files, held, make_project, schemas, waiting_backend, with_role
from tests.servers import SETTINGS, execute
from tests.workspace import Workspace


@pytest.fixture
def project(tmp_path: Path, database: str) -> Project:
    """Two tenants whose schemas are there."""
    execute(database, "CREATE SCHEMA a; CREATE SCHEMA b")
    return make_project(tmp_path, {"r1": ACCOUNTS}, schemas(database, "a", "b"))


async def found(fleet: Fleet, level: str) -> dict[str, Mapping[str, Any]]:
    """Findings of one level, by what was looked at."""
    report = await orchestrator.doctor(fleet)
    return {each["check"]: each for each in report.as_json()["findings"] if each["level"] == level}


@asynccontextmanager
async def session(url: str, *statements: str, name: str = "reports") -> AsyncIterator[asyncpg.Connection]:
    """Somebody else's session."""
    connection = await asyncpg.connect(url, server_settings={"application_name": name})
    for statement in statements:
        await connection.execute(statement)
    try:
        yield connection
    finally:
        await connection.close()


async def test_nothing_stands_against_it(project: Project) -> None:
    """On a healthy server everything was looked at, and nothing is wrong."""
    report = await orchestrator.doctor(project.fleet)

    assert report.healthy, report.as_json()
    checks = {finding.check for finding in report.findings}
    assert checks >= {"directory", "alembic", "journal", "version", "rights", "connections", "lock table", "clock"}


async def test_long_transaction(project: Project, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction that DDL would wait for is a problem; it is named without the values in its query."""
    monkeypatch.setattr(diagnosis, "_LONG", 0)
    async with session(database, "BEGIN", "SELECT 'geheim' AS word, 4711") as other:
        problem = (await found(project.fleet, "problem"))["transactions"]
        assert f"pid {other.get_server_pid()} (reports" in problem["message"]
        assert "SELECT ? AS word, ?" in problem["message"]
        assert "geheim" not in problem["message"]
        assert f"pg_terminate_backend({other.get_server_pid()})" in problem["hint"]
    assert "transactions" not in await found(project.fleet, "problem")


async def test_prepared_transaction(tmp_path: Path) -> None:
    """One that was prepared and forgotten keeps its locks over every restart."""
    with EmbeddedServer.start(settings={**SETTINGS, "max_prepared_transactions": "2"}) as server:
        project = make_project(tmp_path, {"r1": ACCOUNTS}, schemas(server.url, "a"))
        assert (await orchestrator.doctor(project.fleet)).healthy
        execute(server.url, "CREATE TABLE t (); BEGIN; LOCK TABLE t; PREPARE TRANSACTION 'forgotten'")
        problem = (await found(project.fleet, "problem"))["transactions"]
        execute(server.url, "ROLLBACK PREPARED 'forgotten'")
    assert "1 prepared transactions" in problem["message"]


async def test_held_lock(tmp_path: Path, database: str) -> None:
    """A tenant that another process is migrating: who holds its lock, and which run it is."""
    body = 'op.execute("SELECT pg_advisory_xact_lock(77)")\n' + ACCOUNTS
    project = make_project(tmp_path, {"r1": body}, schemas(database, "a"))
    async with held(database, 77) as holder:
        running = asyncio.create_task(project.upgrade())
        (backend,) = await waiting_backend(holder)
        note = (await found(project.fleet, "note"))["locks"]
        assert f"(pid {backend['pid']}, for " in note["message"]
        assert note["message"].startswith("held by orchestrator 20")
    run = (await running).run.id
    assert run in note["message"]
    assert " a " in note["message"]


async def test_rights_that_are_missing(tmp_path: Path, database: str) -> None:
    """A role that may not create in a tenant's schema, and what to grant it; what it may not see is said."""
    execute(database, "DROP ROLE IF EXISTS weak; CREATE ROLE weak LOGIN; CREATE SCHEMA a; CREATE TABLE a.others ()")
    project = make_project(tmp_path, {"r1": ACCOUNTS}, schemas(with_role(database, "weak", "x"), "a"))

    report = await orchestrator.doctor(project.fleet)

    problems = {each.message: each.hint for each in report.findings if each.level == "problem"}
    assert problems["weak may not create in a"] == 'GRANT USAGE, CREATE ON SCHEMA "a" TO "weak"'
    assert any("does not own all tables in a" in message for message in problems)
    assert "cannot be seen" in (await found(project.fleet, "note"))["transactions"]["message"]
    execute(database, 'GRANT USAGE, CREATE ON SCHEMA "a" TO "weak"; ALTER TABLE a.others OWNER TO weak')
    assert "rights" not in await found(project.fleet, "problem")
    execute(database, "DROP OWNED BY weak")


async def test_a_server_that_is_away(tmp_path: Path) -> None:
    """A server that gives no connection is a finding, not an error."""
    text = schemas("postgresql://postgres@127.0.0.1:1/nowhere", "a")
    problems = await found(make_project(tmp_path, {"r1": ACCOUNTS}, text).fleet, "problem")

    assert "127.0.0.1:1" in problems["connection"]["message"]
    assert problems["connection"]["server"] == "main"


async def test_few_connections(project: Project) -> None:
    """Where a quarter of the free connections is less than was asked for, that is said."""
    text = (project.path / "tenants.yaml").read_text().replace("16", "5000")
    (project.path / "tenants.yaml").write_text(text)

    assert "in place of 5000" in (await found(project.fleet, "note"))["connections"]["message"]


async def test_full_lock_table(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock table without room is a problem."""
    monkeypatch.setattr(diagnosis, "_LOCKS", 10**9)

    assert "max_locks_per_transaction" in (await found(project.fleet, "problem"))["lock table"]["hint"]


async def test_journal_that_cannot_be_written(project: Project) -> None:
    """A journal that is no database is a problem, with what to do."""
    (project.path / ".orchestrator").mkdir()
    (project.path / ".orchestrator" / "journal.db").write_text("not a database" * 100)

    assert "not a SQLite database" in (await found(project.fleet, "problem"))["journal"]["message"]


async def test_files(tmp_path: Path) -> None:
    """SQLite files have no server to ask, and are looked at as files."""
    report = await orchestrator.doctor(make_project(tmp_path, {"r1": ACCOUNTS}, files(tmp_path / "data", "a")).fleet)

    assert report.healthy


def test_command(project: Project, database: str) -> None:
    """Exit code 0 or 3; one document with --json; only what matters without -v."""
    workspace = Workspace(project.path)
    healthy = workspace.run("doctor")
    assert (healthy.returncode, "nothing stands against a run" in healthy.stdout) == (0, True), healthy
    assert "ok       main: version: PostgreSQL" in workspace.run("doctor", "-v").stdout

    (project.path / "tenants.yaml").write_text(schemas("postgresql://postgres@127.0.0.1:1/nowhere", "a"))
    broken = workspace.run("doctor", "--json")
    assert (broken.returncode, json.loads(broken.stdout)["healthy"]) == (3, False)
    assert "1 would break a run" in workspace.run("doctor").stdout
    assert workspace.run("doctor", "-t", "nobody").returncode == 2
