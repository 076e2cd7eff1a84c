"""Give a planned run to the workers, and look on."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from orchestrator.actions.distributing.following import followed
from orchestrator.actions.distributing.given import given, opened_engine, waiting_wave
from orchestrator.actions.distributing.jobs import RunJob
from orchestrator.actions.distributing.place import Place, queues_of, require_reachable, require_shared_register
from orchestrator.actions.earlier import Earlier
from orchestrator.actions.execution import DBOS, Execution, Watch
from orchestrator.actions.project import Project
from orchestrator.actions.runs import result_of
from orchestrator.actions.stopping import ended_as
from orchestrator.engine.client import Engine, Piece
from orchestrator.engine.queues import Queues
from orchestrator.errors import UsageError
from orchestrator.journal.journal import Journal
from orchestrator.journal.records import EXECUTOR, RunRecord
from orchestrator.rollout.plan import Plan
from orchestrator.rollout.planning import Request
from orchestrator.rollout.result import RunResult
from orchestrator.rollout.run import pending
from orchestrator.rollout.through import ended_at

log = logging.getLogger("orchestrator.run")


async def handed_over(
    project: Project,
    journal: Journal,
    record: RunRecord,
    plan: Plan,
    request: Request,
    execution: Execution,
    watch: Watch,
    earlier: Earlier,
) -> RunResult:
    """Write a run down, give it to the workers, and follow it, unless it is to be left to them.

    Args:
        project: opened.
        journal: opened for writing.
        record: the run; already in the journal when it is carried on.
        plan: for the tenants that are still to be done; the worker that has the run as a whole makes it again.
        request: what the plan was made from.
        execution: how.
        watch: who looks on; where it is stopped, the run goes on without it.
        earlier: what the run had done before it was carried on.

    Raises:
        OrchestratorError: it cannot be given to workers; nothing was touched.
    """
    place = Place.of(project.fleet)
    require_reachable(project, (each.tenant for each in plan.tenants))
    if record.command == "onboard":
        require_shared_register(project.fleet, (each.tenant for each in plan.tenants))
    async with opened_engine(place) as engine:
        before = await given(engine, record.id)
        if before.is_open:
            raise UsageError(
                f"run {record.id} is with the workers already",
                hint=f"look on with: orchestrator runs show {record.id} --follow",
            )
        # Those that the plan was made with would count on the servers beside the workers' own.
        await asyncio.gather(*(database.close() for database in project.databases.values()))
        queues = queues_of(project)
        await asyncio.to_thread(engine.register, queues, (), len(project.fleet.servers))
        record = replace(record, options={**record.options, EXECUTOR: DBOS})
        # What is known of the waves is read by the worker that has the run.
        await journal.flush()
        rows = [earlier.attempts.get(each.tenant, each) for each in pending(record.id, plan)]
        asked = await journal.start_run(record, rows, earlier.record)
        if asked is not None:
            await ended_as(journal, record.id, asked)
            return await result_of(journal, record.id)
        journal.let_go(record.id)
        approves = await waiting_wave(journal, record.id) if execution.approve else None
        ended = ended_at(earlier.attempts.values())
        job = RunJob(record.id, request.provision, execution, not earlier.attempts, approves, ended)
        await asyncio.to_thread(engine.enqueue_run, Piece(before.next_id, queues.runs, job.as_json()))
        watch.observer.started(plan, record.id)
        await _look_for_workers(engine, queues)
        if execution.detach:
            return await result_of(journal, record.id)
        return await followed(journal, engine, await given(engine, record.id), watch, earlier.attempts)


async def _look_for_workers(engine: Engine, queues: Queues) -> None:
    """Say so where nobody is there who would take the run."""
    there = await asyncio.to_thread(engine.workers)
    if any(worker.mark == queues.mark for worker in there):
        return
    others = f"; {len(there)} with another directory or version take no part" if there else ""
    log.warning("no worker is there yet, and the run waits for one%s: orchestrator worker", others)
