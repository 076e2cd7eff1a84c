"""What an application notices of a migration that has to wait for it, and what an operator is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from orchestrator.actions.execution import Execution, Watch
from orchestrator.fleet.tenant import Limits
from orchestrator.rollout.stop import Stop
from tests.projects import ACCOUNTS, Project, make_project, one, schemas, statuses, tables, until

REVISIONS = {"r1": ACCOUNTS, "r2": 'op.add_column("accounts", sa.Column("name", sa.Text))'}


@pytest.fixture
async def project(tmp_path: Path, database: str) -> Project:
    """One tenant at the first revision; a statement may wait for half a second in the last of four tries."""
    text = schemas(database, "a", policy={"lock_timeout": "500ms", "retries": 3})
    project = make_project(tmp_path, REVISIONS, text)
    await project.upgrade("r1")
    return project


@asynccontextmanager
async def a_report(database: str) -> AsyncIterator[None]:
    """An application that reads for as long as this goes on, in one transaction."""
    connection = await asyncpg.connect(database, server_settings={"application_name": "reports"})
    await connection.execute("BEGIN")
    await connection.fetch("SELECT id, 'a secret' AS text FROM a.accounts WHERE id > 4711")
    try:
        yield
    finally:
        await connection.close()


async def test_readers_wait_no_longer_than_a_try(project: Project, database: str) -> None:
    """While DDL waits behind a report, other readers queue behind the DDL: for one try, never for all of them."""
    reader, waits = await asyncpg.connect(database), []
    async with a_report(database):
        running = asyncio.create_task(project.upgrade())
        while not running.done():
            started = time.monotonic()
            await reader.fetch("SELECT count(*) FROM a.accounts")
            waits.append(time.monotonic() - started)
    await reader.close()

    assert statuses(await running) == {"a": "failed"}
    longest = max(waits)
    # Twice: a replay or a first statement may be followed at once by another. Without a limit it is for ever.
    assert 0.05 < longest < 2 * 0.5 + 0.5
    assert one(await running, "a")["attempts"] == 4


async def test_who_held_the_lock(project: Project, database: str) -> None:
    """A tenant that gives up says who held it up, for how long, and with what, but for the values in it."""
    async with a_report(database):
        result = await project.upgrade()

    error = one(result, "a")["error"]
    assert error["sqlstate"] == "55P03"
    assert "held by pid " in error["message"]
    assert "(reports, for 00:00:0" in error["message"]
    assert "SELECT id, ? AS text FROM a.accounts WHERE id > ?" in error["message"]
    assert error["hint"].endswith("--lock-timeout 10s")
    assert error["revision"] == "r2"


async def test_holders_in_a_schema_of_any_name(tmp_path: Path, database: str) -> None:
    """A name that has to be quoted is no obstacle to that question."""
    name = "Ob\"ke 's"
    text = schemas(database, name, policy={"lock_timeout": "50ms", "retries": 0})
    project = make_project(tmp_path, REVISIONS, text)
    await project.upgrade("r1")
    connection = await asyncpg.connect(database)
    await connection.execute('BEGIN; LOCK TABLE "Ob""ke \'s".accounts')

    error = one(await project.upgrade(), name)["error"]

    await connection.close()
    assert "held by pid " in error["message"]


async def test_a_run_may_wait_longer(project: Project, database: str) -> None:
    """What is asked for on the command line holds over tenants.yaml: this one waits until the report is done."""
    async with a_report(database):
        execution = Execution(limits=Limits(lock_timeout=0))
        running = asyncio.create_task(project.upgrade(execution=execution))
        watcher = await asyncpg.connect(database)
        # For longer than any try of tenants.yaml's would.
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND clock_timestamp() - waitstart > '0.7s'"
        await until(lambda: watcher.fetchval(waiting), bool)
        await watcher.close()

    found = one(await running, "a")
    assert (found["status"], found["attempts"]) == ("succeeded", 1)


async def test_a_running_tenant_is_finished(project: Project, database: str) -> None:
    """Asked to end, a run starts no new tenant; the one that waits for a lock has all of its tries."""
    stop, tries = Stop(), set()
    watcher = await asyncpg.connect(database)

    async def look() -> set[str]:
        rows = await watcher.fetch("SELECT virtualtransaction FROM pg_locks WHERE NOT granted")
        tries.update(row[0] for row in rows)
        return tries

    async with a_report(database):
        running = asyncio.create_task(project.upgrade(watch=Watch(stop=stop)))
        await until(look, bool)
        stop.request()
        await until(look, lambda found: len(found) > 1)
    await watcher.close()

    result = await running
    assert (result.run.status, statuses(result)) == ("interrupted", {"a": "succeeded"})


async def test_idle_in_a_transaction(tmp_path: Path, database: str) -> None:
    """A migration that computes for too long inside its transaction loses it; nothing of it stays."""
    body = ACCOUNTS + "\nimport time\ntime.sleep(0.3)\n" + 'op.execute("SELECT 1")'
    text = schemas(database, "a", policy={"idle_in_transaction_timeout": "100ms", "retries": 0})
    project = make_project(tmp_path, {"r1": body}, text)

    found = one(await project.upgrade(), "a")

    assert found["status"] == "unknown"
    assert found["error"]["revision"] == "r1"
    assert "--idle-in-transaction-timeout" in found["error"]["hint"]
    assert tables(database, "a") == set()
