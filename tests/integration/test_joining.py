"""Tenants that come into the fleet while a run goes on are brought to its target by it."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import asyncpg
import pytest

import orchestrator
from orchestrator.actions.execution import Execution, Watch
from orchestrator.fleet.selection import Selection
from orchestrator.fleet.tenant import Limits
from orchestrator.rollout.stop import Stop
from tests.projects import ACCOUNTS, Project, make_project, schemas, statuses, tables, until
from tests.servers import execute

#: A source that can be read once.
SOURCED = """
calls = []

def once():
    calls.append(1)
    assert len(calls) < 2, "not again"
    return [{"id": "a", "server": "main"}]
"""
GATED = f'{ACCOUNTS}\nop.execute("SELECT pg_advisory_xact_lock_shared(42)")'
PATIENT = Execution(limits=Limits(lock_timeout=60.0))


def with_source(url: str) -> str:
    """A tenants.yaml whose tenants are the schemas named t_*."""
    return json.dumps(
        {"servers": {"main": url}, "sources": [{"schemas": "t_*", "server": "main"}], "policy": {"retries": 0}}
    )


async def run_while(
    project: Project, url: str, change: str, tenants: Selection, text: str | None = None
) -> dict[str, str]:
    """How a run's tenants end, where ``change`` happens in the middle of it."""
    holder = await asyncpg.connect(url)
    await holder.execute("SELECT pg_advisory_lock(42)")
    running = asyncio.create_task(project.upgrade(tenants=tenants, provision=False, execution=PATIENT))
    await until(lambda: holder.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"), bool)
    await holder.execute(change)
    if text is not None:
        (project.path / "tenants.yaml").write_text(text)
    await holder.close()
    result = await running
    assert result.satisfied, result.as_json()
    shown = await orchestrator.show_run(project.fleet, result.run.id)
    assert statuses(shown) == statuses(result)
    return statuses(result)


async def test_from_a_source(tmp_path: Path, database: str) -> None:
    """A schema that is made in the middle joins the run; the journal has one run with all of them."""
    execute(database, "CREATE SCHEMA t_a; CREATE SCHEMA t_b")
    project = make_project(tmp_path, {"r1": GATED}, with_source(database))

    found = await run_while(project, database, "CREATE SCHEMA t_c; CREATE SCHEMA other", Selection())

    assert found == dict.fromkeys(["t_a", "t_b", "t_c"], "succeeded")
    assert tables(database, "t_c") == {"accounts", "alembic_version"}
    assert len((await orchestrator.list_runs(project.fleet)).runs) == 1


async def test_from_the_file(tmp_path: Path, database: str) -> None:
    """One that is written into tenants.yaml joins, too; one that is not there yet is left to who makes it."""
    execute(database, "CREATE SCHEMA a")
    project = make_project(tmp_path, {"r1": GATED}, schemas(database, "a", policy={"retries": 0}))

    more = schemas(database, "a", "b", "announced")
    found = await run_while(project, database, "CREATE SCHEMA b", Selection(), more)

    assert found == {"a": "succeeded", "b": "succeeded"}


async def test_a_file_that_cannot_be_read(tmp_path: Path, database: str, caplog: pytest.LogCaptureFixture) -> None:
    """Edited to what is no fleet, it does not spoil the run that was under way."""
    execute(database, "CREATE SCHEMA a")
    text = schemas(database, "a", policy={"retries": 0})
    project = make_project(tmp_path, {"r1": GATED}, text)
    holder = await asyncpg.connect(database)
    await holder.execute("SELECT pg_advisory_lock(42)")
    running = asyncio.create_task(project.upgrade(execution=PATIENT))
    await until(lambda: holder.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"), bool)
    (tmp_path / "tenants.yaml").write_text("servers: [")
    await holder.close()

    assert (await running).satisfied
    assert "tenants.yaml has changed during the run" in caplog.text


async def test_only_whom_the_run_means(tmp_path: Path, database: str) -> None:
    """Who is not among those that were selected does not join."""
    execute(database, "CREATE SCHEMA t_a")
    project = make_project(tmp_path, {"r1": GATED}, with_source(database))

    found = await run_while(project, database, "CREATE SCHEMA t_b; CREATE SCHEMA t_ac", Selection(patterns=("t_a*",)))

    assert found == {"t_a": "succeeded", "t_ac": "succeeded"}


async def test_not_into_a_run_that_was_stopped(tmp_path: Path, database: str) -> None:
    """A run that was interrupted takes nobody along."""
    execute(database, "CREATE SCHEMA t_a")
    project = make_project(tmp_path, {"r1": GATED}, with_source(database))
    stop = Stop()
    holder = await asyncpg.connect(database)
    await holder.execute("SELECT pg_advisory_lock(42)")
    running = asyncio.create_task(project.upgrade(execution=PATIENT, watch=Watch(stop=stop)))
    await until(lambda: holder.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"), bool)
    await holder.execute("CREATE SCHEMA t_b")
    stop.request()
    await holder.close()

    assert statuses(await running) == {"t_a": "succeeded"}


async def test_into_a_run_that_is_carried_on(tmp_path: Path, database: str) -> None:
    """A resumed run takes along who has come since, of those that it means."""
    execute(database, "CREATE SCHEMA t_a; CREATE TABLE t_a.accounts ()")
    project = make_project(tmp_path, {"r1": ACCOUNTS}, with_source(database))
    result = await project.upgrade(tenants=("t_a*",))
    assert statuses(result) == {"t_a": "failed"}
    execute(database, "DROP TABLE t_a.accounts; CREATE SCHEMA t_ab; CREATE SCHEMA t_b")

    result = await orchestrator.resume(project.fleet)

    assert (result.run.status, statuses(result)) == ("succeeded", {"t_a": "succeeded", "t_ab": "succeeded"})


async def test_not_into_a_run_of_one_wave(tmp_path: Path, database: str) -> None:
    """A run that was to be of one wave takes nobody else along, neither at once nor when it is carried on."""
    execute(database, "CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.accounts ()")
    waves = [{"name": "canary", "count": 1}]
    project = make_project(tmp_path, {"r1": ACCOUNTS}, schemas(database, "a", "b", waves=waves))
    assert statuses(await project.upgrade(execution=Execution(wave="canary"))) == {"a": "failed"}
    execute(database, "DROP TABLE a.accounts")

    assert statuses(await orchestrator.resume(project.fleet)) == {"a": "succeeded"}
    assert statuses(await project.upgrade(execution=Execution(wave="canary"))) == {"a": "already_current"}


async def test_a_source_that_fails_the_second_time(
    tmp_path: Path, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A run that has succeeded stays so, with its result, where the fleet cannot be read again."""
    execute(database, "CREATE SCHEMA a")
    text = json.dumps({"servers": {"main": database}, "sources": [{"python": "sourced:once"}]})
    project = make_project(tmp_path, {"r1": ACCOUNTS}, text)
    sys.modules.pop("sourced", None)
    (tmp_path / "sourced.py").write_text(SOURCED)

    result = await project.upgrade()

    assert (result.satisfied, statuses(result)) == (True, {"a": "succeeded"})
    assert "not again" in caplog.text
