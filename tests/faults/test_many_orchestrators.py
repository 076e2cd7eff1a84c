"""Several orchestrators at once over the same tenants, each a process of its own: every tenant is migrated once."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.catalog import catalogs, difference
from tests.projects import make_project, schemas, until
from tests.servers import execute, fetch
from tests.workspace import Workspace

#: Each revision's body says that it ran, in the tenant's own transaction: what is found there was committed.
LOGGED = """
    op.create_table("of_{revision}", sa.Column("id", sa.Integer, primary_key=True))
    op.execute("SELECT count(*) FROM public.gate")
    op.execute("INSERT INTO public.audit SELECT current_schema(), '{revision}'")
"""
REVISIONS = ("r1", "r2", "r3")
BOUNDED = os.environ.get("FAULTS") == "bounded"
#: Seconds for all of it.
PATIENCE = 300


async def run_one(path: Path, *options: str) -> tuple[int, Any]:
    """``orchestrator upgrade --json`` to its end: exit code and document."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "orchestrator", "upgrade", "--json", *options,
        cwd=path, env=Workspace.environment(), stdin=DEVNULL, stdout=PIPE, stderr=PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert "Traceback" not in err.decode()
    return process.returncode or 0, json.loads(out)


@dataclass(slots=True)
class Server:
    """What the server says of the orchestrators in one database, on a connection of the test's own."""

    connection: asyncpg.Connection
    #: How often somebody was seen waiting for an advisory lock.
    waits: int = 0

    async def at_work(self) -> set[str]:
        """Runs that have a connection into a tenant."""
        rows = await self.connection.fetch(
            "SELECT split_part(application_name, ' ', 2) FROM pg_stat_activity"
            " WHERE application_name LIKE 'orchestrator %' AND datname = current_database()"
        )
        return {row[0] for row in rows}

    async def look_for_waits(self) -> None:
        """Look until cancelled, over and over."""
        while True:
            self.waits += await self.connection.fetchval(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )


@asynccontextmanager
async def gate_closed(url: str) -> AsyncIterator[None]:
    """Nobody gets through a revision's body meanwhile."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("BEGIN; LOCK TABLE public.gate")
        yield
    finally:
        await connection.close()


@pytest.mark.parametrize("options", [(), ("--no-replay",)], ids=["replay", "alembic"])
@pytest.mark.parametrize("lock_wait", ["120s", "0s"])
@pytest.mark.parametrize("processes", [2, 4] if BOUNDED else [2, 4, 8])
async def test_each_tenant_once(
    tmp_path: Path, database: str, processes: int, lock_wait: str, options: tuple[str, ...]
) -> None:
    """All plan the same work; each revision's body is committed once for each tenant, and nobody waits in a lock."""
    tenants = [f"t{number:03}" for number in range(40 if BOUNDED else 200)]
    bodies = {revision: LOGGED.format(revision=revision) for revision in REVISIONS}
    make_project(tmp_path, bodies, schemas(database, *tenants, policy={"lock_timeout": "120s"}))
    for start in range(0, len(tenants), 100):
        execute(database, "".join(f'CREATE SCHEMA "{tenant}";' for tenant in tenants[start : start + 100]))
    execute(database, "CREATE TABLE public.audit (tenant text, revision text); CREATE TABLE public.gate ()")
    server = Server(await asyncpg.connect(database))
    try:
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            async with gate_closed(database):
                arguments = ("--lock-wait", lock_wait, *options)
                running = [group.create_task(run_one(tmp_path, *arguments)) for _ in range(processes)]
                # Nobody is through with a tenant before everybody has planned to migrate it. Who waits for nobody is
                # soon gone: then two have to do.
                wanted = processes if lock_wait != "0s" else 2
                await until(server.at_work, lambda found: len(found) >= wanted)
            looking = group.create_task(server.look_for_waits())
            ended = await asyncio.gather(*running)
            looking.cancel()
    finally:
        await server.connection.close()

    assert server.waits == 0
    rows = [(row[0], row[1]) for row in fetch(database, "SELECT tenant, revision FROM public.audit")]
    assert Counter(rows) == Counter([(tenant, revision) for tenant in tenants for revision in REVISIONS])
    assert_told_right(ended, tenants, may_give_up=lock_wait == "0s")
    held = catalogs(database, tenants)
    assert not any(difference(held[tenants[0]], held[tenant]) for tenant in tenants)
    document = Workspace(tmp_path).json("status")
    assert document["summary"] == {"current": len(tenants)}


def assert_told_right(ended: list[tuple[int, Any]], tenants: list[str], *, may_give_up: bool) -> None:
    """Each tenant has succeeded in one run; in the others it was done already, or locked and said so."""
    done: Counter[str] = Counter()
    for code, document in ended:
        statuses = {tenant["tenant"]: tenant["status"] for tenant in document["tenants"]}
        assert sorted(statuses) == tenants
        left = {tenant for tenant, status in statuses.items() if status not in ("succeeded", "already_current")}
        assert {statuses[tenant] for tenant in left} <= ({"locked"} if may_give_up else set())
        assert code == (1 if left else 0)
        for tenant in document["tenants"]:
            if tenant["status"] == "locked":
                assert "another migration of this tenant is under way: " in tenant["error"]["message"]
        done.update(tenant for tenant, status in statuses.items() if status == "succeeded")
    assert done == Counter(tenants)
