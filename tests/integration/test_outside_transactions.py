"""What a revision does outside any transaction is journaled first, and is never done twice without being told to."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest

import orchestrator
from orchestrator.actions.execution import Execution
from orchestrator.actions.journals import opened_journal
from orchestrator.journal import journal
from orchestrator.journal.records import StepRecord
from tests.projects import (
    ACCOUNTS,
    ALL,
    ENV,
    Project,
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
from tests.servers import execute, fetch

GATE = 42
#: Fails after its block on tenant `a` alone, for as long as that has no row in `accounts`.
FRAGILE = """
    with op.get_context().autocommit_block():
        op.execute("CREATE TABLE IF NOT EXISTS inside (id int)")
    op.execute("SELECT 1 / (SELECT count(*) + (current_schema() <> 'a')::int FROM accounts)")
"""
RETRY = Execution(retry_partial=True)
INVALID = "SELECT c.relname FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE NOT indisvalid ORDER BY 1"


async def open_steps(project: Project) -> list[StepRecord]:
    """What the journal on disk says is not through."""
    async with opened_journal(project.fleet, read_only=True) as found:
        return [step for step, _ in await found.open_steps()]


def changed(project: Project, sql: str) -> None:
    """Change the journal behind its back."""
    with closing(sqlite3.connect(project.path / ".orchestrator" / "journal.db", isolation_level=None)) as file:
        file.execute(sql)


async def test_on_disk_before_the_step(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process reads what is under way while the statement runs, and that it was under way is no fault."""
    # Nothing gets there by the way, with what is written now and then.
    monkeypatch.setattr(journal, "FLUSH_INTERVAL", 1000)
    # However long it is looked at on a busy machine: the first try of a tenant waits for no lock longer than 0.1 s.
    body = (
        'with op.get_context().autocommit_block():\n    op.execute("SET lock_timeout = 0")'
        '\n    op.execute("SELECT pg_advisory_xact_lock(42)")'
    )
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": body}, schemas(database, "a"))
    async with held(database, GATE) as gate:
        running = asyncio.create_task(project.upgrade())
        await waiting_backend(gate)
        (step,) = await open_steps(project)
        status = await orchestrator.status(project.fleet)
    assert (step.revision, step.heads, step.current) == ("r2", (("r1",),), "SELECT pg_advisory_xact_lock(42)")
    assert status.summary == {"behind": 1}
    assert statuses(await running) == {"a": "succeeded"}
    assert await open_steps(project) == []


async def test_a_failure_names_what_stayed_and_is_not_run_again(tmp_path: Path, database: str) -> None:
    """Upgrade and resume leave the tenant alone, without using up the budget; a later tenant is migrated."""
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": FRAGILE}, schemas(database, "a", "b"))
    first = await project.upgrade(execution=Execution(jobs=1))
    hint = one(first, "a")["error"]["hint"]
    assert "this had gone through and stays: CREATE TABLE IF NOT EXISTS inside (id int)" in hint
    assert "orchestrator stamp r2 -t a" in hint
    execute(database, "INSERT INTO a.accounts VALUES (1)")

    assert statuses(await project.upgrade()) == {"a": "partial", "b": "succeeded"}
    assert statuses(await orchestrator.resume(project.fleet, first.run.id)) == {
        "a": "partial",
        "b": "already_current",
    }
    assert statuses(await orchestrator.downgrade(project.fleet, "base", tenants=["a"])) == {"a": "partial"}
    assert statuses(await project.upgrade(execution=RETRY)) == {"a": "succeeded", "b": "already_current"}


async def test_refused_under_the_lock(tmp_path: Path, database: str) -> None:
    """A run that was planned before another one was cut off finds out before it does the same once more."""
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": FRAGILE}, schemas(database, "a", policy={"retries": 0}))
    await project.upgrade("r1")
    async with held(database, GATE) as gate:
        # The tenant's own lock: the second run has its plan and waits for it.
        key = await _lock_key(database)
        await gate.execute(f"SELECT pg_advisory_lock({key})")
        second = asyncio.create_task(project.upgrade())
        await until(lambda: _tries_for_the_lock(gate), bool)
        # Somebody else's run, cut off under the lock.
        other = make_step("a", "r2", ("r1",))
        async with opened_journal(project.fleet) as theirs:
            theirs.record_step(other)
        await gate.execute(f"SELECT pg_advisory_unlock({key})")
    result = await second
    assert statuses(result) == {"a": "partial"}
    assert "run elsewhere was cut off in revision r2" in one(result, "a")["error"]["message"]
    assert tables(database, "a") == {"accounts", "alembic_version"}


async def _lock_key(database: str) -> int:
    from orchestrator.databases.postgresql.session import lock_key

    return lock_key(database.rpartition("/")[2], "a")


async def _tries_for_the_lock(observer: asyncpg.Connection) -> bool:
    query = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_try_advisory_lock%' AND pid <> pg_backend_pid()"
    return bool(await observer.fetch(query))


def make_step(tenant: str, revision: str, heads: tuple[str, ...]) -> StepRecord:
    """A step that another process began and never ended."""
    from datetime import UTC, datetime

    return StepRecord(tenant, "elsewhere", revision, "upgrade", (heads,), datetime.now(UTC), current="CREATE X")


async def test_heads_at_the_end_prove_that_it_is_done(tmp_path: Path, database: str) -> None:
    """Killed between the commit and the note of it: the version table says that the step is through."""
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": FRAGILE}, schemas(database, "b"))
    await project.upgrade()
    changed(project, "UPDATE orchestrator_steps SET done_at = NULL")
    report = await orchestrator.status(project.fleet)
    assert report.summary == {"current": 1}
    assert statuses(await project.upgrade()) == {"b": "already_current"}
    assert await open_steps(project) == []


async def test_one_transaction_for_all(tmp_path: Path, database: str) -> None:
    """A block's own version may be rolled back with a later revision's: partial where it stood before the block."""
    block = 'with op.get_context().autocommit_block():\n    op.execute("CREATE TABLE {} (id int)")'
    revisions = {"r1": ACCOUNTS, "r2": block.format("two"), "r3": block.format("three"), "r4": "op.execute('oops')"}
    env = ENV.replace(", transaction_per_migration=True", "")
    project = make_project(tmp_path, revisions, schemas(database, "a"), env)
    result = await project.upgrade()
    assert (one(result, "a")["status"], one(result, "a")["to"]) == ("partial", ["r2"])
    (step,) = await open_steps(project)
    assert (step.revision, step.heads) == ("r3", (("r1",), ("r2",)))
    assert "CREATE TABLE two (id int); CREATE TABLE three (id int)" in one(result, "a")["error"]["hint"]
    assert statuses(await project.upgrade()) == {"a": "partial"}


@pytest.mark.parametrize(
    "leave", ['op.execute("/* now */ COMMIT")', 'op.execute("ROLLBACK")', "op.get_bind().commit()"]
)
async def test_transactions_ended_by_hand(tmp_path: Path, database: str, leave: str) -> None:
    """COMMIT and ROLLBACK as SQL: what follows stays, statement by statement, and is named."""
    again = "" if "op.execute" in leave else "\nop.get_bind().commit()"
    body = f'{leave}\nop.execute("CREATE TABLE inside (id int)"){again}\nop.execute("SELECT 1 / 0")'
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": body}, schemas(database, "a"))
    result = await project.upgrade()
    assert statuses(result) == {"a": "partial"}
    assert "stays: CREATE TABLE inside (id int)" in one(result, "a")["error"]["hint"]
    assert tables(database, "a") == {"accounts", "inside", "alembic_version"}
    assert statuses(await project.upgrade()) == {"a": "partial"}


async def test_sqlite(tmp_path: Path) -> None:
    """The same for a file: VACUUM and whatever else leaves the transaction."""
    body = """
        op.execute("CREATE TABLE before_block (id int)")
        with op.get_context().autocommit_block():
            op.execute("VACUUM")
            op.execute("CREATE TABLE before_block (id int)")
    """
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": body}, files(tmp_path, "a", "b"))
    result = await project.upgrade(execution=ALL)
    assert statuses(result) == {"a": "partial", "b": "partial"}
    assert "stays: CREATE TABLE before_block (id int); VACUUM" in one(result, "a")["error"]["hint"]
    assert statuses(await project.upgrade()) == {"a": "partial", "b": "partial"}
    for tenant in "ab":
        with closing(sqlite3.connect(tmp_path / f"{tenant}.db")) as file:
            file.execute("DROP TABLE before_block")
            file.commit()
    assert statuses(await orchestrator.stamp(project.fleet, "r2", everyone=True)) == {
        "a": "succeeded",
        "b": "succeeded",
    }


async def test_not_without_the_journal(tmp_path: Path, database: str) -> None:
    """A journal that cannot be written keeps the step from being taken; what came before it is rolled back."""
    body = '    op.execute("SELECT pg_advisory_xact_lock(42)")' + FRAGILE
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": body}, schemas(database, "b"))
    async with held(database, GATE) as gate:
        running = asyncio.create_task(project.upgrade())
        await waiting_backend(gate)
        # The run's own event loop may be in the middle of a batch, and has to end it first.
        await asyncio.to_thread(changed, project, "DROP TABLE orchestrator_steps")
    result = await running
    found = one(result, "b")
    assert (found["status"], found["to"], found["error"]["type"]) == ("failed", ["r1"], "JournalError")
    assert tables(database, "b") == {"accounts", "alembic_version"}


async def test_transactional_revisions_cost_nothing(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for the journal, and the database is not asked for invalid indexes."""
    from orchestrator.databases.postgresql.session import PostgreSQLSession
    from orchestrator.rollout.steps import Steps

    called: list[str] = []
    monkeypatch.setattr(Steps, "_refuse_again", lambda *_: called.append("journal"))
    monkeypatch.setattr(PostgreSQLSession, "invalid_indexes", lambda *_: called.append("indexes"))
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": "op.execute('SELECT 1')"}, schemas(database, "a", "b", "c"))
    assert set(statuses(await project.upgrade()).values()) == {"succeeded"}
    assert (called, await open_steps(project)) == ([], [])


#: A unique index over rows that are the same, beside one that was invalid before.
NOTES = "op.execute(\"CREATE TABLE notes AS SELECT 'same' AS body FROM generate_series(1, 2)\")"
INDEX = """
with op.get_context().autocommit_block():
    op.execute("CREATE UNIQUE INDEX CONCURRENTLY {name} ON notes (body)")
"""


async def left_invalid(database: str, name: str) -> None:
    """An index that somebody failed to make before."""
    connection = await asyncpg.connect(database)
    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute(f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON a.notes (body)")
    await connection.close()


async def test_only_new_invalid_indexes_are_named(tmp_path: Path, database: str) -> None:
    """Also after a failed attempt; what was there before is not this attempt's."""
    revisions = {"r1": NOTES, "r2": INDEX.format(name="uq_new")}
    project = make_project(tmp_path, revisions, schemas(database, "a"))
    await project.upgrade("r1")
    await left_invalid(database, "uq_old")
    hint = one(await project.upgrade(), "a")["error"]["hint"]
    assert [row[0] for row in fetch(database, INVALID)] == ["uq_new", "uq_old"]
    assert "to be dropped or reindexed first: uq_new;" in hint


async def test_an_invalid_index_of_old_is_no_failure(tmp_path: Path, database: str) -> None:
    """It was there before, and the revision has nothing to do with it."""
    block = 'with op.get_context().autocommit_block():\n    op.execute("CREATE TABLE other (id int)")'
    project = make_project(tmp_path, {"r1": NOTES, "r2": block}, schemas(database, "a"))
    await project.upgrade("r1")
    await left_invalid(database, "uq_old")
    assert statuses(await project.upgrade()) == {"a": "succeeded"}


async def test_an_index_that_replaces_an_invalid_one_is_new(tmp_path: Path, database: str) -> None:
    """Dropped and made again under the same name, and invalid again; its name stands in no statement as it is."""
    body = r"""
with op.get_context().autocommit_block():
    op.execute(r'DROP INDEX CONCURRENTLY U&"\0075\0071"')
    try:
        op.execute(r'CREATE UNIQUE INDEX CONCURRENTLY U&"\0075\0071" ON notes (body)')
    except sa.exc.IntegrityError:
        pass
"""
    project = make_project(tmp_path, {"r1": NOTES, "r2": body}, schemas(database, "a"))
    await project.upgrade("r1")
    await left_invalid(database, "uq")
    result = await project.upgrade()
    assert (one(result, "a")["status"], one(result, "a")["error"]["type"]) == ("partial", "invalid_index")


async def test_an_invalid_index_behind_a_later_failure(tmp_path: Path, database: str) -> None:
    """The revision that left it swallowed the error; the attempt then fails elsewhere, in an ordinary transaction."""
    swallowing = INDEX.format(name="uq").replace("    op.execute", "    try:\n        op.execute")
    swallowing += "    except sa.exc.IntegrityError:\n        pass\n"
    revisions = {"r1": NOTES, "r2": swallowing, "r3": 'op.execute("SELECT 1 / 0")'}
    project = make_project(tmp_path, revisions, schemas(database, "a"))
    found = one(await project.upgrade(), "a")
    assert (found["status"], found["to"], found["error"]["type"]) == ("partial", ["r2"], "invalid_index")
    assert "uq; then r3 failed" in found["error"]["message"]


async def test_an_invalid_index_of_a_lost_connection(tmp_path: Path, database: str) -> None:
    """The attempt could not look any more; the next command does."""
    body = """
with op.get_context().autocommit_block():
    try:
        op.execute("CREATE UNIQUE INDEX CONCURRENTLY uq ON notes (body)")
    except sa.exc.IntegrityError:
        pass
    op.execute("SELECT pg_advisory_xact_lock(42)")
"""
    project = make_project(tmp_path, {"r1": NOTES, "r2": body}, schemas(database, "a"))
    async with held(database, GATE) as gate:
        running = asyncio.create_task(project.upgrade())
        (backend,) = await waiting_backend(gate)
        await gate.execute(f"SELECT pg_terminate_backend({backend['pid']}, 10000)")
    assert statuses(await running) == {"a": "partial"}
    (tenant,) = (await orchestrator.status(project.fleet)).as_json()["tenants"]
    assert tenant["state"] == "partial"
    assert tenant["error"]["hint"].startswith("invalid now, and to be dropped or reindexed first: uq;")
