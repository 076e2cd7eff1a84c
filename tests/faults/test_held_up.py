"""A migration that sleeps or computes in Python holds up the event loop, and with it all other tenants: nothing else.

To hold it up is what these tests sleep for; what they wait for, they await.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

import orchestrator
from orchestrator.actions.execute import Execution
from orchestrator.databases.connect import connect
from tests.catalog import catalogs, difference
from tests.projects import ACCOUNTS, PROJECTS, make_project, schemas, statuses
from tests.servers import PostgresServer

TENANTS = [f"t{number:02}" for number in range(12)]


async def test_who_is_connecting_has_not_run_out_of_time(tmp_path: Path, pg: PostgresServer) -> None:
    """Time in which the loop stood still is not the server's: the connection is opened once more."""
    text = json.dumps({"servers": {"main": {"url": f"{pg.url}?connect_timeout=1"}}, "tenants": ["a"]})
    (tmp_path / "tenants.yaml").write_text(text)
    database = connect(orchestrator.load(tmp_path / "tenants.yaml").servers["main"])

    connecting = asyncio.create_task(database.version())
    for _ in range(3):
        await asyncio.sleep(0)
    time.sleep(1.3)  # noqa: ASYNC251  what it is about

    assert (await connecting).isdigit()
    await database.close()


@pytest.mark.parametrize("replay", [True, False], ids=["replay", "alembic"])
async def test_other_tenants(tmp_path: Path, database: str, replay: bool) -> None:
    """Two tenants that sleep for longer than connections and locks may take: everybody is migrated."""
    body = """
        op.create_table("before", sa.Column("id", sa.Integer))
        if op.get_bind().exec_driver_sql("SELECT current_schema() IN ('t00', 't05')").scalar():
            import time
            time.sleep(1.5)
    """
    policy = {"retries": 0, "lock_timeout": "1s"}
    tenants = schemas(f"{database}?connect_timeout=1", *TENANTS, policy=policy)
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": body, "r3": PROJECTS}, tenants)

    result = await project.upgrade(execution=Execution(replay=replay, continue_on_error=True))

    assert statuses(result) == dict.fromkeys(TENANTS, "succeeded"), result.as_json()["causes"]
    held_now = catalogs(database, TENANTS)
    assert not any(difference(held_now["t00"], held_now[tenant]) for tenant in TENANTS)
