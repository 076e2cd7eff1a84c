"""Tenants that a step outside any transaction left half done: the journal remembers, the version table has to agree."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from orchestrator.actions.going import at_work
from orchestrator.actions.project import Project
from orchestrator.databases.failures import Failure
from orchestrator.fleet.tenant import Limits
from orchestrator.journal.journal import Journal
from orchestrator.journal.records import StepRecord
from orchestrator.rollout.plan import Plan, PlannedTenant
from orchestrator.rollout.steps import cut_off
from orchestrator.statuses import TenantStatus


@dataclass(frozen=True, slots=True)
class Left:
    """What earlier runs have left half done."""

    #: Why a tenant is partial, by its id.
    failures: dict[str, Failure]
    #: Steps that are through after all, whatever the journal says: the version table, or the indexes, tell.
    settled: tuple[StepRecord, ...] = ()
    #: Steps that were cut off: whose run is carried on is not at work on them again.
    ended: tuple[StepRecord, ...] = ()
    #: Tenants that an index is to be mended of, and no revision is to be run again for.
    finished: frozenset[str] = frozenset()

    def mark(self, plan: Plan, *, retry: bool) -> Plan:
        """``plan`` without the tenants that must not be touched.

        Args:
            plan: of an upgrade or a downgrade.
            retry: touch them all the same, but for those that an index is invalid of.
        """

        if not self.failures:
            return plan

        def marked(each: PlannedTenant) -> PlannedTenant:
            failure = self.failures.get(each.tenant.id)
            if failure is None or (retry and each.tenant.id not in self.finished):
                return each
            return replace(each, state=TenantStatus.PARTIAL, verdict=TenantStatus.PARTIAL, failure=failure)

        return plan.judged(marked)

    def settle(self, journal: Journal) -> None:
        """Write down what is through, and what was cut off."""
        for step in self.ended:
            journal.record_step(step)
        for step in self.settled:
            journal.record_step(replace(step, done_at=datetime.now(UTC)))


async def left_partial(project: Project, journal: Journal, plan: Plan, ours: str | None = None) -> Left:
    """Find the tenants of ``plan`` that still stand where an earlier run left them half done.

    Args:
        project: opened.
        journal: opened.
        plan: whom it is about.
        ours: the run that is carried on with these tenants: nobody else is at work on them for it.

    Raises:
        JournalError: the journal cannot be read.
    """
    planned = {each.tenant.id: each for each in plan.tenants}
    failures: dict[str, Failure] = {}
    settled, ended, finished = [], [], set()
    steps = [(step, run) for step, run in await journal.open_steps() if step.tenant in planned]
    going = await at_work(journal, {run.id: run for _, run in steps if run is not None and run.id != ours}.values())
    for step, run in steps:
        each = planned[step.tenant]
        if each.heads is None or (step.error is None and run is not None and run.id in going):
            continue
        if each.heads not in step.heads:
            settled.append(step)
            continue
        # An attempt looks at its end. What it found may have been mended; what nobody has seen the end of is looked at.
        invalid = await _invalid(project, each, step) if step.invalid or not step.looked else ()
        if _is_finished(step):
            if not invalid:
                settled.append(step)
                continue
            finished.add(step.tenant)
        failures[step.tenant] = _failure(step, invalid)
        if step.error is None:
            ended.append(replace(step, error=failures[step.tenant].as_json()))
    return Left(failures, tuple(settled), tuple(ended), frozenset(finished))


def _is_finished(step: StepRecord) -> bool:
    """The revision itself is through, and has left an index that no query uses."""
    return step.error is not None and step.error.get("type") == "invalid_index"


def _failure(step: StepRecord, invalid: tuple[str, ...]) -> Failure:
    unseen = step.error is None or step.error.get("type") == "cut_off"
    failure = cut_off(step) if unseen or step.error is None else Failure(**step.error)
    if step.looked or not invalid:
        return failure
    names = ", ".join(invalid)
    return replace(failure, hint=f"invalid now, and to be dropped or reindexed first: {names}; {failure.hint}")


async def _invalid(project: Project, each: PlannedTenant, step: StepRecord) -> tuple[str, ...]:
    """Names of the indexes that are invalid now and that the step has left so, or may have."""
    database = project.databases[each.tenant.server]
    try:
        async with database.session(each.tenant, f"orchestrator {each.tenant.id}", Limits(None, None)) as session:
            now = await session.invalid_indexes()
    except Exception:
        # It was read a moment ago: what cannot be looked at is not believed to be right.
        return step.invalid
    if step.looked:
        return tuple(sorted(set(now) & set(step.invalid)))
    named = step.current or ""
    return tuple(sorted(name for name in now if name not in step.invalid_before or name in named))
