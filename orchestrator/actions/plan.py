"""plan: what upgrade or downgrade would do. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.actions.execution import Execution
from orchestrator.actions.integrity import Edited, integrity
from orchestrator.actions.journals import opened_journal
from orchestrator.actions.losses import Loss, measured, with_rendered
from orchestrator.actions.partial import left_partial
from orchestrator.actions.project import Project, migrating, opened_project
from orchestrator.actions.servers import Tenants
from orchestrator.databases.failures import describe
from orchestrator.errors import JournalError
from orchestrator.fleet.fleet import Fleet
from orchestrator.history.position import direction_of
from orchestrator.migration.attempt import Migrator, Work
from orchestrator.rollout.estimate import estimate
from orchestrator.rollout.plan import Cohort, Plan, Request, kind_of


@dataclass(frozen=True, slots=True)
class PlanReport:
    """A plan, with what a reader needs to judge it."""

    plan: Plan
    #: What each revision says of itself, by revision.
    messages: Mapping[str, str]
    #: One script per cohort, in the plan's order; empty unless SQL was asked for.
    sql: tuple[str, ...] = ()
    #: Seconds the run may take, from what the journal knows; ``None`` when it does not.
    estimate_s: float | None = None
    #: Why revisions go through Alembic for every tenant, by revision; one for each cohort, in the plan's order.
    not_replayable: tuple[Mapping[str, str], ...] = ()
    #: Revisions whose files are not those that tenants were migrated with: the command would refuse.
    edited: tuple[Edited, ...] = ()
    #: What throws rows or columns away, in the direction that the plan goes, with the sizes of the tables.
    losses: tuple[Loss, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The document of ``plan --json`` (see docs/cli.md)."""
        document = {**self.plan.as_json(), "estimate_s": self.estimate_s and round(self.estimate_s, 3)}
        document["edited"] = [each.as_json() for each in self.edited]
        losses = {loss.hazard: loss.as_json() for loss in self.losses}
        for hazard, told in zip(self.plan.hazards, document["hazards"], strict=True):
            told.update(losses.get(hazard, {}))
        for cohort, reasons in zip(document["cohorts"], self.not_replayable, strict=False):
            cohort["not_replayable"] = dict(reasons)
        for cohort, script in zip(document["cohorts"], self.sql, strict=False):
            cohort["sql"] = script
        return document


async def plan(
    fleet: Fleet,
    target: str | None = None,
    *,
    command: str = "upgrade",
    tenants: Tenants = (),
    provision: bool = False,
    execution: Execution = Execution(),  # noqa: B008  frozen
    sql: bool = False,
) -> PlanReport:
    """Say what a command would do to the selected tenants, all without a selection.

    Args:
        fleet: as loaded from tenants.yaml.
        target: as for the command; ``None`` for each tenant's own.
        command: ``upgrade`` or ``downgrade``.
        tenants: ids or globs, or a :class:`Selection`.
        provision: as for upgrade: make missing schemas, databases and files.
        execution: as for the command; says which wave, and how many may fail.
        sql: render each cohort's SQL, on the example of one of its tenants.

    Raises:
        OrchestratorError: bad input.
    """
    request = Request(command, target, provision, execution.budget, execution.wave, waves=execution.listed_waves)
    async with opened_project(fleet) as project:
        made = await project.plan(request, project.choose(tenants))
        return await report_on(project, made, execution, sql=sql)


async def report_on(project: Project, made: Plan, execution: Execution, *, sql: bool) -> PlanReport:
    """``made`` as a run would see it, with what a reader needs to judge it."""
    made, known = await _judged(project, made, execution)
    revisions = dict.fromkeys(revision for each in made.tenants for revision in each.path)
    messages = {revision: project.history.message(revision) for revision in revisions}
    back = direction_of(made.command) == "downgrade"
    scripts = _render(project, made) if sql or back else ()
    made = with_rendered(project, made, scripts)
    reasons = tuple(_not_replayable(project, direction_of(made.command), cohort) for cohort in made.cohorts)
    estimated = None if known is None else estimate(made, known.durations, await project.budgets(made.pending))
    edited = known.edited if known is not None else ()
    losses = await measured(project, made)
    return PlanReport(made, messages, scripts if sql else (), estimated, reasons, edited, losses)


def _not_replayable(project: Project, direction: str, cohort: Cohort) -> dict[str, str]:
    """What stands against replaying the cohort's revisions: in their files, and found by recording them earlier."""
    if not project.databases[cohort.example.tenant.server].replays:
        return dict.fromkeys(cohort.path, f"nothing is replayed on {cohort.dialect}")
    recorded = project.transcripts.load(direction, kind_of(cohort.example)) or ()
    found = {revision: each.reason for each in recorded if each.reason for revision in each.step.revisions}
    return {**found, **project.history.impurities(cohort.path, direction)}


@dataclass(frozen=True, slots=True)
class _Known:
    """What the journal knows for a plan."""

    durations: Mapping[str, float]
    edited: tuple[Edited, ...]


async def _judged(project: Project, made: Plan, execution: Execution) -> tuple[Plan, _Known | None]:
    """``made`` as a run would see it; ``None`` where the journal cannot be read."""
    try:
        async with opened_journal(project.fleet, read_only=True) as journal:
            durations = await journal.mean_durations(direction_of(made.command))
            accepted = project.history.all_of(execution.accept_edited)
            edited = (each for each in (await integrity(project, journal)).edited if each.revision not in accepted)
            left = await left_partial(project, journal, made)
            return left.mark(made, retry=execution.retry_partial), _Known(durations, tuple(edited))
    except JournalError:
        # A plan is worth having without it, most of all when something is broken.
        return made, None


def _render(project: Project, made: Plan) -> tuple[str, ...]:
    migrator = Migrator(project.fleet, project.history, project.loop, project.databases)
    scripts = []
    with migrating(migrator):
        for cohort in made.cohorts:
            example = cohort.example
            work = Work.of(project.history, made.command, example.target)
            try:
                scripts.append(migrator.render(example.tenant, work, cohort.start))
            except Exception as error:
                # A revision that reads the database cannot be rendered without one: say so in its place.
                scripts.append(f"-- cannot be rendered without a database: {describe(error).message}\n")
    return tuple(scripts)
