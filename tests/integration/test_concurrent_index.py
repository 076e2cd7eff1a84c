"""CREATE INDEX CONCURRENTLY waits for older transactions of the whole database: other tenants' migrations are such."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg

from tests.projects import make_project, schemas, statuses, until
from tests.servers import fetch

#: Milliseconds.
_LOCK_TIMEOUT = 200
_POLICY = {"lock_timeout": f"{_LOCK_TIMEOUT}ms", "retries": 0}

TABLE = 'op.create_table("notes", sa.Column("body", sa.Text))'
INDEX = """
with op.get_context().autocommit_block():
    op.create_index("ix_notes_body", "notes", ["body"], postgresql_concurrently=True)
"""
#: Two rows are the same, so there is no index; the revision goes on and notes how long it would wait for a lock.
FAILING_INDEX = """
op.execute("INSERT INTO notes VALUES ('same'), ('same')")
with op.get_context().autocommit_block():
    try:
        op.create_index("ix_notes_body", "notes", ["body"], unique=True, postgresql_concurrently=True)
    except sa.exc.IntegrityError:
        op.execute("CREATE TABLE seen AS SELECT current_setting('lock_timeout') AS lock_timeout")
"""


async def test_older_transaction_may_outlast_lock_timeout(tmp_path: Path, database: str) -> None:
    """The index is made once the older transaction has ended, although that took longer than lock_timeout."""
    project = make_project(tmp_path, {"r1": TABLE, "r2": INDEX}, schemas(database, "acme", policy=_POLICY))
    await project.upgrade("r1")
    older = await asyncpg.connect(database)
    await older.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
    upgrade = asyncio.create_task(project.upgrade())
    waiting = (
        "SELECT wait_event FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONCURRENTLY%'"
        f" AND clock_timestamp() - query_start > interval '{2 * _LOCK_TIMEOUT} ms'"
    )
    observer = await asyncpg.connect(database)
    await until(lambda: observer.fetch(waiting), lambda rows: bool(rows) or upgrade.done())
    await older.close()
    await observer.close()
    assert statuses(await upgrade) == {"acme": "succeeded"}
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'acme.ix_notes_body'::regclass"
    assert fetch(database, valid) == [(True,)]


async def test_lock_timeout_holds_again_afterwards(tmp_path: Path, database: str) -> None:
    """The statement after the index, even after one that failed, waits for a lock no longer than lock_timeout."""
    revisions = {"r1": TABLE, "r2": FAILING_INDEX}
    project = make_project(tmp_path, revisions, schemas(database, "acme", policy=_POLICY))
    assert statuses(await project.upgrade()) == {"acme": "partial"}  # the index is left invalid
    assert fetch(database, "SELECT lock_timeout FROM acme.seen") == [(f"{_LOCK_TIMEOUT}ms",)]
