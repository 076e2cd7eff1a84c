"""Several deploys at once over one fleet: each tenant is migrated once, nobody waits inside the server for a lock."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import asyncpg
import pytest

from tests.projects import make_project, schemas
from tests.servers import execute, fetch

#: Leaves a row for each time that it is committed, where no other tenant's revision can collide with it.
BODY = """
op.execute("CREATE TABLE accounts (id int)")
op.execute("INSERT INTO witness.committed SELECT current_schema()")
"""


@pytest.mark.parametrize("processes", [2, 4, 8])
@pytest.mark.parametrize("replay", [True, False], ids=["replay", "alembic"])
async def test_each_tenant_once(tmp_path: Path, database: str, processes: int, replay: bool, thorough: bool) -> None:
    """Two, four and eight processes migrate the same tenants: all arrive, and no body is committed twice."""
    if processes == 8 and not thorough:
        processes = 3
    ids = [f"t{number:03}" for number in range(200 if thorough else 40)]
    project = make_project(tmp_path, {"r1": BODY}, schemas(database, *ids))
    execute(database, "CREATE SCHEMA witness; CREATE TABLE witness.committed (tenant text)")
    command = [sys.executable, "-m", "orchestrator", "upgrade", "--provision", "--json", "--continue-on-error"]
    command += [] if replay else ["--no-replay"]

    watcher = await asyncpg.connect(database)
    started = [
        await asyncio.create_subprocess_exec(
            *command, cwd=project.path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        for _ in range(processes)
    ]
    ends = [asyncio.create_task(process.communicate()) for process in started]
    waiting = 0
    while not all(end.done() for end in ends):
        # Whoever waits for an advisory lock inside the server would deadlock with CREATE INDEX CONCURRENTLY.
        waiting += await watcher.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        await asyncio.wait(ends, timeout=0.02)
    await watcher.close()

    documents = [json.loads(end.result()[0]) for end in ends]
    counts = dict(fetch(database, "SELECT tenant, count(*) FROM witness.committed GROUP BY 1"))
    assert counts == dict.fromkeys(ids, 1)
    assert waiting == 0
    told = {tenant["status"] for document in documents for tenant in document["tenants"]}
    assert told <= {"succeeded", "already_current", "locked"}
    by_whom = [sum(tenant["status"] == "succeeded" for tenant in document["tenants"]) for document in documents]
    assert sum(by_whom) == len(ids), by_whom
    # Exit code 1 only where somebody was still locked at the end of a process's patience.
    for process, document in zip(started, documents, strict=True):
        assert process.returncode == (1 if document["summary"].get("locked") else 0), document["summary"]
