"""What it takes to attempt a run's tenants in this process: all of them, or the chunk that a worker was given."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial

from orchestrator.actions.execution import Execution
from orchestrator.actions.onboarding.registering import is_listed
from orchestrator.actions.project import Project
from orchestrator.fleet.tenant import Tenant
from orchestrator.journal.journal import Journal
from orchestrator.journal.records import AttemptRecord, RunRecord
from orchestrator.migration.attempt import Migrator
from orchestrator.migration.seam import self_check
from orchestrator.rollout.backups import Backups
from orchestrator.rollout.cohorts import Cohorts
from orchestrator.rollout.foresight import Foresight
from orchestrator.rollout.hooks import Hooks
from orchestrator.rollout.onboarding import Asked, Reception
from orchestrator.rollout.plan import Plan
from orchestrator.rollout.steps import Steps
from orchestrator.rollout.stop import Stop
from orchestrator.rollout.tries import Tries
from orchestrator.rollout.watching import Observer
from orchestrator.statuses import TenantStatus

log = logging.getLogger("orchestrator.run")

#: States of tenants whose schema, database or file nobody has seen when the run was planned.
NOT_SEEN = frozenset({TenantStatus.UNPROVISIONED, TenantStatus.UNREACHABLE})


@dataclass(frozen=True, slots=True)
class Attempting:
    """Of one run, or of one chunk of it."""

    migrator: Migrator
    tries: Tries
    hooks: Hooks
    #: ``None`` where none are made.
    backups: Backups | None


async def attempting(
    project: Project,
    journal: Journal,
    record: RunRecord,
    plan: Plan,
    execution: Execution,
    *,
    provision: bool,
    observer: Observer,
    stop: Stop,
    earlier: Mapping[str, AttemptRecord],
    onboarding: Asked | None = None,
    there: Collection[str] | None = None,
    cohorts: Cohorts | None = None,
    serial: asyncio.Lock | None = None,
) -> Attempting:
    """Make ready.

    Args:
        project: opened.
        journal: opened for writing.
        record: the run.
        plan: for those to be attempted.
        execution: how.
        provision: make missing schemas, databases and files.
        observer: who looks on.
        stop: cuts off what hangs.
        earlier: what the run had done before, by tenant id.
        onboarding: what it does for tenants that are new; ``None`` where none are.
        there: tenants that were there when the run was planned; ``None`` for those of ``plan`` that were seen.
        cohorts: those of the run that this process knows already.
        serial: taken in turns by tenants whose revisions keep state in the process.

    Raises:
        OrchestratorError: backups cannot be made; nothing was touched.
    """
    application = f"orchestrator {record.id}"
    backups = None
    if execution.backup is not None and plan.pending:
        await project.require_backups(execution.backup, plan.pending)
        backups = Backups(record.id, execution.backup, project.fleet, journal, project.databases, application)
    concurrent = await self_check()
    if not concurrent:
        log.warning("tenants are migrated one at a time: with this version of Alembic, they could not be kept apart")
    seen = {each.tenant.id for each in plan.tenants if each.state not in NOT_SEEN}
    migrator = Migrator(
        project.fleet,
        project.history,
        project.loop,
        project.databases,
        application=application,
        lock_wait=execution.lock_wait,
        provision=provision,
        there=frozenset(seen if there is None else there),
        is_listed=partial(is_listed, project.servers, project.fleet),
        asked=execution.limits,
        tries=project.fleet.policy.retries + 1,
        concurrent=concurrent,
        backup=None if backups is None else backups.make,
    )
    cohorts = cohorts_of(project, execution) if cohorts is None else cohorts
    # A dump takes far longer than what a replay saves, and wants the lock that a replay takes by itself.
    if execution.replay and concurrent and backups is None and onboarding is None:
        cohorts.expect(plan)
    hooks = Hooks(project.fleet.hooks, project.fleet.root, about(record), stop)
    tries = Tries(
        record.id,
        record.command,
        migrator,
        journal,
        observer,
        cohorts,
        Steps(record.id, journal, retry=execution.retry_partial or record.command == "stamp"),
        hooks,
        Foresight(record.id, project.history.graph, journal, earlier),
        project.fleet.policy.retries,
        reception=None if onboarding is None else Reception(record.id, onboarding, migrator, journal),
        shapes=execution.verify_all,
        serial=serial or asyncio.Lock(),
    )
    return Attempting(migrator, tries, hooks, backups)


def cohorts_of(project: Project, execution: Execution) -> Cohorts:
    """Where a run's tenants are to be compared; none is expected yet."""
    return Cohorts(project.history, project.databases, project.transcripts, verify_all=execution.verify_all)


def about(record: RunRecord) -> dict[str, object]:
    """The run, for hooks and checks."""
    return {"run": record.id, "command": record.command, "target": list(record.target)}


def connections_each(execution: Execution, pending: Collection[Tenant]) -> int:
    """How many connections each tenant uses at once."""
    return 2 if execution.backup is not None and pending else 1
