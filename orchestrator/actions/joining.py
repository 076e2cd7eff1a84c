"""Tenants that come into the fleet while a run goes on: they join it, so that it leaves nobody behind.

Who is created meanwhile may have been made at the old heads. Once all others are through, the fleet is read again.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from orchestrator.actions.earlier import Earlier
from orchestrator.actions.execute import guarded, run_plan
from orchestrator.actions.execution import Execution, Watch
from orchestrator.actions.journals import opened_journal
from orchestrator.actions.project import read_project
from orchestrator.actions.servers import opened_servers
from orchestrator.errors import OrchestratorError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.load import load
from orchestrator.fleet.selection import Selection
from orchestrator.journal.records import RunRecord
from orchestrator.migration.loop import TenantLoop
from orchestrator.rollout.plan import Plan, PlannedWave
from orchestrator.rollout.planning import Request
from orchestrator.rollout.result import RunResult
from orchestrator.statuses import RunStatus, TenantStatus
from orchestrator.targets import is_relative

#: Times that the fleet is read again: where tenants come faster than that, the next run takes them.
_ROUNDS = 10
#: Seconds that tenants.yaml may have been read before the run began.
_READ_BEFORE = 60.0

log = logging.getLogger("orchestrator.run")


async def joined(
    fleet: Fleet,
    result: RunResult,
    request: Request,
    selection: Selection,
    execution: Execution,
    watch: Watch,
    loop: TenantLoop | None = None,
) -> RunResult:
    """Carry ``result`` on with the tenants that the fleet has now and that the run has not met.

    Args:
        fleet: as it was loaded.
        result: of a run that went forwards; one that has not succeeded, or migrated nobody, is given back as it is.
        request: what the run was made from.
        selection: whom it means.
        execution: how.
        watch: who looks on.
        loop: given by env.py when it is plain Alembic that runs.
    """
    for _ in range(_ROUNDS):
        if result.run.status is not RunStatus.SUCCEEDED or not _takes_newcomers(request, selection):
            return result
        if not any(attempt.status is TenantStatus.SUCCEEDED for attempt in result.tenants):
            return result
        now = _as_it_is(fleet, result.run)
        if now is None:
            return result
        try:
            more = await _with_newcomers(now, result, request, selection, execution, watch, loop)
        except OrchestratorError as error:
            log.warning("who has come into the fleet during the run could not be read: %s", error.message)
            return result
        if more is None:
            return result
        result = more
    return result


def _takes_newcomers(request: Request, selection: Selection) -> bool:
    """Not a run of one wave or a sample, which never meant all there are, nor one whose target is counted from each."""
    counted = request.target is not None and is_relative(request.target)
    return request.wave is None and selection.sample is None and not counted


def _as_it_is(fleet: Fleet, run: RunRecord) -> Fleet | None:
    """The fleet to read again; ``None`` where nobody can have come."""
    try:
        edited = fleet.path.stat().st_mtime > run.started_at.timestamp() - _READ_BEFORE
        return load(fleet.path) if edited else fleet if fleet.sources else None
    except (OSError, OrchestratorError) as error:
        log.warning("tenants.yaml has changed during the run, and cannot be read: %s", error)
        return None


async def _with_newcomers(
    fleet: Fleet,
    result: RunResult,
    request: Request,
    selection: Selection,
    execution: Execution,
    watch: Watch,
    loop: TenantLoop | None,
) -> RunResult | None:
    """The run, carried on; ``None`` where nobody has come."""
    met = {attempt.tenant: attempt for attempt in result.tenants}
    async with opened_servers(fleet) as servers:
        tenants = selection.filter((await servers.fleet()).tenants)
        new = [tenant for tenant in tenants if tenant.id not in met]
        if not new:
            return None
        project = await read_project(fleet, servers, loop)
        dealt = {attempt.tenant: attempt.wave for attempt in result.tenants if attempt.wave is not None}
        request = replace(request, dealt=dealt)
        async with opened_journal(fleet) as journal:
            plan, files = await guarded(project, journal, await project.plan(request, new), execution)
            plan = _of_those_there(plan)
            if not plan.tenants:
                return None
            earlier = Earlier(met, {wave.name: wave for wave in result.waves}, joining=True)
            record = replace(result.run, status=RunStatus.RUNNING, finished_at=None)
            return await run_plan(project, journal, record, plan, files, request, execution, watch, earlier)


def _of_those_there(plan: Plan) -> Plan:
    """``plan`` without tenants that somebody has announced and is about to make, and to bring to the heads himself."""

    def there(wave: PlannedWave) -> PlannedWave:
        missing = TenantStatus.UNPROVISIONED, TenantStatus.BLOCKED
        return replace(wave, tenants=tuple(each for each in wave.tenants if (each.state, each.verdict) != missing))

    waves = tuple(there(wave) for wave in plan.waves)
    return replace(plan, waves=tuple(wave for wave in waves if wave.tenants))
