"""Carry out a request on the fleet: plan it, write down that it begins, run it, write down how it ended."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from orchestrator.actions.journals import opened_journal
from orchestrator.actions.project import Project, Tenants, migrating
from orchestrator.fleet.fleet import FailureBudget, Fleet
from orchestrator.history.position import is_relative
from orchestrator.journal.journal import Journal
from orchestrator.journal.records import Actor, AttemptRecord, EventRecord, RunRecord, new_run_id
from orchestrator.migration.attempt import Migrator
from orchestrator.migration.loop import TenantLoop
from orchestrator.migration.seam import self_check
from orchestrator.rollout.cohorts import Cohorts
from orchestrator.rollout.outside import appeared, look_outside
from orchestrator.rollout.plan import Plan, Request, longest_first
from orchestrator.rollout.result import RunResult, run_status
from orchestrator.rollout.run import Run, pending
from orchestrator.rollout.stop import Stop
from orchestrator.rollout.watching import Observer, Silent
from orchestrator.statuses import RunStatus, TenantStatus

log = logging.getLogger("orchestrator.run")


@dataclass(frozen=True, slots=True)
class Execution:
    """How a run is carried out, whatever it does."""

    #: Tenants at once over all servers.
    jobs: int = 32
    #: Failures tolerated per wave; ``None`` for what tenants.yaml says (none, without a word).
    max_failures: FailureBudget | None = None
    #: Go on whatever fails.
    continue_on_error: bool = False
    #: Only this wave.
    wave: str | None = None
    #: Seconds to wait for a tenant that another process holds.
    lock_wait: float = 10.0
    #: Replay on the rest of a cohort what two of its tenants were sent, where that is safe.
    replay: bool = True
    #: Compare the shape of every replayed tenant with that of the recorded ones, not only of a few.
    verify_all: bool = False

    @property
    def budget(self) -> FailureBudget | None:
        """The failure budget that these say."""
        return FailureBudget(count=None) if self.continue_on_error else self.max_failures


@dataclass(frozen=True, slots=True)
class Watch:
    """Who looks on, and who may stop it."""

    observer: Observer = field(default_factory=Silent)
    stop: Stop = field(default_factory=Stop)


async def execute(
    fleet: Fleet, request: Request, tenants: Tenants, execution: Execution, watch: Watch, loop: TenantLoop | None = None
) -> RunResult:
    """Plan ``request`` for the selected tenants and run it as a new run.

    Raises:
        OrchestratorError: bad input; nothing was touched.
    """
    project = await Project.open(fleet, loop)
    chosen = project.choose(tenants)
    async with opened_journal(fleet) as journal:
        plan = longest_first(await project.plan(request, chosen), await journal.long_tenants())
        record = RunRecord(
            id=new_run_id(),
            command=request.command,
            target=plan.target,
            requested_target=request.target or "",
            status=RunStatus.RUNNING,
            started_at=datetime.now(UTC),
            finished_at=None,
            actor=Actor.current(fleet.root),
            directory_digest=project.history.digest,
            options={"provision": request.provision, "fixed": _fixed(plan)},
        )
        return await run_plan(project, journal, record, plan, request, execution, watch, {})


def _fixed(plan: Plan) -> dict[str, str]:
    """Where a relative target takes each tenant: resumed later, it must not be counted again."""
    if plan.requested is None or not is_relative(plan.requested):
        return {}
    return {each.tenant.id: each.target for each in plan.tenants if each.path}


def _settled(attempt: AttemptRecord) -> AttemptRecord:
    """A tenant that this part of the run did not mean (another wave's): nobody is at work on it."""
    status = {TenantStatus.PENDING: TenantStatus.NOT_STARTED, TenantStatus.RUNNING: TenantStatus.INTERRUPTED}
    return replace(attempt, status=status.get(attempt.status, attempt.status))


def _tell(outside: list[str], run: str, journal: Journal) -> None:
    """Say what appeared outside all tenants; the run alone cannot tell who made it, and fails nobody for it."""
    if outside:
        names = ", ".join(outside[:5]) + (f" and {len(outside) - 5} more" if len(outside) > 5 else "")
        log.warning("made outside all tenants during the run: %s; see docs/env.md, `A connection of its own`", names)
        journal.record_event(EventRecord(run, None, datetime.now(UTC), "outside", detail={"objects": outside}))


async def run_plan(
    project: Project,
    journal: Journal,
    record: RunRecord,
    plan: Plan,
    request: Request,
    execution: Execution,
    watch: Watch,
    earlier: Mapping[str, AttemptRecord],
) -> RunResult:
    """Run ``plan`` under the name of ``record``.

    Args:
        project: opened.
        journal: opened for writing.
        record: the run; already in the journal when it is carried on.
        plan: for the tenants that are still to be done.
        request: what the plan was made from.
        execution: how.
        watch: who looks on.
        earlier: what the run had done to its tenants before it was carried on, by tenant id; empty for a new run.
    """
    concurrent = await self_check()
    if not concurrent:
        log.warning("tenants are migrated one at a time: with this version of Alembic, they could not be kept apart")
    migrator = Migrator(
        project.fleet,
        project.history,
        project.loop,
        project.databases,
        application=f"orchestrator {record.id}",
        lock_wait=execution.lock_wait,
        provision=request.provision,
        concurrent=concurrent,
    )
    run = Run(
        id=record.id,
        plan=plan,
        migrator=migrator,
        recorder=journal,
        observer=watch.observer,
        stop=watch.stop,
        budgets=await project.budgets(plan.pending),
        jobs=execution.jobs if concurrent else 1,
        retries=project.fleet.policy.retries,
        cohorts=Cohorts(
            plan if execution.replay and concurrent else None,
            project.history,
            project.databases,
            project.transcripts,
            verify_all=execution.verify_all,
        ),
        earlier=earlier,
    )
    await journal.start_run(record, [earlier.get(each.tenant, each) for each in pending(record.id, plan)])
    watch.observer.started(plan, record.id)
    try:
        with migrating(migrator):
            before = await look_outside(plan, project.history, project.databases)
            await run.execute()
            if before:
                _tell(
                    appeared(before, await look_outside(plan, project.history, project.databases)), record.id, journal
                )
    except BaseException:
        await journal.finish_run(record.id, RunStatus.INTERRUPTED, datetime.now(UTC))
        raise
    finally:
        await project.close()
    ended = datetime.now(UTC)
    untouched = {tenant: _settled(attempt) for tenant, attempt in earlier.items() if tenant not in run.attempts}
    for attempt in untouched.values():
        journal.record(attempt)
    everyone = {**earlier, **untouched, **run.attempts}
    attempts = tuple(everyone.values())
    finished = replace(record, status=run_status(attempts, watch.stop.draining), finished_at=ended)
    await journal.finish_run(record.id, finished.status, ended)
    return RunResult(finished, attempts)
