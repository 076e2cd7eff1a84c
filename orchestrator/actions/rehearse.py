"""rehearse: the target on clones of real tenants, up, down and up; what it locks, and how long the run would take.

Nothing of a tenant is touched, and nothing is kept but the report, in the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from orchestrator.actions.each import new_run
from orchestrator.actions.execution import Execution
from orchestrator.actions.journals import opened_journal
from orchestrator.actions.partial import left_partial
from orchestrator.actions.project import Project, opened_project
from orchestrator.actions.rehearsing.choosing import EVERYBODY, Picked, chosen, picks_of
from orchestrator.actions.rehearsing.clones import Clones
from orchestrator.actions.rehearsing.containing import paths_of, refuse_side_effects
from orchestrator.actions.rehearsing.estimating import estimated
from orchestrator.actions.rehearsing.rehearsal import Rehearsal
from orchestrator.actions.servers import Tenants, selection_of
from orchestrator.errors import OrchestratorError, ServerUnreachable
from orchestrator.fleet.fleet import Fleet
from orchestrator.history.hazards import HazardKind
from orchestrator.journal.journal import Journal
from orchestrator.journal.records import EventRecord, RunRecord
from orchestrator.migration.seam import self_check
from orchestrator.rollout.plan import NOT_MIGRATED, Plan, PlannedTenant, Request
from orchestrator.rollout.rehearsal import REHEARSAL, CloneRehearsed, RehearsalReport
from orchestrator.statuses import RunStatus, TenantStatus

#: Tenants that are named in one message.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is to be rehearsed."""

    #: Of the upgrade, for the whole fleet.
    plan: Plan
    picked: Sequence[Picked]
    #: Tenants that were named, and cannot be.
    blocked: Sequence[CloneRehearsed]
    #: For people.
    notes: Sequence[str]
    #: Tenants that were selected and gave no answer: what is pending for them is not known.
    not_reached: Sequence[str] = ()
    #: Others that were selected, and that an upgrade would leave alone.
    left_alone: Sequence[str] = ()

    @property
    def pending(self) -> int:
        """Tenants that have something to run."""
        return len(self.plan.pending)


async def rehearse(
    fleet: Fleet,
    target: str | None = None,
    *,
    tenants: Tenants = (),
    clones: Clones = Clones(),  # noqa: B008  frozen
    execution: Execution = Execution(),  # noqa: B008  frozen
    told: Callable[[str], None] = lambda _: None,
) -> RehearsalReport:
    """Run what is pending up to ``target`` on clones of real tenants: up, down and up.

    Args:
        fleet: as loaded from tenants.yaml.
        target: as for ``upgrade``; ``None`` for each tenant's own.
        tenants: whom to choose the clones from: ids or globs, or a :class:`Selection`. All that are named one by one
            are cloned; of others, and without a selection, the largest, the oldest and the most drifted.
        clones: who is cloned, of what clones are made, and what is done with them.
        execution: ``limits``, ``wave`` and ``waves`` count: the estimate is of such a run, over the whole fleet.
        told: of each step, for people.

    Returns:
        What ``orchestrator rehearse --json`` prints, as an object. It is kept in the journal, too.

    Raises:
        OrchestratorError: bad input, or a revision that must not be rehearsed; nothing was cloned. A clone that could
            not be made, or did not go up, is no error: the report has it. So has it tenants that gave no answer, as
            long as one gave one.
    """
    picks = picks_of(clones.pick, selection_of(tenants))
    async with opened_project(fleet) as project, opened_journal(fleet) as journal:
        selected = [tenant.id for tenant in project.choose(tenants)]
        request = Request("upgrade", target, wave=execution.wave, waves=execution.listed_waves)
        plan = await project.plan(request, project.fleet.tenants)
        plan = (await left_partial(project, journal, plan)).mark(plan, retry=False)
        planned = {each.tenant.id: each for each in plan.tenants}
        meant = [planned[tenant] for tenant in selected if tenant in planned]
        not_reached = _not_reached(meant)
        candidates = [each for each in meant if each.verdict is TenantStatus.PENDING]
        notes = refuse_side_effects(project, paths_of(candidates), allowed=clones.allow_outside)
        picked = await chosen(project, candidates, picks, told)
        await _cleared(project)
        await project.require_dumping([each.planned.tenant for each in picked])
        everybody = EVERYBODY.intersection(picks)
        blocked = [each for each in meant if each.verdict in NOT_MIGRATED]
        subject = _Subject(
            plan,
            picked,
            [_cannot_be(each, everybody) for each in blocked] if everybody else [],
            [*notes, *_left_out(meant, [] if everybody else blocked, everybody=bool(everybody))],
            not_reached,
            [each.tenant.id for each in blocked if each.tenant.id not in not_reached],
        )
        record = replace(
            new_run(project, "rehearse", {"tenants": [each.planned.tenant.id for each in picked]}),
            target=plan.target,
            requested_target=target or "",
        )
        rehearsal = Rehearsal(project, record.id, clones, execution, await self_check(), told)
        return await _journaled(project, journal, record, rehearsal, subject)


async def _journaled(
    project: Project, journal: Journal, record: RunRecord, rehearsal: Rehearsal, subject: _Subject
) -> RehearsalReport:
    """Rehearse as a run of the journal's; it has no attempts, because it does nothing to any tenant."""
    await journal.start_run(record, ())
    try:
        report = await _rehearsed(project, record, rehearsal, subject)
    except BaseException:
        await journal.finish_run(record.id, RunStatus.INTERRUPTED, datetime.now(UTC))
        raise
    status = RunStatus.SUCCEEDED if report.exit_code == 0 else RunStatus.FAILED
    report = replace(report, run=replace(record, status=status, finished_at=datetime.now(UTC)))
    detail = {"report": report.as_json(), "forecast": report.estimate.kept()}
    journal.record_event(EventRecord(record.id, None, datetime.now(UTC), REHEARSAL, detail=detail))
    await journal.finish_run(record.id, status, datetime.now(UTC))
    return report


async def _rehearsed(project: Project, record: RunRecord, rehearsal: Rehearsal, subject: _Subject) -> RehearsalReport:
    clones = await rehearsal.clones(subject.picked)
    empty = None
    went = [each.planned for each, clone in zip(subject.picked, clones, strict=True) if clone.failure is None]
    if went and subject.pending > 1 and not rehearsal.how.schema_only:
        # The longest way: it has the most revisions to tell of.
        like = max(went, key=lambda each: len(each.path))
        if project.databases[like.tenant.server].dialect == "postgresql":
            empty = await rehearsal.empty(like)
    return RehearsalReport(
        record,
        (*clones, *subject.blocked),
        await estimated(project, subject.plan, clones, empty),
        subject.pending,
        tuple(each for each in subject.plan.hazards if each.kind is HazardKind.UPGRADE_LOSES_DATA),
        tuple(subject.notes),
        tuple(subject.not_reached),
        tuple(subject.left_alone),
    )


def _not_reached(meant: Sequence[PlannedTenant]) -> list[str]:
    """Of ``meant``, who gave no answer: whether something is pending for them is not known.

    Raises:
        ServerUnreachable: nobody gave one.
    """
    away = [each for each in meant if each.state is TenantStatus.UNREACHABLE]
    if away and len(away) == len(meant):
        failure = away[0].failure
        why = "" if failure is None else f": {failure.message}"
        raise ServerUnreachable(
            f"what is pending is not known, for nobody that was selected could be reached ({_some(away)}){why}",
            hint=(failure and failure.hint) or "look at the servers with: orchestrator doctor",
        )
    return [each.tenant.id for each in away]


async def _cleared(project: Project) -> None:
    """Take away what killed rehearsals have left, also where nobody is cloned there today: it may have rows in it."""
    for name, database in project.databases.items():
        # One that cannot be reached is a matter of its tenants.
        with suppress(OrchestratorError):
            await database.clear_scratch([tenant for tenant in project.fleet.tenants if tenant.server == name])


def _cannot_be(each: PlannedTenant, why: Collection[str]) -> CloneRehearsed:
    return CloneRehearsed(each.tenant.id, tuple(why), each.heads or (), failure=each.failure)


def _left_out(meant: Sequence[PlannedTenant], blocked: Sequence[PlannedTenant], *, everybody: bool) -> list[str]:
    """Who of those that were selected is not among those that could be rehearsed, for people."""
    notes = []
    left_alone = [each for each in blocked if each.state is not TenantStatus.UNREACHABLE]
    if left_alone:
        notes.append(f"an upgrade would leave alone {_some(left_alone)}: orchestrator plan tells why")
    current = [each for each in meant if each.verdict in (TenantStatus.ALREADY_CURRENT, TenantStatus.SKIPPED)]
    if current and everybody:
        notes.append(f"nothing is pending for {_some(current)}")
    return notes


def _some(tenants: Sequence[PlannedTenant]) -> str:
    more = f" and {len(tenants) - _NAMED} more" if len(tenants) > _NAMED else ""
    return ", ".join(each.tenant.id for each in tenants[:_NAMED]) + more
