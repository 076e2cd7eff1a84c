"""What becomes of a run whose worker is gone, or that is taken back: by the parts themselves, with no worker there."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from subprocess import DEVNULL, PIPE

import asyncpg
import pytest

import orchestrator
from orchestrator.actions.distributing.following import follow_run
from orchestrator.actions.distributing.jobs import RunJob
from orchestrator.actions.execution import Execution, Watch
from orchestrator.actions.stopping import cancel
from orchestrator.engine.client import Piece, Standing
from orchestrator.engine.queues import SCHEMA
from orchestrator.errors import JournalError, UsageError
from orchestrator.journal.process import process_identity, process_realm
from orchestrator.journal.records import AttemptRecord
from orchestrator.rollout.waiting import Waiting
from orchestrator.rollout.watching import Silent
from orchestrator.rollout.waves import WaveRecord, WaveState
from orchestrator.statuses import RunStatus, TenantStatus
from tests.hands import DBOS, DETACHED, THREE, Hands
from tests.projects import Project, statuses, until, with_role
from tests.servers import execute, fetch
from tests.workers import tenants, workers
from tests.workspace import Workspace


async def test_by_one_with_another_fleet(project: Project, hands: Hands, database: str) -> None:
    """A worker whose tenants.yaml lacks tenants of the run does not take them for gone when it takes the run over."""
    run = (await project.upgrade(execution=DETACHED)).run.id
    whole = project.fleet
    tenants(project, database)

    ended = await hands.take_over(RunJob(run, True, DBOS, fresh=True))

    assert "has no tenant a and 2 more in its tenants.yaml" in ended["error"]["message"]
    left = await orchestrator.show_run(whole, run)
    assert (left.run.status, statuses(left)) == (RunStatus.FAILED, dict.fromkeys(THREE, "not_started"))
    # Nobody looks for chunks any more.
    assert hands.engine.queues_of_chunks(hands.queues) == []


async def test_after_a_tenant_was_taken_out(project: Project, hands: Hands, database: str) -> None:
    """A tenant that was offboarded while the run waited keeps nobody from carrying it on; its id alone would."""
    tenants(project, database, *THREE, waves=[{"name": "first", "count": 2, "approve": "manual"}])
    run = (await project.upgrade()).run.id
    assert (await orchestrator.offboard(project.fleet, tenants=["c"])).satisfied
    assert [tenant.id for tenant in project.fleet.tenants] == ["a", "b"]
    approved = RunJob(run, True, replace(DBOS, approve=True), fresh=False, approves="first")
    gone = {"a": "succeeded", "b": "succeeded", "c": "skipped"}
    for journalled, ends in (("set_aside", ("failed", "not_started")), ("taken_out", ("succeeded", "skipped"))):
        execute(
            database,
            f"UPDATE orchestrator_runs SET status = 'running', finished_at = NULL WHERE id = '{run}'; "
            f"UPDATE orchestrator_events SET kind = '{journalled}' WHERE kind IN ('taken_out', 'set_aside')",
        )
        await hands.take_over(approved)
        left = await hands.shown(run)
        assert (left.run.status.value, statuses(left)) == (ends[0], {**gone, "c": ends[1]})


async def test_by_an_operator_whom_nobody_tells(project: Project, hands: Hands, database: str) -> None:
    """Where the engine's tables are gone, no worker has the run; where they cannot be read, that is what is said."""
    run = (await project.upgrade(execution=DETACHED)).run.id
    written_by(database, run, 1, f"{process_realm()}/gone")
    role = f"{database.rpartition('/')[2]}_reader"
    execute(database, f'CREATE ROLE "{role}" LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO "{role}"')
    try:
        tenants(project, database, *THREE, journal=with_role(database, role, "unused"))
        with pytest.raises(JournalError, match=r"engine's tables in .* cannot be used: .*permission denied") as refused:
            await orchestrator.resume(project.fleet, run)
        assert f"USAGE on schema {SCHEMA}" in str(refused.value.hint)
    finally:
        execute(database, f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')
    tenants(project, database, *THREE)
    execute(database, f"DROP SCHEMA {SCHEMA} CASCADE")
    assert statuses(await orchestrator.resume(project.fleet, run, provision=True)) == dict.fromkeys(THREE, "succeeded")


def failed(attempt: AttemptRecord) -> AttemptRecord:
    """``attempt`` as a worker has left it that could not migrate the tenant."""
    error = {"type": "RaiseException", "message": "broken", "sqlstate": "P0001"}
    changes = {"status": TenantStatus.FAILED, "attempts": attempt.attempts + 1, "error": error}
    return replace(attempt, **changes, finished_at=datetime.now(UTC))


@pytest.mark.parametrize("status", ["running", "failed"])
async def test_while_it_is_about_to_fail(project: Project, hands: Hands, database: str, status: str) -> None:
    """A run whose budget is used up is not begun again: its wave has failed, and whoever is to be called is called."""
    hooks = {moment: [{"command": f"echo {moment} >> called"}] for moment in ("before_wave", "after_wave", "after_run")}
    tenants(project, database, *THREE, waves=[{"name": "first", "percent": 100}], hooks=hooks)
    run = (await project.upgrade(execution=DETACHED)).run.id
    hands.journal.record(failed((await hands.shown(run)).tenants[0]))
    await hands.journal.flush()
    execute(database, f"UPDATE orchestrator_runs SET status = '{status}' WHERE id = '{run}'")

    assert (await hands.take_over(RunJob(run, True, DBOS, fresh=True)))["status"] == "failed"

    left = await hands.shown(run)
    assert (left.run.status, left.run.finished_at is None) == (RunStatus.FAILED, False)
    assert statuses(left) == {"a": "failed", "b": "not_started", "c": "not_started"}
    assert [(wave.name, wave.state.value, wave.reason) for wave in left.waves] == [
        ("first", "failed", "1 of 3 tenants failed")
    ]
    assert (project.path / "called").read_text().split() == ["before_wave", "after_wave", "after_run"]


async def test_failed_before_it_was_resumed(project: Project, hands: Hands, database: str) -> None:
    """Failures that a run was resumed for are tried again by whoever takes it over; those since then are not."""
    execute(database, "INSERT INTO public.broken VALUES ('a'), ('b')")
    run = (await project.upgrade(execution=Execution(continue_on_error=True))).run.id
    await orchestrator.resume(project.fleet, run, execution=replace(DETACHED, continue_on_error=True))
    ((told,),) = fetch(database, f"SELECT inputs FROM {SCHEMA}.workflow_input WHERE workflow_uuid = '{run}'")
    job = RunJob.from_json(json.loads(told)["positionalArgs"][0])
    assert set(job.ended) == {"a", "b"}
    a = next(each for each in (await hands.shown(run)).tenants if each.tenant == "a")
    hands.journal.record(failed(a))
    await hands.journal.flush()
    execute(database, f"DELETE FROM {SCHEMA}.workflow_status; DELETE FROM public.broken")
    with workers(project, 1):
        await hands.take_over(job)
    left = await hands.shown(run)
    assert statuses(left) == {"a": "failed", "b": "succeeded", "c": "succeeded"}
    assert {each.tenant: each.attempts for each in left.tenants} == {"a": 2, "b": 2, "c": 1}


async def given_up(project: Project, database: str) -> str:
    """A run of workers that are gone: one of its tenants has failed, and the others are through."""
    execute(database, "INSERT INTO public.broken VALUES ('c')")
    tenants(project, database, *THREE, waves=[{"name": "first", "percent": 100, "order": "listed"}])
    run = (await project.upgrade(execution=Execution(jobs=1))).run.id
    tenants(project, database, *THREE, waves=[{"name": "first", "percent": 100, "on_failure": "rollback"}])
    execute(
        database,
        f"UPDATE orchestrator_runs SET status = 'running', finished_at = NULL WHERE id = '{run}'; "
        f"DELETE FROM orchestrator_events WHERE run = '{run}' AND kind = 'wave'",
    )
    return run


def rollbacks(database: str) -> list[tuple[str, str]]:
    """Rollbacks in the journal, and how they stand."""
    found = fetch(database, "SELECT id, status FROM orchestrator_runs WHERE command = 'rollback'")
    return [(run, status) for run, status in found]


async def test_killed_when_all_were_through(project: Project, hands: Hands, database: str) -> None:
    """on_failure: rollback is carried out by whoever takes the run over; who takes it over after that does nothing.

    Who was taken out of the fleet meanwhile keeps nobody from going back.
    """
    run = await given_up(project, database)
    assert (await orchestrator.offboard(project.fleet, tenants=["b"])).satisfied
    with workers(project, 1):
        assert (await hands.take_over(RunJob(run, True, DBOS, fresh=True)))["status"] == "failed"
    (wave,) = (await hands.shown(run)).waves
    assert rollbacks(database) == [(wave.rolled_back, "succeeded")]
    assert {each.to_heads for each in (await hands.shown(str(wave.rolled_back))).tenants} == {()}

    assert (await hands.take_over(RunJob(run, True, DBOS, fresh=True)))["status"] == "failed"
    assert rollbacks(database) == [(wave.rolled_back, "succeeded")]


async def test_killed_before_the_rollback_was_begun(project: Project, hands: Hands, database: str) -> None:
    """The run that was written down with the wave is the one that takes it back."""
    run = await given_up(project, database)
    execute(database, f"UPDATE orchestrator_runs SET status = 'failed', finished_at = now() WHERE id = '{run}'")
    meant = WaveRecord("first", WaveState.FAILED, reason="1 of 3 tenants failed", rolled_back="20260101-000000-meant")
    hands.journal.record_event(meant.event(run))
    await hands.journal.flush()
    with workers(project, 1):
        await hands.take_over(RunJob(run, True, DBOS, fresh=True))
    assert rollbacks(database) == [(meant.rolled_back, "succeeded")]
    with pytest.raises(UsageError, match=f"taken back by run {meant.rolled_back}$"):
        await orchestrator.resume(project.fleet, run)


@dataclass(slots=True)
class Heard(Silent):
    """Looks on, and keeps the names of the waves that it is told of."""

    waves: list[str] = field(default_factory=list)

    def wave(self, record: WaveRecord) -> None:
        """Kept."""
        self.waves.append(record.name)

    async def all(self) -> list[str]:
        """So far."""
        return self.waves


def written_by(database: str, run: str, pid: int, started: str | None) -> None:
    """Have the journal say that a process of this machine carries ``run`` out."""
    actor = f"actor_pid = {pid}, actor_process_started = '{started}'"
    execute(database, f"UPDATE orchestrator_runs SET {actor} WHERE id = '{run}'")


@asynccontextmanager
async def taking_back(project: Project, hands: Hands, database: str) -> AsyncIterator[tuple[str, str]]:
    """A run that a worker has, and the one that it takes a wave back by, whose chunks nobody takes; then it is gone."""
    run = await given_up(project, database)
    job = RunJob(run, True, DBOS, fresh=True)
    await asyncio.to_thread(hands.engine.enqueue_run, Piece(run, hands.queues.runs, job.as_json()))
    execute(database, f"UPDATE {SCHEMA}.workflow_status SET status = 'PENDING' WHERE workflow_uuid = '{run}'")
    carrying_out = asyncio.create_task(hands.take_over(job))
    chunks = f"{SCHEMA}.workflow_status WHERE name = 'orchestrator.chunk'"
    try:

        async def given_out() -> object:
            return fetch(database, f"SELECT FROM {chunks}")

        await until(given_out, bool)
        ((back, _),) = rollbacks(database)
        # It was not this process that wrote it down.
        written_by(database, back, 1, f"{process_realm()}/gone")
        yield run, back
    finally:
        carrying_out.cancel()
        await asyncio.wait({carrying_out})
    killed = (
        f"UPDATE orchestrator_runs SET status = 'running', finished_at = NULL, heartbeat_at = NULL WHERE id = '{back}'"
    )
    execute(database, f"DELETE FROM {chunks}; {killed}")


async def test_its_rollback_is_the_workers(project: Project, hands: Hands, database: str) -> None:
    """What takes a wave back goes on as long as workers have its run: nobody else carries it on; then it may be."""
    async with taking_back(project, hands, database) as (run, back):
        for name in (back, None):
            with pytest.raises(UsageError, match=f"{back} is still going: workers have it"):
                await orchestrator.resume(project.fleet, name)
        heard = Heard()
        following = asyncio.create_task(follow_run(project.fleet, back, Watch(heard)))
        for told in ("once", "twice"):
            hands.journal.record_event(WaveRecord(told, WaveState.DONE).event(back))
            await hands.journal.flush()
            await until(heard.all, lambda waves, told=told: told in waves)
        listed = {each.id: each.status for each, _ in (await orchestrator.list_runs(project.fleet)).runs}
        assert listed == {run: RunStatus.FAILED, back: RunStatus.RUNNING}
        execute(database, f"UPDATE {SCHEMA}.workflow_status SET status = 'ERROR' WHERE workflow_uuid = '{run}'")
        assert (await following).run.status is RunStatus.INTERRUPTED
    # Cancelled while no worker has it, it has ended; the run that it is a part of still waits for one.
    execute(database, f"UPDATE {SCHEMA}.workflow_status SET status = 'ENQUEUED' WHERE workflow_uuid = '{run}'")
    await cancel(project.fleet, back)
    assert hands.engine.standings([run]) == {run: Standing.QUEUED}
    assert (await hands.shown(back)).run.finished_at is not None


async def test_a_rollback_that_another_process_is_at(
    project: Project, hands: Hands, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever takes a run over waits for it, and gives out nothing of that meanwhile."""
    caplog.set_level("INFO")
    async with taking_back(project, hands, database) as (run, back):
        pass
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=PIPE)
    written_by(database, back, other.pid, process_identity(other.pid))
    taking_over = asyncio.create_task(hands.take_over(RunJob(run, True, DBOS, fresh=True)))

    async def told() -> str:
        return caplog.text

    await until(told, lambda text: f"run {back}: process {other.pid} on " in text)
    shown = await asyncio.to_thread(Workspace(project.path).json, "runs", "show", back)
    assert shown["status"] == "running"
    # It comes to its end by itself; nobody else has begun anything.
    execute(database, f"UPDATE orchestrator_runs SET status = 'succeeded', finished_at = now() WHERE id = '{back}'")
    await taking_over
    other.kill()
    await other.wait()
    assert hands.engine.under(f"{back}:") == {}


async def test_a_rollback_that_was_to_end(project: Project, hands: Hands, database: str) -> None:
    """One that somebody had cancelled when its worker was killed ends by that, and no other is begun."""
    async with taking_back(project, hands, database) as (run, back):
        pass
    await cancel(project.fleet, back)
    assert (await hands.shown(back)).run.finished_at is None, "its worker is the one to end it"
    # This very process may have begun it, before the journal was away for a while.
    written_by(database, back, os.getpid(), process_identity(os.getpid()))
    for _ in range(2):
        assert (await hands.take_over(RunJob(run, True, DBOS, fresh=True)))["status"] == "failed"
        assert rollbacks(database) == [(back, "cancelled")]
    assert [wave.rolled_back for wave in (await hands.shown(run)).waves] == [back]
    left = await hands.shown(back)
    assert left.run.finished_at is not None
    assert set(statuses(left).values()) == {"not_started"}


async def test_a_rollback_that_could_not_be_carried_on(project: Project, hands: Hands, database: str) -> None:
    """It stays the one that takes the wave back, whatever has kept a worker from it."""
    async with taking_back(project, hands, database) as (run, back):
        pass
    waves = [{"name": "first", "percent": 100, "on_failure": "rollback"}]
    tenants(project, database, "a", waves=waves)
    for _ in range(2):
        await hands.take_over(RunJob(run, True, DBOS, fresh=True))
        (wave,) = (await hands.shown(run)).waves
        assert wave.rolled_back == back
        assert str(wave.reason).count("what takes it back has not come to its end") == 1
    tenants(project, database, *THREE, waves=waves)
    with workers(project, 1):
        await hands.take_over(RunJob(run, True, DBOS, fresh=True))
    assert rollbacks(database) == [(back, "succeeded")]
    assert (await hands.shown(back)).run.given_as == run


async def test_approved_once(project: Project, hands: Hands, database: str) -> None:
    """An approval lets the wave be followed that waited when it was given, and not the next, whoever has the run."""
    order = [{"name": name, "count": 1, "approve": "manual"} for name in ("first", "second")]
    tenants(project, database, *THREE, waves=order)
    run = (await project.upgrade()).run.id
    second = await orchestrator.resume(project.fleet, run, provision=True, execution=Execution(approve=True))
    assert [(wave.name, wave.state.value) for wave in second.waves] == [("first", "done"), ("second", "waiting")]
    execute(database, f"UPDATE orchestrator_runs SET status = 'running', finished_at = NULL WHERE id = '{run}'")

    approving = RunJob(run, True, replace(DBOS, approve=True), fresh=False, approves="first")
    assert (await hands.take_over(approving))["status"] == "paused"
    assert statuses(await hands.shown(run)) == {"a": "succeeded", "b": "succeeded", "c": "not_started"}


async def test_what_was_approved_is_told(project: Project, hands: Hands, database: str) -> None:
    """Whoever gives the run to workers tells them which wave it was that waited."""
    tenants(project, database, *THREE, waves=[{"name": "first", "count": 1, "approve": "manual"}])
    run = (await project.upgrade()).run.id
    await orchestrator.resume(project.fleet, run, execution=replace(DETACHED, approve=True))
    ((told,),) = fetch(database, f"SELECT inputs FROM {SCHEMA}.workflow_input WHERE workflow_uuid = '{run}'")
    assert '"approves":"first"' in told.replace(": ", ":")


async def test_paused_while_it_is_planned(project: Project, hands: Hands, database: str) -> None:
    """A pause that is asked for while a worker plans the run is not written over when it begins."""
    asks = f"{sys.executable} -m orchestrator runs pause last"
    tenants(project, database, *THREE, hooks={"before_run": [{"command": asks}]})
    run = (await project.upgrade(execution=DETACHED)).run.id
    # A worker has it: otherwise it would be taken back.
    execute(database, f"UPDATE {SCHEMA}.workflow_status SET status = 'PENDING' WHERE workflow_uuid = '{run}'")

    assert (await hands.take_over(RunJob(run, True, DBOS, fresh=True)))["status"] == "paused"
    assert statuses(await hands.shown(run)) == dict.fromkeys(THREE, "not_started")


async def test_cancelled_while_it_is_handed_over(project: Project, hands: Hands, database: str) -> None:
    """A run that somebody cancels while the command plans it is not given to workers."""
    tenants(project, database, *THREE, hooks={"before_run": [{"command": "exit 1"}]})
    run = (await project.upgrade(execution=DETACHED)).run.id
    await hands.take_over(RunJob(run, True, DBOS, fresh=True))
    execute(database, f"UPDATE {SCHEMA}.workflow_status SET status = 'SUCCESS' WHERE workflow_uuid = '{run}'")
    connection = await asyncpg.connect(database)
    try:
        async with connection.transaction():
            await connection.execute("UPDATE orchestrator_runs SET status = 'cancelled' WHERE id = $1", run)
            again = asyncio.create_task(orchestrator.resume(project.fleet, run, provision=True, execution=DETACHED))
            waiting = "SELECT FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
            await until(lambda: connection.fetch(waiting), bool)
    finally:
        await connection.close()

    assert (await again).run.status is RunStatus.CANCELLED
    assert hands.engine.standings([f"{run}+2"]) == {}
    assert (await hands.shown(run)).run.finished_at is not None


@asynccontextmanager
async def locked(url: str, table: str) -> AsyncIterator[asyncpg.Connection]:
    """Nobody can write into a table of the journal."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute(f"LOCK TABLE {table} IN SHARE MODE")
            yield connection
    finally:
        await connection.close()


async def test_taken_back_while_somebody_looks_on(project: Project, hands: Hands, database: str) -> None:
    """The journal says how the run has ended before whoever looks on can see that no worker has it any more."""
    run = (await project.upgrade(execution=DETACHED)).run.id
    async with locked(database, "orchestrator_attempts") as connection:
        asked = asyncio.create_task(cancel(project.fleet, run))
        waiting = "SELECT FROM pg_locks WHERE NOT granted AND relation = 'orchestrator_attempts'::regclass"
        await until(lambda: connection.fetch(waiting), bool)
        assert hands.engine.standings([run]) == {run: Standing.QUEUED}
    await asked
    assert hands.engine.standings([run]) == {run: Standing.CANCELLED}
    assert (await hands.shown(run)).run.status is RunStatus.CANCELLED


async def test_killed_before_it_was_given_out(project: Project, hands: Hands, database: str) -> None:
    """A run that is in the journal, and that no worker will take: it is told so, and given out when it is resumed."""
    command = [sys.executable, "-m", "orchestrator", "upgrade", "--provision", "--executor", "dbos"]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=project.path, env=Workspace.environment(), stdout=DEVNULL, stderr=DEVNULL
    )
    async with locked(database, f"{SCHEMA}.workflow_status") as connection:
        waiting = f"SELECT FROM pg_locks WHERE NOT granted AND relation = '{SCHEMA}.workflow_status'::regclass"
        await until(lambda: connection.fetch(waiting), bool)
        assert (await hands.shown("last")).run.status is RunStatus.RUNNING
        with pytest.raises(UsageError, match="still going"):
            await orchestrator.resume(project.fleet)
        process.kill()
        await process.wait()

    left = await hands.shown("last")
    assert (left.run.status, left.run.finished_at) == (RunStatus.INTERRUPTED, None)
    listed = await orchestrator.list_runs(project.fleet)
    assert [run.status for run, _ in listed.runs] == [RunStatus.INTERRUPTED]
    assert hands.engine.standings([left.run.id]) == {}
    with workers(project, 1):
        again = await orchestrator.resume(project.fleet, execution=DBOS)
    assert (again.run.id, statuses(again)) == (left.run.id, dict.fromkeys(THREE, "succeeded"))
    assert sorted(name for (name,) in fetch(database, "SELECT tenant FROM public.seen")) == THREE


async def test_behind_another_run(
    project: Project, hands: Hands, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever looks at a run that waits is told for which, and until when that one bakes."""
    first = (await project.upgrade(execution=DETACHED)).run.id
    second = await project.upgrade(execution=DETACHED)
    assert second.waits == (await hands.shown(second.run.id)).waits == Waiting(first)
    assert (await hands.shown(first)).waits == Waiting(None)

    watch = Watch()
    following = asyncio.create_task(follow_run(project.fleet, second.run.id, watch))

    async def told() -> str:
        return caplog.text

    await until(told, lambda text: f"run {second.run.id} waits behind run {first}\n" in text)
    execute(database, f"UPDATE {SCHEMA}.workflow_status SET status = 'PENDING' WHERE workflow_uuid = '{first}'")
    baking = WaveRecord("canary", WaveState.BAKING, until=datetime(2100, 1, 1, 12, tzinfo=UTC))
    hands.journal.record_event(baking.event(first))
    await hands.journal.flush()
    line = f"waits behind run {first}, whose wave canary bakes until 2100-01-01 12:00:00 UTC"
    await until(told, lambda text: f"run {second.run.id} {line}\n" in text)
    watch.stop.request()
    assert (await following).waits == Waiting(first, "canary", baking.until)

    command = Workspace(project.path)
    assert f"it {line}\n" in command.run("runs", "show", second.run.id).stdout
    waits = {"behind": first, "wave": "canary", "until": "2100-01-01T12:00:00+00:00"}
    assert command.json("runs", "show", second.run.id)["waits"] == waits
    assert "waits" not in command.json("runs", "show", first)
