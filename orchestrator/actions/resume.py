"""resume: carry on a run where it stands."""

from __future__ import annotations

import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from orchestrator.actions.another_fleet import left_elsewhere, met_places, require_here, require_same_name
from orchestrator.actions.earlier import Earlier
from orchestrator.actions.execute import backups_of, guarded, run_plan
from orchestrator.actions.execution import Execution, Watch
from orchestrator.actions.going import at_work, is_surely_going
from orchestrator.actions.joining import joined
from orchestrator.actions.journals import opened_journal
from orchestrator.actions.offboarding.set_aside import taken_out_since
from orchestrator.actions.onboarding.welcoming import Arrivals, expected
from orchestrator.actions.places import moved_places
from orchestrator.actions.project import Project, opened_project
from orchestrator.actions.rolling_back.carrying_back import narrowed, still_taken_back
from orchestrator.actions.rolling_back.undoing import undone
from orchestrator.databases.failures import Failure
from orchestrator.errors import ConfigurationError, UsageError
from orchestrator.fleet.fleet import Fleet, Wave
from orchestrator.fleet.selection import Selection
from orchestrator.fleet.tenant import Tenant
from orchestrator.fleet.wave_lists import waves_from
from orchestrator.journal.journal import Journal
from orchestrator.journal.records import EXECUTOR, GIVEN_AS, Actor, AttemptRecord, RunRecord
from orchestrator.rollout.next_commands import NOT_RESUMED, again_of, retry_of
from orchestrator.rollout.plan import LAST_WAVE, SINGLE_WAVE, Plan
from orchestrator.rollout.planning import Request
from orchestrator.rollout.result import RunResult
from orchestrator.rollout.share import Change, by_tenant, led, left_at, may_have_moved
from orchestrator.rollout.through import through
from orchestrator.rollout.waves import EVENT as WAVE_EVENT
from orchestrator.rollout.waves import WaveRecord, WaveState, waves_of
from orchestrator.statuses import SATISFIED, RunStatus, TenantStatus


async def resume(
    fleet: Fleet,
    run: str | None = None,
    *,
    provision: bool = False,
    execution: Execution = Execution(),  # noqa: B008  frozen
    watch: Watch | None = None,
    fresh: bool = False,
    taken_over: Mapping[str, str] | None = None,
) -> RunResult:
    """Carry on a run: the databases say what is left, the journal says who was meant and to what.

    The target is read again as it was asked for: where that was ``heads`` and the directory has grown since, the rest
    of the fleet goes to the new heads.

    Args:
        fleet: as loaded.
        run: its id or an unambiguous start of it; ``None`` for the last run.
        provision: make missing schemas, databases and files, also when the run began without.
        execution: how; not taken over from the run's start.
        watch: who looks on.
        fresh: it has just been planned, for workers to carry it out, and nobody has touched a tenant for it.
        taken_over: the worker that had it is gone, and this one does what that one would have done: who has failed is
            not tried again, and what comes after the end is done as well. When attempts had ended that were made
            before that part of the run, see :func:`~orchestrator.rollout.through.ended_at`; ``None`` to carry it on.

    Returns:
        The whole run, tenants that were done before included.

    Raises:
        JournalError: no such run.
        UsageError: there is no run at all, or its process is still at work.
        EditedRevision: the file of a revision that tenants have was edited; nothing was touched.
    """
    watch = watch or Watch()
    async with opened_journal(fleet) as journal:
        record = await _resumable(fleet, journal, run, execution)
        earlier = {attempt.tenant: attempt for attempt in await journal.attempts(record.id)}
        waves = waves_of(await journal.events(record.id, kind=WAVE_EVENT))
        left = {tenant for tenant, attempt in earlier.items() if attempt.status not in SATISFIED}
        # An option of resume's own wins over the run's.
        listed = execution.waves or record.options.get("waves")
        declared = fleet.waves if listed is None else waves_from(listed)
        if taken_over is not None and record.finished_at is not None:
            ended = RunResult(record, tuple(earlier.values()), tuple(waves.values()))
            return await _after_the_end(fleet, ended, execution, watch, provision=provision)
        noted = list(await _not_taken_back(journal, record, waves))
        waves |= {unbegun.name: unbegun for unbegun in noted}
        if execution.approve and not any(wave.state is WaveState.WAITING for wave in waves.values()):
            raise UsageError(f"no wave of run {record.id} waits for approval", hint=f"go on with: {retry_of(record)}")
        noted += (gone := _undeclared(declared, waves))
        waves |= {wave.name: wave for wave in gone}
        unclosed = _unclosed(record, declared, earlier, waves, of_all=taken_over is not None)
        failed = {} if taken_over is None else through(earlier.values(), taken_over)
        if not left and not unclosed and taken_over is None:
            backups = await backups_of(journal, record.id)
            _note(journal, record, noted)
            done = RunResult(record, tuple(earlier.values()), tuple(waves.values()), backups)
            return await _nothing_left(journal, done, watch)
        async with opened_project(fleet) as project:
            asked = None
            if record.command == "onboard":
                arriving = await expected(project, fleet, Arrivals.of(record))
                project, asked = arriving.project, arriving.asked
            moved = await _moved(project, journal, record, earlier, execution)
            # Not before: another fleet's waves are not to be closed either.
            _note(journal, record, noted)
            request = replace(
                _request(record, execution, provision=provision),
                dealt={attempt.tenant: attempt.wave for attempt in earlier.values() if attempt.wave is not None},
                unclosed=unclosed,
            )
            # Whoever has failed in this part of the run counts as that, also when it was taken out since.
            left -= failed.keys()
            if execution.workforce is not None:
                # Who was gone by then was written down by the command that has given the run to the workers.
                taken_out = await taken_out_since(journal, record.started_at)
                _require_same_fleet(project.fleet.tenants, left - taken_out)
            for attempt in _gone(project.fleet.tenants, [earlier[tenant] for tenant in left]):
                earlier[attempt.tenant] = attempt
                journal.record(attempt)
            still = [tenant for tenant in project.fleet.tenants if tenant.id in left]
            later = by_tenant(await journal.changes_after(record))
            if record.command == "rollback":
                request = replace(request, fixed=narrowed(request.fixed, earlier))
            if execution.backup is None and (directory := record.options.get("backup")):
                execution = replace(execution, backup=Path(directory))
            made = await project.plan(request, still)
            if record.command == "rollback":
                made = await still_taken_back(project, journal, record, made, later)
            made = left_elsewhere(made, record, moved)
            for attempt in _settled(made, earlier, later):
                earlier[attempt.tenant] = attempt
            plan, files = await guarded(project, journal, made, execution, record.id)
            again = replace(
                record,
                target=tuple(sorted({*record.target, *plan.target})),
                status=RunStatus.RUNNING,
                finished_at=None,
                actor=Actor.current(fleet.root),
                directory_digest=project.history.digest,
                # Who attempts them is said anew each time.
                options={
                    **{name: value for name, value in record.options.items() if name not in (EXECUTOR, GIVEN_AS)},
                    **execution.recorded(record.id),
                },
                # The one of the process that is gone would be taken for ours.
                heartbeat_at=None,
            )
            # Those that are pending with nobody at work are not the run's share of anything yet.
            was = record if execution.workforce is None else None
            before = Earlier({} if fresh else earlier, waves, tuple(failed.values()), record=was)
            result = await run_plan(project, journal, again, plan, files, request, execution, watch, before, asked)
    if execution.handed_over:
        return result
    return await _after_the_end(fleet, result, execution, watch, provision=provision)


def _note(journal: Journal, record: RunRecord, waves: Sequence[WaveRecord]) -> None:
    for wave in waves:
        journal.record_event(wave.event(record.id))


async def _moved(
    project: Project, journal: Journal, record: RunRecord, earlier: Mapping[str, AttemptRecord], execution: Execution
) -> Mapping[str, Failure]:
    """Tenants that are not where the run met them, each with what to say of it.

    Of a rollback, where the run that it takes back has changed them is what counts; it looks itself. Workers have been
    given the run by a command that has looked, and may know servers by other addresses.

    Raises:
        UsageError: it is another fleet's run.
    """
    if record.command == "rollback" or execution.workforce is not None:
        return {}
    met = await met_places(journal, record.id, earlier.values())
    there = [tenant for tenant in project.fleet.tenants if tenant.id in earlier]
    moved = await moved_places(project, met, there, "met")
    require_here(record, [tenant.id for tenant in there if tenant.id in met], moved)
    return moved


async def _after_the_end(
    fleet: Fleet, result: RunResult, execution: Execution, watch: Watch, *, provision: bool
) -> RunResult:
    """Take back what is to be taken back, or carry it on with who has come."""
    record = result.run
    if record.command != "upgrade":
        return result
    listed = execution.waves or record.options.get("waves")
    carry_on = partial(resume, fleet, watch=watch, taken_over={})
    result = await undone(fleet, result, replace(execution, waves=listed), watch, carry_on)
    select = record.options.get("select")
    if select is None:
        return result
    request = _request(record, execution, provision=provision)
    return await joined(fleet, result, request, Selection.from_json(select), execution, watch)


def _request(record: RunRecord, execution: Execution, *, provision: bool) -> Request:
    """What the run was asked for, and is asked for now."""
    # An option of resume's own wins over the run's.
    listed = execution.waves or record.options.get("waves")
    return Request(
        record.command,
        record.requested_target or None,
        provision or bool(record.options.get("provision")),
        execution.budget,
        execution.wave,
        record.options.get("fixed", {}),
        waves=None if listed is None else waves_from(listed),
    )


async def _not_taken_back(
    journal: Journal, record: RunRecord, waves: Mapping[str, WaveRecord]
) -> tuple[WaveRecord, ...]:
    """Waves that were about to be taken back when their process was killed, as if that had not been written down.

    Raises:
        UsageError: a wave was taken back, or is being.
    """
    found = [wave for wave in waves.values() if wave.rolled_back is not None]
    for wave in found:
        assert wave.rolled_back is not None
        back = await journal.find(wave.rolled_back)
        if back is not None:
            through = back.status is RunStatus.SUCCEEDED
            raise UsageError(
                f"wave {wave.name} of run {record.id} was taken back by run {back.id}"
                + ("" if through else f", which is {back.status.value}"),
                hint=f"begin a new one: {again_of(record)}"
                if through
                else f"take back what is left of it: {retry_of(back)}",
            )
    return tuple(replace(wave, rolled_back=None) for wave in found)


def _settled(
    plan: Plan, earlier: Mapping[str, AttemptRecord], later: Mapping[str, Sequence[Change]]
) -> list[AttemptRecord]:
    """Tenants that the run was cut off at, and that later runs alone have led to where they are: it had not begun."""
    return [
        replace(attempt, status=TenantStatus.NOT_STARTED, to_heads=attempt.from_heads)
        for each in plan.tenants
        if (attempt := earlier[each.tenant.id]) and may_have_moved(attempt) and left_at(attempt) is None
        if each.heads is not None and led(later.get(each.tenant.id, ()), attempt.from_heads, each.heads)
    ]


def _unclosed(
    record: RunRecord,
    declared: Sequence[Wave],
    earlier: Mapping[str, AttemptRecord],
    waves: Mapping[str, WaveRecord],
    *,
    of_all: bool,
) -> frozenset[str]:
    """Waves of the run that were not closed: checked, baked and approved, as far as that was asked for.

    Args:
        record: the run.
        declared: its waves.
        earlier: what it did, by tenant id.
        waves: how they stand, by name.
        of_all: also where no waves are declared, so that there is nothing to close but the run.
    """
    if record.command == "stamp":
        return frozenset()
    begun = {attempt.wave for attempt in earlier.values()} & _names(declared) if declared or of_all else waves.keys()
    return frozenset(name for name in begun if name and (name not in waves or waves[name].state is not WaveState.DONE))


def _names(declared: Sequence[Wave]) -> set[str | None]:
    return {*(wave.name for wave in declared), LAST_WAVE if declared else SINGLE_WAVE}


def _undeclared(declared: Sequence[Wave], waves: Mapping[str, WaveRecord]) -> list[WaveRecord]:
    """Waves that were not closed and that nobody asks for any more: nothing of theirs is left to be waited for."""
    left = [wave for name, wave in waves.items() if wave.state is not WaveState.DONE and name not in _names(declared)]
    return [WaveRecord(wave.name, WaveState.DONE, reason="no longer in tenants.yaml") for wave in left]


async def _nothing_left(journal: Journal, result: RunResult, watch: Watch) -> RunResult:
    """All tenants are done; where the run was cut off after its last one, only its end is still to be written down."""
    record = result.run
    watch.observer.started(Plan(record.command, record.requested_target, ()), record.id)
    if record.status is not RunStatus.SUCCEEDED:
        ended = record.finished_at or datetime.now(UTC)
        record = replace(record, status=RunStatus.SUCCEEDED, finished_at=ended)
        await journal.finish_run(record.id, record.status, ended)
    return replace(result, run=record)


async def _resumable(fleet: Fleet, journal: Journal, name: str | None, execution: Execution) -> RunRecord:
    record = await journal.run(name) if name is not None else await journal.last_run(without=NOT_RESUMED)
    if record is None:
        raise UsageError("there is no run to resume", hint="start one with: orchestrator upgrade")
    require_same_name(fleet, record, again_of(record))
    if record.command in NOT_RESUMED:
        left = [each.tenant for each in await journal.attempts(record.id) if each.status not in SATISFIED]
        raise UsageError(
            f"run {record.id} was a {record.command}, and is not resumed: each tenant is done whole or not at all",
            hint=retry_of(record, left),
        )
    if execution.workforce is None and await is_surely_going(fleet, journal, record):
        if record.executor is not None and not await at_work(journal, [record]):
            raise _waits(record)
        raise _still_going(record)
    if record.status is RunStatus.CANCELLED:
        raise UsageError(f"run {record.id} was cancelled", hint=f"begin a new one: {again_of(record)}")
    return record


def _still_going(record: RunRecord) -> UsageError:
    by = "workers have it" if record.executor is not None else f"process {record.actor.pid} on {record.actor.host}"
    follow = " --follow" if record.executor is not None else ""
    return UsageError(
        f"run {record.id} is still going: {by}", hint=f"look at it with: orchestrator runs show {record.id}{follow}"
    )


def _waits(record: RunRecord) -> UsageError:
    given = record.given_as
    return UsageError(
        f"run {record.id} is still going: workers have it, and none is at it now",
        hint=f"orchestrator runs show {given} tells what it waits for; where that is a worker, start one: orchestrator "
        f"worker; to carry it on without, take it from them: orchestrator runs pause {given}",
    )


def _require_same_fleet(tenants: Sequence[Tenant], meant: Collection[str]) -> None:
    """Refuse a run that was planned elsewhere, for tenants that are not in the fleet here.

    Raises:
        ConfigurationError: there are such.
    """
    missing = sorted(set(meant) - {tenant.id for tenant in tenants})
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ConfigurationError(
            f"the worker on {socket.gethostname()} has no tenant {missing[0]}{more} in its tenants.yaml",
            hint="give all workers the tenants.yaml that the run was planned with",
        )


def _gone(tenants: Sequence[Tenant], left: Sequence[AttemptRecord]) -> list[AttemptRecord]:
    """Tenants that the run meant and that the fleet no longer has: nothing is left to do for them."""
    present = {tenant.id for tenant in tenants}
    error = Failure("gone", "no longer in the fleet").as_json()
    return [
        replace(attempt, status=TenantStatus.SKIPPED, error=error) for attempt in left if attempt.tenant not in present
    ]
