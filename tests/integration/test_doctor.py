"""doctor, as it is typed and as it is awaited: what would break a run, and exit code 3 for it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

import orchestrator
from orchestrator.actions.doctor import Checkup
from orchestrator.fleet.fleet import Fleet
from tests.command_line import FIRST, SECOND, THIRD, Project, assert_error
from tests.projects import ACCOUNTS, files, held, make_project, schemas, waiting_backend, with_role
from tests.servers import PostgresServer, execute

FIELDS = {"check", "server", "level", "message", "hint", "tenants", "measured"}


def found(checkup: Checkup, check: str) -> list[tuple[str | None, str, tuple[str, ...]]]:
    """Server, level and tenants of every finding of one kind."""
    return [(each.server, each.level.value, each.tenants) for each in checkup.findings if each.check == check]


def test_healthy(project: Project) -> None:
    """Exit code 0, one line for people, and a document with every field for scripts."""
    project.fleet("acme", "globex")
    document = project.json("doctor")
    assert document["healthy"] is True
    assert document["summary"] == {"ok": len(document["findings"]), "note": 0, "problem": 0}, document
    assert all(finding.keys() == FIELDS for finding in document["findings"])
    assert {finding["server"] for finding in document["findings"]} == {"main", None}
    shown = project.run("doctor")
    assert (shown.returncode, shown.stderr) == (0, "")
    count = len(document["findings"])
    assert shown.stdout == f"a run has what it needs: {count} ok, notes: 0, problems: 0\n"
    assert not project.journal.exists()


async def test_problems(project: Project) -> None:
    """A server that is away and a tenant with an unknown revision: exit code 3, a line each, the others are seen."""
    project.fleet("acme", "globex", "{id: away, url: 'postgresql://nobody@127.0.0.1:1/app'}")
    project.execute("CREATE TABLE globex.alembic_version (version_num text)")
    project.execute("INSERT INTO globex.alembic_version VALUES ('ffffffffffff')")

    shown = project.run("doctor")

    assert shown.returncode == 3, shown
    lines = shown.stdout.splitlines()
    assert lines[0].startswith("problem  tenants: unknown_revision: globex")
    assert any(line.startswith("problem  away: reachable: no connection to postgresql://nobody@") for line in lines)
    assert lines[-1].endswith("problems: 2")
    assert project.run("doctor", "--server", "main", "--exclude", "globex").returncode == 0
    fleet = orchestrator.load(project.workspace.path / "tenants.yaml")
    assert (await orchestrator.doctor(fleet, tenants=["acme"])).healthy
    assert found(await orchestrator.doctor(fleet, tenants=["globex"]), "tenants") == [(None, "problem", ("globex",))]
    with pytest.raises(orchestrator.OrchestratorError, match="no tenant matches 'acne'"):
        await orchestrator.doctor(fleet, tenants=["acne"])


def test_wrong_configuration(project: Project) -> None:
    """What cannot be read is exit code 2, as everywhere."""
    project.workspace.write("tenants.yaml", "servers: {main: {urk: 1}}\n")
    assert_error(project.run("doctor"), "tenants.yaml:1")


async def test_source_that_cannot_be_read(project: Project) -> None:
    """Where a source's server is away, doctor says so and looks at what is written down."""
    project.fleet("acme", more='sources:\n  - {schemas: "x_*", server: main}\n')
    fleet = orchestrator.load(project.workspace.path / "tenants.yaml")
    assert (await orchestrator.doctor(fleet)).healthy
    text = (project.workspace.path / "tenants.yaml").read_text()
    away = text.replace("defaults:", '  away: {url: "postgresql://nobody@127.0.0.1:1/app"}\ndefaults:')
    project.workspace.write("tenants.yaml", away.replace('"x_*", server: main', '"x_*", server: away'))

    checkup = await orchestrator.doctor(orchestrator.load(project.workspace.path / "tenants.yaml"))

    assert found(checkup, "sources") == [(None, "problem", ())]
    assert [level for _, level, _ in found(checkup, "reachable")] == ["ok", "problem"]


async def test_directory_with_two_heads(project: Project) -> None:
    """Two heads are a note that names them."""
    project.fleet("acme")
    project.revision("d4d4d4d4d4d4", SECOND)

    checkup = await orchestrator.doctor(orchestrator.load(project.workspace.path / "tenants.yaml"))

    assert found(checkup, "directory") == [(None, "note", ())]
    (finding,) = [each for each in checkup.findings if each.check == "directory"]
    assert finding.measured["heads"] == [THIRD, "d4d4d4d4d4d4"]
    assert FIRST not in finding.message


async def test_run_under_way(tmp_path: Path, database: str) -> None:
    """While a run is at work on a tenant, doctor names the run, as its document and the journal do."""
    slow = 'op.execute("SELECT pg_advisory_xact_lock(1)")'
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": slow}, schemas(database, "a", "b"))
    execute(database, "CREATE SCHEMA a; CREATE SCHEMA b")
    async with held(database, 1) as holder:
        running = asyncio.create_task(project.upgrade(tenants=["a"]))
        await waiting_backend(holder)
        checkup = await orchestrator.doctor(project.fleet)
        await holder.execute("SELECT pg_advisory_unlock(1)")
    result = await running

    (finding,) = [each for each in checkup.findings if each.check == "locks"]
    assert (finding.level.value, finding.tenants) == ("note", ("a",))
    assert finding.measured["run"] == result.as_json()["run"]


@pytest.mark.parametrize("place", ["sqlite:////dev/null/journal.db", "{role}"])
async def test_journal_that_cannot_be_written(tmp_path: Path, pg: PostgresServer, database: str, place: str) -> None:
    """A journal that could not be made or written is a problem; the look leaves nothing there."""
    execute(pg.url, "DROP ROLE IF EXISTS orc_test_reader; CREATE ROLE orc_test_reader LOGIN PASSWORD 'secret'")
    execute(database, "REVOKE CREATE ON SCHEMA public FROM public")
    address = place.format(role=with_role(database, "orc_test_reader", "secret"))
    project = make_project(tmp_path, {"r1": ACCOUNTS}, files(tmp_path, "a"))
    own = project.fleet

    def with_journal(text: str) -> Fleet:
        return replace(own, journal=text)

    assert found(await orchestrator.doctor(with_journal(address)), "journal") == [(None, "problem", ())]
    good = with_journal(database)
    assert found(await orchestrator.doctor(good), "journal") == [(None, "ok", ())]
    connection = await asyncpg.connect(database)
    try:
        assert await connection.fetch("SELECT FROM pg_class WHERE relname LIKE 'orchestrator%'") == []
        await orchestrator.upgrade(good, provision=True)
        assert found(await orchestrator.doctor(good), "journal") == [(None, "ok", ())]
        runs = await connection.fetchval("SELECT count(*) FROM orchestrator_runs")
        assert runs == 1
        if "role" in place:
            await connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO orc_test_reader")
            assert found(await orchestrator.doctor(with_journal(address)), "journal") == [(None, "problem", ())]
            await connection.execute("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM orc_test_reader")
    finally:
        await connection.close()
    execute(pg.url, "DROP ROLE orc_test_reader")
