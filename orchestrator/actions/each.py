"""Carry out a command that does the same to each tenant, as a run of the journal's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from orchestrator.actions.another_fleet import is_elsewhere, named
from orchestrator.actions.execute import backups_of
from orchestrator.actions.execution import Execution, Watch
from orchestrator.actions.places import SEEN, places_event
from orchestrator.actions.project import Project
from orchestrator.actions.stopping import heeding
from orchestrator.databases.answers import Reading
from orchestrator.databases.failures import Failure
from orchestrator.fleet.fleet import FailureBudget
from orchestrator.fleet.tenant import Limits, Tenant
from orchestrator.journal.journal import Journal
from orchestrator.journal.records import Actor, RunRecord, new_run_id
from orchestrator.rollout.each import Done, Each
from orchestrator.rollout.plan import SINGLE_WAVE, Plan, PlannedTenant, PlannedWave
from orchestrator.rollout.result import RunResult, run_status
from orchestrator.rollout.run import pending
from orchestrator.statuses import RunStatus, TenantStatus


def new_run(project: Project, command: str, options: Mapping[str, Any]) -> RunRecord:
    """The record of a run that begins now."""
    record = RunRecord(
        id=new_run_id(),
        command=command,
        target=(),
        requested_target="",
        status=RunStatus.RUNNING,
        started_at=datetime.now(UTC),
        finished_at=None,
        actor=Actor.current(project.fleet.root),
        directory_digest=project.history.digest,
        options=options,
    )
    return named(project.fleet, record)


async def looked_at(
    project: Project, tenants: Sequence[Tenant], judge: Callable[[Tenant, Reading], Failure | None]
) -> list[PlannedTenant]:
    """Where ``tenants`` stand, and who of them is not to be done.

    Args:
        project: opened.
        tenants: whom.
        judge: why a tenant that could be read is not to be done; ``None`` where it is.
    """
    found = await project.servers.inventory(tenants, project.loop.version_table)

    def planned(tenant: Tenant) -> PlannedTenant:
        reading = found.readings[tenant.id]
        kind = found.kinds.get(tenant.server, ("", ""))
        failure, verdict = reading.failure, TenantStatus.FAILED
        if failure is None:
            failure, verdict = judge(tenant, reading), TenantStatus.BLOCKED
        if failure is None:
            verdict = TenantStatus.PENDING
        heads = None if reading.failure is not None else reading.heads
        return PlannedTenant(tenant, *kind, heads, verdict, "", (), (), verdict, failure)

    return [planned(tenant) for tenant in tenants]


async def run_each(
    project: Project,
    journal: Journal,
    record: RunRecord,
    tenants: Sequence[PlannedTenant],
    act: Callable[[PlannedTenant], Awaitable[Done]],
    execution: Execution,
    watch: Watch,
) -> RunResult:
    """Do ``act`` to each of ``tenants`` that is to be done, and write down how it ended.

    Args:
        project: opened.
        journal: opened for writing.
        record: the run.
        tenants: in order.
        act: what is done to one of them.
        execution: how many at once.
        watch: who looks on.
    """
    plan = Plan(record.command, None, (PlannedWave(SINGLE_WAVE, tuple(tenants), FailureBudget(count=None)),))
    each = Each(
        id=record.id,
        plan=plan,
        act=act,
        recorder=journal,
        observer=watch.observer,
        stop=watch.stop,
        # Each uses the connection with the lock, and its program's.
        budgets=await project.budgets(plan.pending, 2),
        jobs=execution.at_once,
        retries=project.fleet.policy.retries,
    )
    await journal.start_run(record, pending(record.id, plan))
    if seen := [each.tenant for each in tenants if not is_elsewhere(each)]:
        journal.record_event(await places_event(project, record.id, seen, SEEN))
    watch.observer.started(plan, record.id)
    try:
        async with heeding(journal, record.id, watch.stop):
            attempts = await each.execute()
    except BaseException:
        await journal.finish_run(record.id, RunStatus.INTERRUPTED, datetime.now(UTC))
        raise
    ended = datetime.now(UTC)
    finished = replace(record, status=run_status(attempts, watch.stop.asked), finished_at=ended)
    await journal.finish_run(record.id, finished.status, ended)
    return RunResult(finished, attempts, backups=await backups_of(journal, record.id))


def limits_of(project: Project, execution: Execution, tenant: Tenant) -> Limits:
    """The timeouts that hold for ``tenant``."""
    server, policy = project.fleet.server_of(tenant).limits, project.fleet.policy.limits
    return execution.limits.over(tenant.limits).over(server).over(policy)
