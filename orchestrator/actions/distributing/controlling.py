"""The worker that has a run as a whole: it carries the run on from wherever it stands, as ``resume`` does.

So nothing of a run is kept in the engine but that it is to be done: where it stands is in the journal, where tenants
are is in their databases. When this worker dies, the next one begins here again. A bake ends when the journal says.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from orchestrator.actions.attempting import NOT_SEEN
from orchestrator.actions.distributing.given import waiting_wave
from orchestrator.actions.distributing.jobs import ChunkJob, RunJob
from orchestrator.actions.distributing.muster import OtherDirectory
from orchestrator.actions.distributing.place import queues_of
from orchestrator.actions.execution import DBOS, Execution, Watch
from orchestrator.actions.project import Project
from orchestrator.actions.resume import resume
from orchestrator.actions.stopping import ended_as
from orchestrator.engine.client import OPEN as NOT_OVER
from orchestrator.engine.client import Engine
from orchestrator.engine.queues import PLACES, Queues
from orchestrator.engine.surely import surely
from orchestrator.errors import JournalError, OrchestratorError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.secrets import mask
from orchestrator.history.directory import History
from orchestrator.journal.journal import Journal
from orchestrator.journal.records import AttemptRecord, RunRecord
from orchestrator.rollout.chunks import Chunk
from orchestrator.rollout.distributed import ChunkExecutor
from orchestrator.rollout.executor import Executor
from orchestrator.rollout.plan import Plan, PlannedWave
from orchestrator.rollout.planning import Request
from orchestrator.rollout.stop import Stop
from orchestrator.rollout.watching import Silent
from orchestrator.rollout.waves import EVENT as WAVE_EVENT
from orchestrator.rollout.waves import waves_of, with_rollbacks
from orchestrator.statuses import ASKED, RunStatus

#: Seconds between two looks at chunks that an earlier worker has given out, and until a journal is asked again.
_LOOK, _AGAIN = 0.25, 1.0

log = logging.getLogger("orchestrator.worker")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Crew:
    """The workers, as one run's executors see them. See :class:`~orchestrator.actions.execution.Workforce`."""

    engine: Engine
    job: RunJob
    #: The workflow of this time that the run was given to workers.
    part: str

    @property
    def run(self) -> str:
        """The id of the run that they were given."""
        return self.job.run

    def executor(
        self,
        project: Project,
        journal: Journal,
        record: RunRecord,
        plan: Plan,
        request: Request,
        execution: Execution,
        budgets: Mapping[str, tuple[str, int]],
        earlier: Mapping[str, AttemptRecord],
    ) -> Executor:
        """What gives them chunks of ``plan``."""
        missing = {each.tenant.id for each in plan.tenants if each.state in NOT_SEEN}
        caps: dict[str, int] = {}
        for identity, cap in budgets.values():
            caps[identity] = min(cap, caps.get(identity, cap))
        same_cause = None if execution.continue_on_error else project.fleet.policy.same_cause

        def job(wave: PlannedWave, chunk: Chunk, failures: int) -> dict[str, Any]:
            names = [each.tenant.id for each in chunk.tenants]
            return ChunkJob.of(
                record.id,
                wave,
                chunk,
                part=self.part,
                missing=tuple(name for name in names if name in missing),
                tried={name: earlier[name].attempts for name in names if name in earlier and earlier[name].attempts},
                cap=caps[chunk.server],
                failures=failures,
                same_cause=same_cause,
                provision=request.provision,
                execution=execution,
                fresh=not earlier,
                digest=project.history.digest,
            ).as_json()

        async def disconnect() -> None:
            await asyncio.gather(*(database.close() for database in project.databases.values()))

        return ChunkExecutor(
            run=record.id,
            engine=self.engine,
            journal=journal,
            queues=queues_of(project),
            budgets=budgets,
            jobs=execution.jobs,
            job=job,
            disconnect=disconnect,
            earlier=earlier,
        )


async def carry_out(
    fleet: Fleet, engine: Engine, journal: Journal, queues: Queues, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Do a run as a whole.

    Args:
        fleet: as loaded.
        engine: opened.
        journal: opened for writing, to look into; the run opens its own.
        queues: of this worker.
        given: what was put into the queue, with ``id`` and ``again``.

    Raises:
        OtherDirectory: the directory is no longer the one that this worker began with.

    Returns:
        ``status``, or ``error`` with ``message`` and ``hint`` where it could not be carried out.
    """
    job = RunJob.from_json(given)
    again = bool(given["again"])
    digest = await asyncio.to_thread(lambda: History.beside(fleet.root).digest)
    if Queues(queues.fleet, digest[:12]) != queues:
        raise OtherDirectory(
            f"the shared directory here is no longer {queues.digest}, which run {job.run} is of",
            hint="put the same files there, and start the worker again",
        )
    log.info("run %s: %s", job.run, "carried on, whose worker is gone" if again else "begun")
    ended: dict[str, Any] | None = None
    # Also for what a worker before may have given out and nobody has taken; and by the time that there are chunks,
    # every worker looks into them.
    await _asked(lambda: engine.register(queues, PLACES, len(fleet.servers)))
    while ended is None:
        try:
            waves = waves_of(await journal.events(job.run, kind=WAVE_EVENT))
            for run in with_rollbacks(job.run, waves.values()):
                await _adopt(engine, queues, run)
            ended = await _carried_on(fleet, engine, journal, job, str(given["id"]), again=again)
        except JournalError as error:
            # While its server is away, nothing can be decided; whether this process may go on, its slot will say.
            log.warning("run %s: %s; tried again", job.run, error.message)
            await asyncio.sleep(_AGAIN)
            again = True
    await _asked(lambda: engine.close(engine.queues_of_chunks(queues)))
    log.info("run %s: %s, %s chunks", job.run, ended.get("status") or ended["error"]["message"], ended.get("chunks", 0))
    return ended


async def _carried_on(
    fleet: Fleet, engine: Engine, journal: Journal, job: RunJob, part: str, *, again: bool
) -> dict[str, Any]:
    asked = await journal.standing(job.run)
    if asked in ASKED:
        await ended_as(journal, job.run, asked)
        return {"status": asked.value}
    # Where an earlier worker has let that wave be followed, another may wait by now, which nobody has approved.
    approve = job.approves is not None and await waiting_wave(journal, job.run) == job.approves
    execution = replace(job.execution, approve=approve, workforce=Crew(engine, job, part))
    try:
        result = await resume(
            fleet,
            job.run,
            provision=job.provision,
            execution=execution,
            watch=Watch(Silent(), Stop()),
            fresh=job.fresh and not again,
            taken_over=job.ended if again else None,
        )
    except JournalError:
        raise
    except OrchestratorError as error:
        await ended_as(journal, job.run, RunStatus.FAILED)
        return {"error": {"message": error.message, "hint": error.hint}}
    except Exception as error:
        log.error("run %s broke\n%s", job.run, mask(traceback.format_exc().rstrip()))  # noqa: TRY400  unmasked
        await ended_as(journal, job.run, RunStatus.INTERRUPTED)
        hint = f"orchestrator resume {job.run} --executor {DBOS}"
        return {"error": {"message": f"{type(error).__name__}: {error}", "hint": hint}}
    chunks = 0
    for run in with_rollbacks(result.run.id, result.waves):
        chunks += await _forget(engine, run)
    return {"status": result.run.status.value, "chunks": chunks}


async def _adopt(engine: Engine, queues: Queues, run: str) -> None:
    """Wait for what a worker before has given out: as long as somebody is at it, nobody else is to be."""
    # It may have died while it held them.
    await _asked(lambda: engine.release(engine.queues_of_chunks(queues)))
    standings = await _asked(lambda: engine.under(f"{run}:"))
    while any(standing in NOT_OVER for standing in standings.values()):
        await asyncio.sleep(_LOOK)
        standings = await _asked(lambda: engine.under(f"{run}:"))
    await _forget(engine, run)


async def _forget(engine: Engine, run: str) -> int:
    """Take the chunks of a run out of the engine that are over: what they came to is in the journal.

    Returns:
        How many they were.
    """
    found = await _asked(lambda: engine.under(f"{run}:"))
    over = [id for id, standing in found.items() if standing not in NOT_OVER]
    await _asked(lambda: engine.forget(over))
    return len(over)


async def _asked(function: Callable[[], T]) -> T:
    """What the engine answers, when it does."""
    return await surely(lambda: asyncio.to_thread(function), log)
