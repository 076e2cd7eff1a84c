"""One chunk of a wave, attempted by this worker as the local executor attempts a wave, and written into the journal."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from orchestrator.actions.attempting import attempting
from orchestrator.actions.distributing.jobs import ChunkJob
from orchestrator.actions.distributing.muster import Muster
from orchestrator.actions.offboarding.set_aside import taken_out_since
from orchestrator.actions.partial import left_partial
from orchestrator.actions.project import migrating
from orchestrator.databases.failures import Failure, describe
from orchestrator.errors import JournalError, OrchestratorError
from orchestrator.fleet.fleet import Wave
from orchestrator.fleet.tenant import Tenant
from orchestrator.journal.journal import Journal
from orchestrator.journal.records import AttemptRecord
from orchestrator.migration.outcome import GONE
from orchestrator.rollout.executor import LocalExecutor
from orchestrator.rollout.plan import Plan, PlannedTenant, PlannedWave
from orchestrator.rollout.planning import Request
from orchestrator.rollout.result import fingerprint
from orchestrator.rollout.stop import Stop
from orchestrator.rollout.watching import Silent
from orchestrator.statuses import FAILURES, OPEN, SATISFIED, TenantStatus

#: Seconds until the journal is asked again that gave no answer, or did not know of a tenant that is missing.
_AGAIN = 0.5

log = logging.getLogger("orchestrator.worker")


@dataclass(slots=True)
class ChunkLedger:
    """What a chunk's attempts come to. See :class:`~orchestrator.rollout.executor.Ledger`."""

    job: ChunkJob
    journal: Journal
    stop: Stop
    _failures: int = 0
    _causes: Counter[str] = field(default_factory=Counter)

    def may_start(self, wave: PlannedWave) -> bool:
        """As far as is known here: the run as a whole tells of failures elsewhere by stopping."""
        same = self.job.same_cause
        broken = same is not None and max(self._causes.values(), default=0) >= same
        return not self.stop.draining and not broken and wave.budget.allows(self.failures(wave), wave.size)

    def failures(self, wave: PlannedWave) -> int:
        """Those before, and the chunk's own."""
        return self.job.failures + self._failures

    def note(self, attempt: AttemptRecord) -> None:
        """Written down, and counted."""
        if attempt.status in FAILURES:
            self._failures += 1
            if attempt.error is not None:
                self._causes[fingerprint(attempt.error, attempt.tenant)] += 1
        self.journal.record(attempt)

    def hear(self, attempt: AttemptRecord) -> None:
        """Nobody else attempts them."""
        self.note(attempt)


async def attempt_chunk(muster: Muster, journal: Journal, given: Mapping[str, Any], stop: Stop) -> dict[str, Any]:
    """Attempt a chunk's tenants.

    Args:
        muster: what this worker has of the chunk's run.
        journal: opened for writing.
        given: what was put into the queue, with ``again``.
        stop: drains it.

    Returns:
        How many were attempted; all of it is in the journal when this returns.
    """
    job, again = ChunkJob.from_json(given), bool(given["again"])
    earlier = {each.tenant: each for each in await journal.attempts_of(job.run, job.tenants)}
    done = {name for name in job.tenants if again and _is_done(earlier.get(name), job.tried.get(name, 0))}
    names = [name for name in job.tenants if name not in done]
    if job.fresh and not again:
        # Pending, and nobody at work: what others have done to them since is not this run's.
        earlier = {}
    ledger = ChunkLedger(job, journal, stop)
    tenants = await muster.tenants(names)
    missing = [name for name in names if name not in tenants]
    taken_out = await _taken_out(muster, journal, missing)
    for name in missing:
        tell = _gone if name in taken_out else _unknown
        ledger.note(tell(job, name, earlier.get(name)))
    request = Request(
        muster.record.command,
        muster.record.requested_target or None,
        job.provision,
        fixed=job.targets,
        waves=(),
    )
    chosen = [tenants[name] for name in names if name in tenants]
    async with muster.at_work(job, {tenant.server for tenant in chosen}):
        return await _attempted(muster, journal, job, request, chosen, earlier, ledger)


async def _attempted(
    muster: Muster,
    journal: Journal,
    job: ChunkJob,
    request: Request,
    chosen: Sequence[Tenant],
    earlier: Mapping[str, AttemptRecord],
    ledger: ChunkLedger,
) -> dict[str, Any]:
    stop = ledger.stop
    plan = await _as_it_was(muster, journal, job, await muster.project.plan(request, chosen))
    if plan.command not in ("stamp", "onboard"):
        left = await left_partial(muster.project, journal, plan, job.run)
        left.settle(journal)
        plan = left.mark(plan, retry=job.execution.retry_partial)
    parts = await attempting(
        muster.project,
        journal,
        muster.record,
        plan,
        job.execution,
        provision=job.provision,
        observer=Silent(),
        stop=stop,
        earlier=earlier,
        onboarding=muster.asked,
        there=set(job.tenants) - set(job.missing),
        cohorts=muster.cohorts,
        serial=muster.serial,
    )
    todo = []
    for planned in plan.tenants:
        if planned.verdict is TenantStatus.PENDING:
            todo.append(planned)
        else:
            ledger.note(parts.tries.foresight.attempt(job.wave, planned))
    width = job.width if parts.migrator.concurrent else 1
    wave = PlannedWave(job.wave, plan.tenants, job.budget, Wave(job.wave), job.size)
    budgets = {planned.tenant.server: ("the chunk's", width) for planned in todo}
    with migrating(parts.migrator):
        await LocalExecutor(parts.tries, budgets, width, stop).carry_out(wave, todo, ledger)
    return {"attempted": len(todo)}


async def _taken_out(muster: Muster, journal: Journal, names: Collection[str]) -> frozenset[str]:
    """Those of ``names`` that somebody has taken out of the fleet since the run was planned."""
    if not names:
        return frozenset()
    found = frozenset(names) & await taken_out_since(journal, muster.record.started_at)
    if len(found) == len(names):
        return found
    # The fleet has let a tenant go a moment before the journal says so.
    await asyncio.sleep(_AGAIN)
    return frozenset(names) & await taken_out_since(journal, muster.record.started_at)


async def _as_it_was(muster: Muster, journal: Journal, job: ChunkJob, plan: Plan) -> Plan:
    """``plan``, made for a chunk in the middle of the run, with what a plan of the whole run would have said.

    Whose place is missing that was there when the run was planned is no newcomer: the attempt says what became of him.
    """
    left = {each.tenant.id for each in plan.tenants if each.state is TenantStatus.UNPROVISIONED} - set(job.missing)
    if not left:
        return plan
    taken_out = await _taken_out(muster, journal, left)

    def seen(each: PlannedTenant) -> PlannedTenant:
        if each.tenant.id not in left:
            return each
        if each.tenant.id in taken_out:
            return replace(each, verdict=TenantStatus.SKIPPED, failure=GONE)
        return replace(each, verdict=TenantStatus.PENDING, failure=None)

    return plan.judged(seen)


async def fail_chunk(journal: Journal, job: ChunkJob, error: OrchestratorError) -> None:
    """Note of a chunk's tenants that this worker cannot attempt them; not of those that are through.

    Raises:
        JournalError: who is through could not be read.
    """
    found = {each.tenant: each for each in await journal.attempts_of(job.run, job.tenants)}
    for tenant in job.tenants:
        earlier = found.get(tenant)
        if not _is_done(earlier, job.tried.get(tenant, 0)):
            journal.record(_failed(job, tenant, earlier, describe(error)))


async def until_written(journal: Journal) -> None:
    """Wait until all that was noted is in the journal: whoever has given out the chunk reads it there."""
    while True:
        try:
            if await journal.flush():
                return
        except JournalError as error:
            log.warning("%s", error.message)
        await asyncio.sleep(_AGAIN)


def _is_done(attempt: AttemptRecord | None, tried: int) -> bool:
    """Whether a worker of this chunk has come to an end with a tenant."""
    if attempt is None or attempt.status in OPEN:
        return False
    # Who is given out is not satisfied yet: a chunk's second worker may have found that the first one had seen to it.
    return attempt.attempts > tried or attempt.status in SATISFIED


def _gone(job: ChunkJob, tenant: str, earlier: AttemptRecord | None) -> AttemptRecord:
    return _ended(job, tenant, earlier, TenantStatus.SKIPPED, GONE)


def _unknown(job: ChunkJob, tenant: str, earlier: AttemptRecord | None) -> AttemptRecord:
    failure = Failure(
        "not_here",
        f"the worker on {socket.gethostname()} has no tenant {tenant} in its tenants.yaml",
        hint=f"give all workers the same tenants.yaml, then: orchestrator resume {job.run} --executor dbos",
    )
    return _failed(job, tenant, earlier, failure)


def _failed(job: ChunkJob, tenant: str, earlier: AttemptRecord | None, failure: Failure) -> AttemptRecord:
    return _ended(job, tenant, earlier, TenantStatus.FAILED, failure)


def _ended(
    job: ChunkJob, tenant: str, earlier: AttemptRecord | None, status: TenantStatus, failure: Failure
) -> AttemptRecord:
    made = earlier or AttemptRecord(job.run, tenant, job.wave, status)
    return replace(made, status=status, error=failure.as_json(), finished_at=datetime.now(UTC))
