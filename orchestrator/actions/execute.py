"""Carry out a request on the fleet: plan it, write down that it begins, run it, write down how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from orchestrator.actions.another_fleet import is_elsewhere, named
from orchestrator.actions.attempting import about, attempting, connections_each
from orchestrator.actions.earlier import Earlier
from orchestrator.actions.execution import Execution, Watch
from orchestrator.actions.integrity import Integrity, integrity
from orchestrator.actions.journals import opened_journal
from orchestrator.actions.nobody import warn_of_nobody
from orchestrator.actions.partial import left_partial
from orchestrator.actions.places import SEEN, places_event
from orchestrator.actions.project import Project, migrating, read_project
from orchestrator.actions.rolling_back.shapes import as_before
from orchestrator.actions.servers import Servers, Tenants, opened_servers, selection_of
from orchestrator.actions.stopping import heeding
from orchestrator.errors import JournalError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.hooks import Moment
from orchestrator.journal.journal import Journal
from orchestrator.journal.records import Actor, AttemptRecord, RunRecord, new_run_id
from orchestrator.migration.loop import TenantLoop
from orchestrator.rollout.backups import BACKUP, listed
from orchestrator.rollout.checks import Checks
from orchestrator.rollout.executor import Executor, LocalExecutor
from orchestrator.rollout.gates import Gates
from orchestrator.rollout.onboarding import Asked
from orchestrator.rollout.plan import Plan, in_order
from orchestrator.rollout.planning import Request, last_wave
from orchestrator.rollout.result import RunResult, run_status
from orchestrator.rollout.revisions import Revisions
from orchestrator.rollout.run import Run, pending
from orchestrator.rollout.saved_plan import SavedPlan
from orchestrator.rollout.waves import WaveState
from orchestrator.statuses import SATISFIED, RunStatus, TenantStatus
from orchestrator.targets import is_relative

#: Runs that only go forward, so that the way back from them is a way down: what `rollback` takes.
FORWARD = frozenset({"upgrade", "onboard"})
#: So many have an order to begin in.
_ORDERED = 2


async def execute(
    fleet: Fleet,
    request: Request,
    tenants: Tenants,
    execution: Execution,
    watch: Watch,
    loop: TenantLoop | None = None,
    servers: Servers | None = None,
    saved: SavedPlan | None = None,
) -> RunResult:
    """Plan ``request`` for the selected tenants and run it as a new run.

    Args:
        fleet: as loaded from tenants.yaml.
        request: what is to be done.
        tenants: to whom.
        execution: how.
        watch: who looks on.
        loop: given by env.py when it is plain Alembic that runs.
        servers: the fleet's, when they are being asked already.
        saved: the plan that this has to be, made earlier; it says who, and ``tenants`` does not.

    Raises:
        PlanMoved: what ``saved`` was made from has changed; nothing was touched.
        OrchestratorError: bad input; nothing was touched.
    """
    if servers is None:
        async with opened_servers(fleet) as servers:
            return await execute(fleet, request, tenants, execution, watch, loop, servers, saved)
    project = await read_project(fleet, servers, loop)
    if request.command == "upgrade":
        warn_of_nobody(fleet, project.fleet, request.waves)
    if saved is None:
        chosen = project.choose(tenants)
    else:
        saved.require_directory(project.history)
        names = frozenset(saved.selected)
        chosen = tuple(tenant for tenant in project.fleet.tenants if tenant.id in names)
    async with opened_journal(fleet) as journal:
        plan, files = await guarded(project, journal, await project.plan(request, chosen), execution)
        if saved is not None:
            saved.require(plan, await asyncio.to_thread(project.addresses, chosen))
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
            options={
                "provision": request.provision,
                "fixed": _fixed(plan) if saved is None else saved.fixed,
                "waves": execution.waves if saved is None else saved.listed_waves,
                # Where a wave was named or a plan was saved, nobody else is to join when it is resumed.
                "select": None if request.wave or saved else selection_of(tenants).as_json(),
                **_backup_option(execution),
            },
        )
        return await run_plan(project, journal, record, plan, files, request, execution, watch, Earlier())


async def guarded(
    project: Project, journal: Journal, plan: Plan, execution: Execution, run: str | None = None
) -> tuple[Plan, Integrity]:
    """``plan`` in the order to begin in, without tenants that were left partial, if the files may be applied at all.

    Args:
        project: opened.
        journal: opened for writing.
        plan: as it was made.
        execution: how it is to be carried out.
        run: the run that is carried on by it.

    Raises:
        EditedRevision: the file of a revision that tenants have was edited.
    """
    files = await integrity(project, journal)
    if plan.command != "stamp":
        files.require(project.history, execution.accept_edited)
    left = await left_partial(project, journal, plan, run)
    left.settle(journal)
    # A new tenant that was cut off in mid-way is begun anew.
    if plan.command not in ("stamp", "onboard"):
        plan = left.mark(plan, retry=execution.retry_partial)
    if len(plan.pending) < _ORDERED:
        return plan, files
    return in_order(plan, await journal.long_tenants()), files


def _fixed(plan: Plan) -> dict[str, str]:
    """Where a relative target takes each tenant: resumed later, it must not be counted again."""
    if plan.requested is None or not is_relative(plan.requested):
        return {}
    return {each.tenant.id: each.target for each in plan.tenants if each.path}


def _backup_option(execution: Execution) -> dict[str, str]:
    """Resumed later, the run is to go on as carefully as it began."""
    return {} if execution.backup is None else {"backup": str(execution.backup)}


async def backups_of(journal: Journal, run: str) -> tuple[dict[str, Any], ...]:
    """A run's backups as the documents list them; none where the journal cannot be read any more."""
    try:
        return listed(await journal.events(run, kind=BACKUP))
    except JournalError:
        return ()


def _settled(attempt: AttemptRecord) -> AttemptRecord:
    """A tenant that this part of the run did not mean (another wave's): nobody is at work on it."""
    status = {TenantStatus.PENDING: TenantStatus.NOT_STARTED, TenantStatus.RUNNING: TenantStatus.INTERRUPTED}
    return replace(attempt, status=status.get(attempt.status, attempt.status))


async def run_plan(
    project: Project,
    journal: Journal,
    record: RunRecord,
    plan: Plan,
    files: Integrity,
    request: Request,
    execution: Execution,
    watch: Watch,
    earlier: Earlier,
    onboarding: Asked | None = None,
) -> RunResult:
    """Run ``plan`` under the name of ``record``.

    Args:
        project: opened.
        journal: opened for writing.
        record: the run; already in the journal when it is carried on.
        plan: for the tenants that are still to be done.
        files: what the journal knows of the revisions' files.
        request: what the plan was made from.
        execution: how.
        watch: who looks on.
        earlier: what the run had done before it was carried on; nothing for a new one.
        onboarding: what it does for tenants that are new; ``None`` where none are.
    """
    record = named(project.fleet, record)
    if execution.handed_over:
        from orchestrator.actions.distributing.handing import handed_over

        return await handed_over(project, journal, record, plan, request, execution, watch, earlier)
    parts = await attempting(
        project,
        journal,
        record,
        plan,
        execution,
        provision=request.provision,
        observer=watch.observer,
        stop=watch.stop,
        earlier=earlier.attempts,
        onboarding=onboarding,
    )
    migrator, hooks, backups = parts.migrator, parts.hooks, parts.backups
    accepted = project.history.all_of(execution.accept_edited)
    revisions = Revisions(project.history, journal, files.begin(plan, project.history, record.id, accepted))
    declared = project.fleet.waves if request.waves is None else request.waves
    gates = Gates(
        record.id,
        journal,
        watch.observer,
        watch.stop,
        Checks(migrator, project.budgets, about(record)).verdict,
        records=dict(earlier.waves),
        # A stamp changes nothing that could be waited for.
        asked_for=bool(declared) and plan.command != "stamp",
        last=last_wave(declared, {*request.dealt.values(), *(wave.name for wave in plan.waves)}),
        approved=execution.approve,
    )
    budgets = await project.budgets(plan.pending, connections_each(execution, plan.pending))
    executor: Executor
    if execution.workforce is None:
        executor = LocalExecutor(parts.tries, budgets, execution.at_once if migrator.concurrent else 1, watch.stop)
    else:
        executor = execution.workforce.executor(
            project, journal, record, plan, request, execution, budgets, earlier.attempts
        )
    run = Run(
        id=record.id,
        plan=plan,
        recorder=journal,
        observer=watch.observer,
        stop=watch.stop,
        executor=executor,
        foresight=parts.tries.foresight,
        revisions=revisions,
        gates=gates,
        hooks=hooks,
        same_cause=None if execution.continue_on_error else project.fleet.policy.same_cause,
        earlier=earlier.attempts,
        through=earlier.through,
    )
    if not earlier.joining:
        await hooks.before(Moment.BEFORE_RUN, {"tenants": [tenant.id for tenant in plan.pending]})
    rows = [earlier.attempts.get(each.tenant, each) for each in pending(record.id, plan)]
    asked = await journal.start_run(record, rows, earlier.record)
    if asked is not None:
        watch.stop.request(asked)
    revisions.begin()
    forward = plan.pending if plan.command in FORWARD else ()
    if forward:
        journal.record_event(await places_event(project, record.id, forward))
    moved = {tenant.id for tenant in forward}
    seen = [each.tenant for each in plan.tenants if each.tenant.id not in moved and not is_elsewhere(each)]
    if seen:
        journal.record_event(await places_event(project, record.id, seen, SEEN))
    await journal.flush()
    watch.observer.started(plan, record.id)
    try:
        with migrating(migrator):
            async with heeding(journal, record.id, watch.stop):
                done = {attempt.tenant: attempt for attempt in await run.execute()}
        if plan.command == "rollback":
            for attempt in await as_before(project, record, {**earlier.attempts, **done}.values()):
                done[attempt.tenant] = attempt
                journal.record(attempt)
                watch.observer.tenant(attempt)
    except BaseException:
        await journal.finish_run(record.id, RunStatus.INTERRUPTED, datetime.now(UTC))
        raise
    project.servers.disconnect()
    ended = datetime.now(UTC)
    before = earlier.attempts
    untouched = {tenant: _settled(attempt) for tenant, attempt in before.items() if tenant not in run.attempts}
    for attempt in untouched.values():
        journal.record(attempt)
    # In the plan's order, which is that of the journal, too.
    attempts = tuple({**before, **untouched, **done}.values())
    waves = tuple(gates.records.values())
    asked = watch.stop.asked
    if asked in (RunStatus.PAUSED, RunStatus.CANCELLED) and _is_whole(plan, gates, attempts):
        # It was asked too late: nothing is left that could be resumed.
        asked = None
    finished = replace(record, status=run_status(attempts, asked, waves), finished_at=ended)
    await journal.finish_run(record.id, finished.status, ended)
    made = () if backups is None else listed(tuple(backups.made.values()))
    kept = [each for each in await backups_of(journal, record.id) if each not in made] if before else []
    result = RunResult(finished, attempts, waves, (*kept, *made))
    if Moment.AFTER_RUN in hooks.declared:
        await hooks.after(Moment.AFTER_RUN, result.as_json(), journal)
    return result


def _is_whole(plan: Plan, gates: Gates, attempts: Sequence[AttemptRecord]) -> bool:
    """All tenants are where they were to be, and all waves closed."""
    closed = {name for name, wave in gates.records.items() if wave.state is WaveState.DONE}
    through = not gates.asked_for or all(wave.name in closed for wave in plan.waves)
    return through and all(attempt.status in SATISFIED for attempt in attempts)
