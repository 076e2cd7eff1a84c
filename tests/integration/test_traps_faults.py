"""Traps of failing, locking and losing the connection in the middle: what stays, and what is tried again."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.actions.execution import Execution
from orchestrator.databases.postgresql.session import lock_key
from orchestrator.fleet.tenant import Limits
from tests.projects import (
    ACCOUNTS,
    ALL,
    ENV,
    PROJECTS,
    files,
    held,
    make_project,
    one,
    schemas,
    statuses,
    tables,
    until,
    waiting_backend,
)
from tests.servers import fetch


async def test_failure_after_an_autocommit_block_is_partial(tmp_path: Path, database: str) -> None:
    """What a block has committed stays while the version does not move: partial, and said so."""
    body = """
        with op.get_context().autocommit_block():
            op.execute("CREATE TABLE inside (id int)")
        op.execute("SELECT 1 / 0")
    """
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": body}, schemas(database, "a"))

    result = await project.upgrade()

    assert statuses(result) == {"a": "partial"}
    found = one(result, "a")
    assert (found["to"], found["error"]["revision"], found["error"]["sqlstate"]) == (["r1"], "r2", "22012")
    assert "outside a transaction" in found["error"]["hint"]
    assert found["attempts"] == 1
    assert tables(database, "a") == {"accounts", "inside", "alembic_version"}


@pytest.mark.parametrize("commit", ['op.execute("COMMIT")', 'op.execute("end;")', "op.get_bind().commit()"])
async def test_failure_after_a_commit_of_its_own_is_partial(tmp_path: Path, database: str, commit: str) -> None:
    """A revision that commits by itself, as was done before autocommit blocks, is partial when it then fails."""
    body = f'op.execute("CREATE TABLE inside (id int)")\n{commit}\nop.execute("SELECT 1 / 0")'
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": body}, schemas(database, "a"))

    result = await project.upgrade()

    assert (statuses(result), one(result, "a")["to"]) == ({"a": "partial"}, ["r1"])
    assert tables(database, "a") == {"accounts", "inside", "alembic_version"}


async def test_failure_in_an_ordinary_revision_after_one_with_a_block_is_failed(tmp_path: Path, database: str) -> None:
    """The block's own revision is through and committed: the next one's failure leaves nothing half done."""
    body = """
        with op.get_context().autocommit_block():
            op.execute("CREATE TABLE inside (id int)")
    """
    project = make_project(tmp_path, {"r1": body, "r2": 'op.execute("SELECT 1 / 0")'}, schemas(database, "a"))

    result = await project.upgrade()

    assert statuses(result) == {"a": "failed"}
    assert one(result, "a")["to"] == ["r1"]


async def test_failure_after_a_block_in_one_transaction_for_all_is_partial(tmp_path: Path, database: str) -> None:
    """Without transaction_per_migration a block's own version is rolled back with the next revision's: partial."""
    body = """
        with op.get_context().autocommit_block():
            op.execute("CREATE TABLE inside (id int)")
    """
    env = ENV.replace(", transaction_per_migration=True", "")
    revisions = {"r1": ACCOUNTS, "r2": body, "r3": 'op.execute("SELECT 1 / 0")'}
    project = make_project(tmp_path, revisions, schemas(database, "a"), env)

    result = await project.upgrade()

    assert (one(result, "a")["to"], tables(database, "a")) == (["r1"], {"accounts", "inside", "alembic_version"})
    assert statuses(result) == {"a": "partial"}


async def test_system_exit_in_a_migration(tmp_path: Path, database: str) -> None:
    """sys.exit() in a revision fails its tenant and nobody else."""
    body = f"""
        if op.get_bind().exec_driver_sql("SELECT current_schema()").scalar() == "b":
            raise SystemExit("no more")
        {ACCOUNTS}
    """
    project = make_project(tmp_path, {"r1": body}, schemas(database, "a", "b", "c"))

    result = await project.upgrade(execution=ALL)

    assert statuses(result) == {"a": "succeeded", "b": "failed", "c": "succeeded"}
    assert (one(result, "b")["error"]["type"], one(result, "b")["error"]["message"]) == ("SystemExit", "no more")


async def test_sqlite_rolls_ddl_back(tmp_path: Path) -> None:
    """A failing revision leaves nothing of itself in a SQLite file either."""
    body = ACCOUNTS + '\nop.execute("SELECT * FROM nowhere")'
    project = make_project(tmp_path, {"r1": PROJECTS, "r2": body}, files(tmp_path / "data", "a"))

    result = await project.upgrade()

    assert (statuses(result), one(result, "a")["to"]) == ({"a": "failed"}, ["r1"])
    with closing(sqlite3.connect(tmp_path / "data" / "a.db")) as connection:
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert names == {"projects", "alembic_version"}


async def test_tenant_held_by_another_session(tmp_path: Path, database: str) -> None:
    """A second run waits for the tenant's lock, gives up, touches nothing and says who holds it."""
    body = 'op.execute("SELECT pg_advisory_xact_lock(77)")\n' + ACCOUNTS
    project = make_project(tmp_path, {"r1": body}, schemas(database, "a", "b"))
    await project.upgrade("base")

    async with held(database, 77) as holder:
        # One long wait: between the short ones of the ladder the tenant's lock is free.
        patient = Execution(limits=Limits(lock_timeout=0))
        first = asyncio.create_task(project.upgrade(tenants=["a"], execution=patient))
        (backend,) = await waiting_backend(holder)
        second = await project.upgrade(tenants=["a"], execution=Execution(lock_wait=0.1))
        assert tables(database, "a") == set()

    assert statuses(second) == {"a": "locked"}
    message = one(second, "a")["error"]["message"]
    assert f"pid {backend['pid']}" in message
    assert "orchestrator" in message
    assert statuses(await first) == {"a": "succeeded"}
    # The lock went with its session.
    assert statuses(await project.upgrade()) == {"a": "already_current", "b": "succeeded"}


async def test_lock_freed_in_time(tmp_path: Path, database: str) -> None:
    """A run that waits for a tenant's lock goes on by itself once it is free, and finds the work done."""
    body = 'op.execute("SELECT pg_advisory_xact_lock(77)")\n' + ACCOUNTS
    project = make_project(tmp_path, {"r1": body}, schemas(database, "a"))

    async with held(database, 77) as holder:
        first = asyncio.create_task(project.upgrade())
        await waiting_backend(holder)
        second = asyncio.create_task(project.upgrade())

    assert statuses(await first) == {"a": "succeeded"}
    assert statuses(await second) == {"a": "already_current"}


async def test_backend_lost_in_mid_run_is_retried(tmp_path: Path, database: str) -> None:
    """pg_terminate_backend in the middle: tried again, ends at head, no revision has run twice."""
    log = "op.execute(\"INSERT INTO log VALUES ('{}')\")"
    revisions = {
        "r1": 'op.execute("CREATE TABLE log (revision text)")\n' + log.format("r1"),
        "r2": log.format("r2") + '\nop.execute("SELECT pg_advisory_xact_lock(77)")',
        "r3": log.format("r3"),
    }
    project = make_project(tmp_path, revisions, schemas(database, "a"))

    async with held(database, 77) as holder:
        running = asyncio.create_task(project.upgrade())
        (backend,) = await waiting_backend(holder)
        await holder.execute(f"SELECT pg_terminate_backend({backend['pid']}, 10000)")
    result = await running

    found = one(result, "a")
    assert (found["status"], found["from"], found["to"], found["attempts"]) == ("succeeded", [], ["r3"], 2)
    assert found["error"] is None
    assert [row[0] for row in fetch(database, "SELECT revision FROM a.log ORDER BY 1")] == ["r1", "r2", "r3"]


async def test_backend_lost_in_an_autocommit_block_is_not_retried(tmp_path: Path, database: str) -> None:
    """What a block had done when the connection was lost stays: partial, and not run a second time."""
    body = """
        with op.get_context().autocommit_block():
            op.execute("CREATE TABLE inside (id int)")
            op.execute("SELECT pg_advisory_xact_lock(77)")
    """
    project = make_project(tmp_path, {"r1": body}, schemas(database, "a"))

    async with held(database, 77) as holder:
        running = asyncio.create_task(project.upgrade())
        (backend,) = await waiting_backend(holder)
        await holder.execute(f"SELECT pg_terminate_backend({backend['pid']}, 10000)")
    result = await running

    assert statuses(result) == {"a": "partial"}
    assert one(result, "a")["attempts"] == 1


async def test_lock_timeout_is_retried(tmp_path: Path, database: str) -> None:
    """A statement that meets a lock held by the application is tried again after lock_timeout."""
    project = make_project(
        tmp_path,
        {"r1": ACCOUNTS, "r2": 'op.execute("ALTER TABLE accounts ADD COLUMN name text")'},
        schemas(database, "a", policy={"lock_timeout": "50ms"}),
    )
    await project.upgrade("r1")

    async with held(database, 1) as application:
        transaction = application.transaction()
        await transaction.start()
        await application.execute("LOCK TABLE a.accounts")
        running = asyncio.create_task(project.upgrade())
        waiting: set[str] = set()

        async def look() -> set[str]:
            rows = await application.fetch(
                "SELECT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND NOT granted"
            )
            waiting.update(row[0] for row in rows)
            return waiting

        # Each attempt has a transaction of its own.
        await until(look, lambda transactions: len(transactions) > 1)
        await transaction.rollback()

    found = one(await running, "a")
    assert found["status"] == "succeeded"
    assert found["attempts"] > 1


async def test_somebody_else_between_two_tries(tmp_path: Path, database: str) -> None:
    """A tenant that another orchestrator migrated between two tries of this one is not claimed to be its work."""
    project = make_project(
        tmp_path,
        {"r1": ACCOUNTS, "r2": 'op.execute("ALTER TABLE accounts ADD COLUMN name text")'},
        schemas(database, "a", policy={"lock_timeout": "50ms"}),
    )
    await project.upgrade("r1")
    key = lock_key(database.rpartition("/")[2], "a")

    async with held(database, 1) as other:
        await other.execute("BEGIN; LOCK TABLE a.accounts")
        running = asyncio.create_task(project.upgrade())
        blocked = "SELECT count(*) FROM pg_locks WHERE locktype = 'relation' AND NOT granted"
        await until(lambda: other.fetchval(blocked), bool)
        # Between two tries the tenant's lock is free, and with it whatever else they wait for.
        await until(lambda: other.fetchval("SELECT pg_try_advisory_lock($1)", key), bool)
        await other.execute(
            "ALTER TABLE a.accounts ADD COLUMN name text; UPDATE a.alembic_version SET version_num = 'r2'"
        )
        await other.execute("COMMIT")
        await other.execute("SELECT pg_advisory_unlock_all()")
        result = await running

    assert statuses(result) == {"a": "already_current"}
    assert one(result, "a")["attempts"] > 1
