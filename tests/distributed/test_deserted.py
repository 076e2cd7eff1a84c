"""A run whose workers are all gone for good: what an operator sees of it, and how he gets it back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import orchestrator
from orchestrator.actions.distributing.following import follow_run
from orchestrator.actions.execution import Execution, Watch
from orchestrator.actions.stopping import pause
from orchestrator.engine.queues import SCHEMA
from orchestrator.rollout.stop import Stop
from orchestrator.rollout.waiting import Waiting
from orchestrator.statuses import RunStatus
from tests.projects import Project, held, statuses, until, waiting_backend
from tests.servers import execute, fetch
from tests.workers import GATE, STEERED, start_worker, steered_project, tenants, workers
from tests.workspace import Workspace

DBOS = Execution(executor="dbos")
#: Leaves its transaction, and is told to wait there.
HALF = f"""
def upgrade():
    with op.get_context().autocommit_block():
        op.execute("CREATE TABLE IF NOT EXISTS half (id integer)")
{"".join(f"        {line}{chr(10)}" for line in STEERED.strip().splitlines())}

def downgrade():
    pass
"""


@pytest.fixture
async def deserted(tmp_path: Path, database: str) -> tuple[Project, str]:
    """A run in which a tenant was half done when the only worker was killed, and its id."""
    project = steered_project(tmp_path, database, {"r1": "pass", "r2": HALF})
    tenants(project, database, "a", "b", "c", waves=[{"name": "first", "count": 1, "order": "listed"}])
    await project.upgrade("r1")
    execute(database, "INSERT INTO public.gated VALUES ('a')")
    worker = start_worker(project)
    try:
        async with held(database, GATE) as gate:
            run = (await project.upgrade(execution=Execution(executor="dbos", detach=True))).run.id
            await waiting_backend(gate)
            shown = await orchestrator.show_run(project.fleet, run)
            assert (shown.run.status, shown.waits) == (RunStatus.RUNNING, None)
            assert await states(project) == {"a": "behind", "b": "behind", "c": "behind"}
            worker.kill()
            execute(database, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted AND objid = 42")
    finally:
        if worker.process.poll() is None:
            worker.kill()
    execute(database, "DELETE FROM public.gated")
    await until(lambda: locks(database), lambda found: not found)
    return project, run


async def locks(database: str) -> list[tuple[object, ...]]:
    """Advisory locks that the killed one's backends still hold."""
    here = "SELECT oid FROM pg_database WHERE datname = current_database()"
    return [*fetch(database, f"SELECT FROM pg_locks WHERE locktype = 'advisory' AND database = ({here})")]


async def states(project: Project) -> dict[str, str]:
    """What ``status`` says of each tenant."""
    return {each.tenant.id: each.state.value for each in (await orchestrator.status(project.fleet)).tenants}


async def test_what_is_seen(deserted: tuple[Project, str]) -> None:
    """A half-done tenant is called that, the run is said to wait for a worker, and who would resume it how he can."""
    project, run = deserted
    command = Workspace(project.path)

    assert await states(project) == {"a": "partial", "b": "behind", "c": "behind"}
    assert (await orchestrator.show_run(project.fleet, run)).waits == Waiting()
    shown = command.run("runs", "show", run).stdout
    assert "it waits for a worker\n" in shown
    assert f"orchestrator runs pause {run}, then: orchestrator resume {run}" in shown
    refused = command.run("resume")
    assert refused.returncode == 2
    assert f"run {run} is still going: workers have it, and none is at it now" in refused.stderr
    assert f"orchestrator runs pause {run}" in refused.stderr
    # Another run neither waits for it nor takes the half-done tenant on.
    assert statuses(await project.upgrade()) == {"a": "partial", "b": "succeeded", "c": "succeeded"}


async def test_stamped_outside_meanwhile(deserted: tuple[Project, str], database: str) -> None:
    """What somebody does to a tenant of such a run is noticed: nobody is at it."""
    project, _ = deserted
    execute(database, "UPDATE a.alembic_version SET version_num = 'elsewhere'")
    (found,) = (await orchestrator.status(project.fleet)).noticed.values()
    assert (found.tenant, found.kind.value) == ("a", "changed_outside")


async def test_taken_from_the_workers(deserted: tuple[Project, str], database: str) -> None:
    """Paused, it has ended, and is resumed here; a worker that comes then takes nothing of it up again."""
    project, run = deserted
    await pause(project.fleet, run)

    left = await orchestrator.show_run(project.fleet, run)
    assert (left.run.status, left.run.finished_at is None) == (RunStatus.PAUSED, False)
    assert statuses(left) == {"a": "interrupted", "b": "not_started", "c": "not_started"}
    assert {status for (status,) in fetch(database, f"SELECT status FROM {SCHEMA}.workflow_status")} == {"CANCELLED"}
    again = await orchestrator.resume(project.fleet, run)
    assert statuses(again)["a"] == "partial"
    done = await orchestrator.resume(project.fleet, run, execution=Execution(retry_partial=True))
    assert statuses(done) == dict.fromkeys("abc", "succeeded")
    with workers(project, 1) as crew:
        assert statuses(await project.upgrade(execution=DBOS)) == dict.fromkeys("abc", "already_current")
        assert not crew[0].has_said(f"run {run}")


async def test_whoever_looks_on(deserted: tuple[Project, str], caplog: pytest.LogCaptureFixture) -> None:
    """That nobody is there any more is told to who waits for the run's end, with what to do; a worker goes on."""
    project, run = deserted
    watch = Watch(stop=Stop())
    following = asyncio.create_task(follow_run(project.fleet, run, watch))

    async def told() -> str:
        return caplog.text

    await until(told, lambda text: f"run {run} waits for a worker\n  hint: start one" in text)
    with workers(project, 1):
        assert statuses(await following) == {"a": "partial", "b": "succeeded", "c": "succeeded"}
