"""The journal goes away while a run is at work: the databases decide, the run ends as they say, nothing is claimed."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import pytest

import orchestrator
from orchestrator.actions.runs import show_run
from orchestrator.errors import JournalError
from orchestrator.rollout.result import RunResult
from tests.projects import ACCOUNTS, Project, held, make_project, one, schemas, statuses, tables, waiting_backend
from tests.servers import PostgresServer, execute

#: Waits at the gate, in an ordinary transaction.
GATED = 'op.execute("CREATE TABLE made (id int)")\nop.execute("SELECT pg_advisory_xact_lock(42)")'
#: The same, and then leaves its transaction.
BLOCK = f'{GATED}\nwith op.get_context().autocommit_block():\n    op.execute("CREATE TABLE inside (id int)")'


@asynccontextmanager
async def at_the_gate(project: Project, database: str) -> AsyncIterator[asyncio.Task[RunResult]]:
    """A run that goes on when the block is left."""
    async with held(database, 42) as gate:
        running = asyncio.create_task(project.upgrade())
        await waiting_backend(gate)
        yield running


def journal_file(project: Project) -> Path:
    """Where it is unless told otherwise."""
    return project.path / ".orchestrator" / "journal.db"


def remove(project: Project) -> None:
    """The file and what SQLite keeps beside it."""
    for file in journal_file(project).parent.glob("journal.db*"):
        file.unlink()


@pytest.mark.parametrize("take_away", [remove, lambda project: shutil.rmtree(project.path / ".orchestrator")])
@pytest.mark.parametrize("body", [GATED, BLOCK])
async def test_removed_in_mid_run(
    tmp_path: Path, database: str, caplog: pytest.LogCaptureFixture, body: str, take_away: Callable[[Project], None]
) -> None:
    """It is begun anew with this run, whole; a step outside a transaction is written down there first."""
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": body}, schemas(database, "a", "b"))
    await project.upgrade("r1", tenants=["a"])
    async with at_the_gate(project, database) as running:
        take_away(project)
    result = await running
    assert statuses(result) == {"a": "succeeded", "b": "succeeded"}
    assert "was removed; it is begun anew, with this run and no earlier one" in caplog.text
    assert (await show_run(project.fleet, "last")).as_json() == result.as_json()
    assert len((await orchestrator.list_runs(project.fleet)).runs) == 1
    assert statuses(await orchestrator.resume(project.fleet)) == {"a": "succeeded", "b": "succeeded"}


async def test_cut_off_in_mid_run(tmp_path: Path, database: str, caplog: pytest.LogCaptureFixture) -> None:
    """The run ends as the databases say, its records are saved beside it, and the file is to be put away."""
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": GATED}, schemas(database, "a"))
    async with at_the_gate(project, database) as running:
        journal_file(project).write_bytes(b"")
    result = await running
    assert (result.run.status, statuses(result)) == ("succeeded", {"a": "succeeded"})
    assert "was cut off while it was in use" in caplog.text
    (saved,) = (tmp_path / ".orchestrator").glob(f"unsaved-{result.run.id}.jsonl")
    last = [json.loads(line) for line in saved.read_text().splitlines()]
    assert [each["status"] for each in last if each["record"] == "attempt"] == ["succeeded"]
    # Whatever can still be read of it, it must not say that this run went otherwise.
    with suppress(JournalError):
        assert (await show_run(project.fleet, "last")).run.status in ("running", "interrupted")
    assert (await orchestrator.status(project.fleet)).summary == {"current": 1}


async def test_cut_off_before_a_step_outside_a_transaction(tmp_path: Path, database: str) -> None:
    """What cannot be written down first is not done; its own transaction is rolled back."""
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": BLOCK}, schemas(database, "a"))
    async with at_the_gate(project, database) as running:
        journal_file(project).write_bytes(b"")
    found = one(await running, "a")
    assert (found["status"], found["to"], found["error"]["type"]) == ("failed", ["r1"], "JournalError")
    assert "was cut off while it was in use" in found["error"]["message"]
    assert tables(database, "a") == {"accounts", "alembic_version"}


@pytest.mark.parametrize("body", [GATED, BLOCK])
async def test_postgresql_goes_away_in_mid_run(
    tmp_path: Path, database: str, second_pg: PostgresServer, caplog: pytest.LogCaptureFixture, body: str
) -> None:
    """The journal's database is dropped: tenants elsewhere are migrated, but for steps outside transactions."""
    name = f"journal_{tmp_path.name.lower()[:40].rstrip('_')}_{len(body)}"
    execute(second_pg.url, f'DROP DATABASE IF EXISTS "{name}"')
    execute(second_pg.url, f'CREATE DATABASE "{name}"')
    revisions = {"r1": ACCOUNTS, "r2": body}
    project = make_project(tmp_path, revisions, schemas(database, "a", journal=second_pg.database_url(name)))
    async with at_the_gate(project, database) as running:
        execute(second_pg.url, f'DROP DATABASE "{name}" WITH (FORCE)')
    result = await running
    assert statuses(result) == {"a": "succeeded" if body == GATED else "failed"}
    assert "the run goes on" in caplog.text
    assert list((tmp_path / ".orchestrator").glob(f"unsaved-{result.run.id}.jsonl"))
    with pytest.raises(JournalError, match="does not exist"):
        await project.upgrade()
    assert (await orchestrator.status(project.fleet)).summary == ({"current": 1} if body == GATED else {"behind": 1})


async def test_cannot_be_written(tmp_path: Path, database: str) -> None:
    """A run refuses before anything is touched; reading goes on."""
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": ""}, schemas(database, "a"))
    await project.upgrade("r1")
    # Root may write whatever a file's mode says; into a directory in its place nobody can.
    kept = journal_file(project).rename(tmp_path / "kept")
    journal_file(project).mkdir()
    with pytest.raises(JournalError) as refused:
        await project.upgrade()
    assert refused.value.hint is not None
    assert (await orchestrator.status(project.fleet)).summary == {"behind": 1}
    assert [cohort.tenants for cohort in (await orchestrator.plan(project.fleet)).plan.cohorts] == [1]
    journal_file(project).rmdir()
    kept.rename(journal_file(project))
    assert statuses(await project.upgrade()) == {"a": "succeeded"}


async def test_a_journal_of_the_format_before(tmp_path: Path, database: str, caplog: pytest.LogCaptureFixture) -> None:
    """Read as it is, and brought up to date by the next run."""
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": ""}, schemas(database, "a"))
    await project.upgrade("r1")
    with closing(sqlite3.connect(journal_file(project))) as journal:
        journal.executescript("DROP TABLE orchestrator_steps; DROP TABLE orchestrator_revisions")
        journal.execute("UPDATE orchestrator_journal_version SET version_num = '0001'")
        journal.commit()
    with caplog.at_level(logging.WARNING):
        assert (await orchestrator.status(project.fleet)).summary == {"behind": 1}
        assert len((await orchestrator.list_runs(project.fleet)).runs) == 1
    assert caplog.text == ""
    assert statuses(await project.upgrade()) == {"a": "succeeded"}
