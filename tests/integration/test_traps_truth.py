"""Success is reported only where it is so: what a second look at the tenant has to find."""

from __future__ import annotations

import json
from pathlib import Path

import asyncpg

import orchestrator
from orchestrator.actions.project import migrating, opened_project
from orchestrator.fleet.tenant import Limits
from orchestrator.migration.abroad import Watched
from orchestrator.migration.attempt import Migrator
from orchestrator.migration.work import Work
from tests.projects import ACCOUNTS, ENV, make_project, one, schemas, statuses, tables
from tests.servers import execute, fetch

#: Fails as long as the database has no table public.mended.
FRAGILE = 'op.execute("SELECT 1 FROM public.mended")'
UNIQUE = """
    with op.get_context().autocommit_block():
        op.execute("CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS uq ON notes (body)")
"""
NOTES = """
    op.create_table("notes", sa.Column("body", sa.Text))
    op.execute("INSERT INTO notes VALUES ('same'), ('same')")
"""


async def test_a_relative_upgrade_is_counted_once(tmp_path: Path, database: str) -> None:
    """+2 that failed half-way and is resumed ends where it was meant to, not two revisions after where it stopped."""
    revisions = {"r1": ACCOUNTS, "r2": "", "r3": FRAGILE, "r4": ""}
    project = make_project(tmp_path, revisions, schemas(database, "a"))
    await project.upgrade("r1")
    assert statuses(await project.upgrade("+2")) == {"a": "failed"}
    execute(database, "CREATE TABLE public.mended ()")

    result = await orchestrator.resume(project.fleet)

    assert (statuses(result), one(result, "a")["to"]) == ({"a": "succeeded"}, ["r3"])


async def test_an_invalid_index_is_no_success(tmp_path: Path, database: str) -> None:
    """IF NOT EXISTS finds the invalid index that the first try left, and PostgreSQL calls that done."""
    project = make_project(tmp_path, {"r1": NOTES, "r2": UNIQUE}, schemas(database, "a"))
    assert statuses(await project.upgrade()) == {"a": "partial"}

    retry = orchestrator.Execution(retry_partial=True)
    again = await orchestrator.resume(project.fleet, execution=retry)
    third = await orchestrator.resume(project.fleet, execution=retry)

    assert statuses(again) == statuses(third) == {"a": "partial"}
    assert "REINDEX INDEX CONCURRENTLY uq" in one(third, "a")["error"]["hint"]

    execute(database, "DELETE FROM a.notes")
    await reindexed(database, "a.uq")
    assert statuses(await orchestrator.resume(project.fleet)) == {"a": "already_current"}


async def reindexed(database: str, index: str) -> None:
    """What the hint says to do."""
    connection = await asyncpg.connect(database)
    await connection.execute(f"REINDEX INDEX CONCURRENTLY {index}")
    await connection.close()


async def test_an_error_that_env_py_swallows_is_no_success(tmp_path: Path, database: str) -> None:
    """The revisions before it are committed, and the target is not reached."""
    swallowing = ENV.replace(
        "    with context.begin_transaction():\n        context.run_migrations()\n",
        "    try:\n        with context.begin_transaction():\n            context.run_migrations()\n"
        "    except Exception:\n        pass\n",
    )
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": FRAGILE}, schemas(database, "a"), swallowing)

    result = await project.upgrade()

    found = one(result, "a")
    assert (found["status"], found["to"], found["error"]["type"]) == ("failed", ["r1"], "not_finished")


async def test_heads_that_cannot_be_read_are_not_base(tmp_path: Path, database: str) -> None:
    """A version table that is locked says nothing: a downgrade to base must not take it for done."""
    fast = {"lock_timeout": "100ms", "retries": 0}
    project = make_project(tmp_path, {"r1": ACCOUNTS}, schemas(database, "a", policy=fast))
    await project.upgrade()
    locker = await asyncpg.connect(database)
    async with opened_project(project.fleet) as opened:
        migrator = Migrator(opened.fleet, opened.history, opened.loop, opened.databases, lock_wait=0)
        assert migrator.limits(opened.fleet.tenants[0]) == Limits(0.1, 3600.0, 60.0)
        await locker.execute("BEGIN; LOCK TABLE a.alembic_version IN ACCESS EXCLUSIVE MODE")

        outcome = await migrator.attempt(opened.fleet.tenants[0], Work.of(opened.history, "downgrade", "base"))

    await locker.close()
    assert (outcome.status, outcome.failure.sqlstate if outcome.failure else None) == ("failed", "55P03")
    assert tables(database, "a") == {"accounts", "alembic_version"}


async def test_what_confines_one_is_gone_for_the_next(tmp_path: Path, database: str) -> None:
    """A lane that has run a scratch tenant's migration serves a real one next, which may do what that may not."""
    revisions = {"r1": ACCOUNTS, "r2": 'op.execute("CREATE TABLE public.shared ()")'}
    fleet = json.loads(schemas(database, "a", "b"))
    fleet["servers"]["main"]["max_concurrency"] = 1
    project = make_project(tmp_path, revisions, json.dumps(fleet))
    async with opened_project(project.fleet) as opened:
        migrator = Migrator(opened.fleet, opened.history, opened.loop, opened.databases, provision=True)
        first, next_one = opened.fleet.tenants
        work = Work.of(opened.history, "upgrade", "heads")

        with migrating(migrator):
            confined = await migrator.attempt(first, work, recording=Watched(home=("a",)))
            free = await migrator.attempt(next_one, work)

    assert (confined.failure.type if confined.failure else None, confined.status) == ("Abroad", "failed")
    assert (free.failure, free.status) == (None, "succeeded")


async def test_operations_registered_by_env_py_stay(tmp_path: Path, database: str) -> None:
    """Plugins register operations when env.py imports them; unmodified migrations use them."""
    registering = (
        """
from alembic.operations import MigrateOperation, Operations


@Operations.register_operation("create_marker")
class CreateMarker(MigrateOperation):
    @classmethod
    def create_marker(cls, operations):
        return operations.invoke(cls())


@Operations.implementation_for(CreateMarker)
def create_marker(operations, operation):
    operations.execute("CREATE TABLE marker ()")

"""
        + ENV
    )
    project = make_project(tmp_path, {"r1": "op.create_marker()"}, schemas(database, "a"), registering)

    assert statuses(await project.upgrade()) == {"a": "succeeded"}
    assert tables(database, "a") == {"marker", "alembic_version"}


async def test_a_failure_is_not_forgotten_by_a_resume_that_does_not_reach_it(tmp_path: Path, database: str) -> None:
    """A resume that stops before a failed tenant leaves that tenant's failure as it was."""
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": FRAGILE}, schemas(database, "a", "b"))
    await project.upgrade(execution=orchestrator.Execution(continue_on_error=True))

    again = await orchestrator.resume(project.fleet, execution=orchestrator.Execution(jobs=1))

    assert statuses(again) == {"a": "failed", "b": "failed"}
    assert fetch(database, "SELECT count(*) FROM b.alembic_version") == [(1,)]
