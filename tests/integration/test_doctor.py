"""doctor: what would break a run is found before the run, and nothing is invented."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import orchestrator
from orchestrator.databases.embedded import EmbeddedServer
from orchestrator.databases.postgresql import diagnosis
from orchestrator.fleet.fleet import Fleet
from tests.projects import (
    ACCOUNTS,
    Project,
    files,
    held,
    make_project,
    one,
    schemas,
    statuses,
    until,
    waiting_backend,
    with_role,
)
from tests.servers import SETTINGS, PostgresServer, execute, fetch, start_own_server, streaming_standby
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
    # However long it is looked at on a busy machine: the first try of a tenant waits for no lock longer than 0.1 s.
    body = 'op.execute("SET LOCAL lock_timeout = 0")\nop.execute("SELECT pg_advisory_xact_lock(77)")\n' + ACCOUNTS
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
    execute(database, "CREATE SCHEMA b")
    project = make_project(tmp_path, {"r1": ACCOUNTS}, schemas(with_role(database, "weak", "x"), "a", "b"))

    report = await orchestrator.doctor(project.fleet)

    problems = {each.message: each.hint for each in report.findings if each.level == "problem"}
    assert problems["weak may not create in a, b"] == 'GRANT USAGE, CREATE ON SCHEMA "a", "b" TO "weak"'
    assert any("does not own all tables in a" in message for message in problems)
    assert "cannot be seen" in (await found(project.fleet, "note"))["transactions"]["message"]
    execute(database, 'GRANT USAGE, CREATE ON SCHEMA "a", "b" TO "weak"; ALTER TABLE a.others OWNER TO weak')
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
    text = (project.path / "tenants.yaml").read_text().replace('"max_concurrency": 16', '"max_concurrency": 5000')
    (project.path / "tenants.yaml").write_text(text)

    assert "in place of 5000" in (await found(project.fleet, "note"))["connections"]["message"]


async def test_lock_table_without_room_for_the_plan(tmp_path: Path) -> None:
    """What is pending is held against the lock table: a problem exactly where a run then fails for it."""
    # PostgreSQL adds some for processes of its own, and has shared memory to spare: hence as many as 1,500.
    small = {**SETTINGS, "max_locks_per_transaction": "10", "max_connections": "20", "max_worker_processes": "0"}
    with EmbeddedServer.start(settings=small) as server:
        # Each partition in a transaction of its own: there would be no room to make all of them in one.
        execute(server.url, "CREATE SCHEMA a; CREATE TABLE a.events (at int) PARTITION BY RANGE (at)")
        make = "CREATE TABLE a.events_{0} PARTITION OF a.events FOR VALUES FROM ({0}) TO ({0} + 1)"
        connection = await asyncpg.connect(server.url)
        for number in range(1500):
            await connection.execute(make.format(number))
        await connection.close()
        (tmp_path / "before").mkdir()
        harmless = make_project(tmp_path / "before", {"r1": ACCOUNTS}, schemas(server.url, "a"))
        assert (await orchestrator.doctor(harmless.fleet)).healthy, "the table is there, and nobody touches it"
        (tmp_path / "after").mkdir()
        altering = {"r1": ACCOUNTS, "r2": 'op.add_column("events", sa.Column("x", sa.Integer))'}
        project = make_project(tmp_path / "after", altering, schemas(server.url, "a"))

        problem = (await found(project.fleet, "problem"))["lock table"]
        result = await project.upgrade()

        assert "of 200 locks are free; 1 tenants at once may lock 1509 (revision r2 in a: 1509)" in problem["message"]
        assert "set max_locks_per_transaction = 15" in problem["hint"]
        assert one(result, "a")["error"]["sqlstate"] == "53200"
        assert one(result, "a")["to"] == ["r1"]


async def test_lock_table_for_tenants_at_once(tmp_path: Path, make_database: Callable[..., str]) -> None:
    """What is needed is that of the tenants migrated at once, also those with databases of their own."""
    urls = [make_database() for _ in range(2)]
    for url in urls:
        execute(url, "CREATE TABLE accounts (id serial PRIMARY KEY, name text); CREATE INDEX i ON accounts (name)")
    tenants = [
        {"id": url.rpartition("/")[2], "isolation": "database", "database": url.rpartition("/")[2]} for url in urls
    ]
    body = 'op.execute("ALTER TABLE accounts ADD x int")'
    text = json.dumps({"servers": {"main": {"url": urls[0], "max_concurrency": 2}}, "tenants": tenants})
    project = make_project(tmp_path, {"r1": body}, text)

    message = (await found(project.fleet, "ok"))["lock table"]["message"]
    # A table, its two indexes, TOAST with its index; and what every transaction takes.
    assert "2 tenants at once may lock 26" in message, message

    (project.path / "tenants.yaml").write_text(text.replace('"max_concurrency": 2', '"max_concurrency": 1'))
    assert "1 tenants at once may lock 13" in (await found(project.fleet, "ok"))["lock table"]["message"]
    await project.upgrade()
    assert "nothing is pending" in (await found(project.fleet, "ok"))["lock table"]["message"]


async def test_standby(tmp_path: Path) -> None:
    """An address that leads to a standby is a problem with its hint, and so says a run; a late replica is named."""
    with start_own_server().embedded as primary:
        execute(primary.url, "CREATE SCHEMA a")
        project = make_project(tmp_path, {"r1": ACCOUNTS}, schemas(primary.url, "a"))
        with streaming_standby(primary) as standby:
            there = schemas(standby, "a")
            (project.path / "tenants.yaml").write_text(there)
            problem = (await found(project.fleet, "problem"))["standby"]
            assert (problem["server"], "name the primary" in problem["hint"]) == ("main", True)
            assert problem["message"] == "this is a standby, nothing can be written"
            failed = one(await project.upgrade(), "a")
            assert (failed["error"]["sqlstate"], "name the primary" in failed["error"]["hint"]) == ("25006", True)

            (project.path / "tenants.yaml").write_text(schemas(primary.url, "a"))
            connected = await until(lambda: found(project.fleet, "ok"), lambda all: "replicas" in all)
            assert connected["replicas"]["message"] == "1 connected"
            execute(standby, "SELECT pg_wal_replay_pause()")
            execute(primary.url, "CREATE TABLE written AS SELECT generate_series(1, 100000) AS n")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(diagnosis, "_LAG_BYTES", 1_000_000)
                late = await until(lambda: found(project.fleet, "note"), lambda all: "replicas" in all)
            assert late["replicas"]["message"].startswith("replica late is "), late
            assert "replicas" not in await found(project.fleet, "note"), "a few megabytes are no cause for a word"


async def test_synchronous_replica_that_is_away(project: Project, second_pg: PostgresServer) -> None:
    """Where every commit waits for a replica that is not connected, a run would hang."""
    url = second_pg.create_database()
    (project.path / "tenants.yaml").write_text(schemas(url, "a"))
    try:
        execute(url, "ALTER SYSTEM SET synchronous_standby_names = 'gone'")
        execute(url, "SET synchronous_commit = off; SELECT pg_reload_conf()")
        execute(second_pg.url, "SET synchronous_commit = off; ALTER ROLE postgres SET synchronous_commit = on")
        query = "SELECT current_setting('synchronous_standby_names') || current_setting('synchronous_commit')"
        await until(lambda: asyncio.to_thread(fetch, url, query), lambda rows: rows[0][0] == "goneon")
        problem = (await found(project.fleet, "problem"))["replicas"]
        assert "(gone) is connected: every commit would wait" in problem["message"]
    finally:
        execute(url, "SET synchronous_commit = off; ALTER ROLE postgres RESET synchronous_commit")
        execute(url, "ALTER SYSTEM RESET synchronous_standby_names")
        execute(url, "SELECT pg_reload_conf()")
        second_pg.drop_database(url)


async def test_read_only(project: Project, database: str) -> None:
    """A role that may not write by default cannot migrate."""
    name = database.rpartition("/")[2]
    execute(database, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')

    problem = (await found(project.fleet, "problem"))["standby"]

    assert (problem["message"].split()[0], "= off" in problem["hint"]) == ("default_transaction_read_only", True)


async def test_tenants_that_a_run_would_leave_alone(project: Project, database: str) -> None:
    """A tenant with a revision that the directory does not have would be blocked."""
    execute(
        database, "CREATE TABLE b.alembic_version (version_num text); INSERT INTO b.alembic_version VALUES ('gone')"
    )

    problem = (await found(project.fleet, "problem"))["tenants"]

    assert problem["message"] == "unknown_revision, a run would leave it alone: b"
    assert problem["hint"] == "orchestrator plan -t b"


async def test_a_partial_tenant(tmp_path: Path, database: str) -> None:
    """A tenant that an earlier run left half done would be left alone, too."""
    block = """
        with op.get_context().autocommit_block():
            op.execute("CREATE TABLE IF NOT EXISTS inside (id int)")
        op.execute("SELECT 1 / 0")
    """
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": block}, schemas(database, "a"))
    assert statuses(await project.upgrade()) == {"a": "partial"}

    assert (await found(project.fleet, "problem"))["tenants"]["message"] == "partial, a run would leave it alone: a"


async def test_edited_revision(project: Project) -> None:
    """A revision that was edited after tenants were migrated with it would stop a run."""
    await project.upgrade()
    file = project.path / "alembic" / "versions" / "r1.py"
    file.write_text(file.read_text().replace('"accounts"', '"customers"'))

    problem = (await found(project.fleet, "problem"))["revisions"]

    assert problem["message"].startswith("revision r1 was edited after it was applied")
    assert "--accept-edited r1" in problem["hint"]


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
