"""plan: what upgrade or downgrade would do. Reads only."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.actions.execution import Execution
from orchestrator.actions.integrity import Edited, integrity
from orchestrator.actions.journals import opened_journal
from orchestrator.actions.losses import Loss, measured, with_rendered
from orchestrator.actions.nobody import warn_of_nobody
from orchestrator.actions.partial import left_partial
from orchestrator.actions.preflight import Preflight
from orchestrator.actions.preflight import preflight as look
from orchestrator.actions.project import Project, opened_project
from orchestrator.actions.scripts import render
from orchestrator.actions.servers import Tenants, selection_of
from orchestrator.actions.sizes import TableSize, sizes
from orchestrator.errors import JournalError, UsageError
from orchestrator.fleet.fleet import Fleet
from orchestrator.history.position import direction_of
from orchestrator.journal.records import Spread
from orchestrator.rollout.estimate import PerTenant, estimate, per_tenant
from orchestrator.rollout.plan import Cohort, Plan, kind_of
from orchestrator.rollout.planning import Request
from orchestrator.rollout.saved_plan import SavedPlan
from orchestrator.statuses import TenantStatus


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
    #: What is kept of it for ``upgrade --plan``; ``None`` for another command's.
    saved: SavedPlan | None = None
    #: What the tenants' rows say to it; ``None`` unless they were asked.
    preflight: Preflight | None = None
    #: How long a tenant takes, from what the journal knows; one for each cohort, in the plan's order.
    per_tenant: tuple[PerTenant, ...] = ()
    #: Tables that the revisions name, on the tenants where they are largest; the largest tenant first.
    sizes: tuple[TableSize, ...] = ()
    #: Each tenant's own script, by id; empty unless they were asked for.
    tenant_sql: Mapping[str, str] = field(default_factory=dict)
    #: Sources that find nobody, and waves that select nobody.
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The document of ``plan --json`` (see docs/cli.md)."""
        document = {**self.plan.as_json(), "estimate_s": self.estimate_s and round(self.estimate_s, 3)}
        document["sizes"] = [each.as_json() for each in self.sizes]
        document["warnings"] = list(self.warnings)
        document["edited"] = [each.as_json() for each in self.edited]
        losses = {loss.hazard: loss.as_json() for loss in self.losses}
        for hazard, told in zip(self.plan.hazards, document["hazards"], strict=True):
            told.update(losses.get(hazard, {}))
        for cohort, reasons in zip(document["cohorts"], self.not_replayable, strict=False):
            cohort["not_replayable"] = dict(reasons)
        for cohort, takes in zip(document["cohorts"], self.per_tenant, strict=False):
            cohort["per_tenant"] = takes.as_json()
        for cohort, script in zip(document["cohorts"], self.sql, strict=False):
            cohort["sql"] = script
        if self.preflight is not None:
            document["preflight"] = self.preflight.as_json()
        return document

    def as_file(self) -> dict[str, Any]:
        """The document of ``plan --out``: the one of ``plan --json``, and what ``upgrade --plan`` compares.

        Raises:
            UsageError: it is not an upgrade's.
        """
        if self.saved is None:
            raise UsageError(f"a plan of {self.plan.command} cannot be saved", hint="orchestrator plan --out plan.json")
        return {**self.as_json(), "saved": self.saved.as_json()}


async def plan(
    fleet: Fleet,
    target: str | None = None,
    *,
    command: str = "upgrade",
    tenants: Tenants = (),
    provision: bool = False,
    execution: Execution = Execution(),  # noqa: B008  frozen
    sql: bool = False,
    each_sql: bool = False,
    preflight: bool = False,
    values: bool = False,
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
        each_sql: render every tenant's SQL.
        preflight: ask every tenant whether its rows stand against it; of an upgrade only.
        values: with ``preflight``, show some of the offending rows.

    Raises:
        OrchestratorError: bad input.
    """
    request = Request(command, target, provision, execution.budget, execution.wave, waves=execution.listed_waves)
    async with opened_project(fleet) as project:
        chosen = project.choose(tenants)
        report = await report_on(project, await project.plan(request, chosen), execution, sql=sql)
        report = replace(report, warnings=warn_of_nobody(fleet, project.fleet, request.waves))
        made = report.plan
        if preflight and command == "upgrade":
            budgets = await project.budgets(made.pending)
            report = replace(report, preflight=await look(project, made, execution, budgets, values=values))
        if command == "upgrade":
            names = [tenant.id for tenant in chosen]
            addresses = await asyncio.to_thread(project.addresses, chosen)
            selection = selection_of(tenants)
            saved = SavedPlan.of(made, request, execution.waves, selection, names, addresses, project.history)
            report = replace(report, saved=saved)
        if each_sql:
            todo = [each for each in made.tenants if each.verdict is TenantStatus.PENDING]
            theirs = dict(zip((each.tenant.id for each in todo), render(project, made, todo), strict=True))
            report = replace(report, tenant_sql=theirs)
        return report


async def report_on(project: Project, made: Plan, execution: Execution, *, sql: bool) -> PlanReport:
    """``made`` as a run would see it, with what a reader needs to judge it."""
    made, known = await _judged(project, made, execution)
    revisions = dict.fromkeys(revision for each in made.tenants for revision in each.path)
    messages = {revision: project.history.message(revision) for revision in revisions}
    back = direction_of(made.command) == "downgrade"
    examples = [cohort.example for cohort in made.cohorts]
    scripts = tuple(render(project, made, examples)) if sql or back else ()
    made = with_rendered(project, made, scripts)
    reasons = tuple(_not_replayable(project, direction_of(made.command), cohort) for cohort in made.cohorts)
    estimated = None if known is None else estimate(made, known.durations, await project.budgets(made.pending))
    edited = known.edited if known is not None else ()
    losses = await measured(project, made)
    spreads = known.spreads if known is not None else {}
    takes = tuple(per_tenant(cohort.path, spreads) for cohort in made.cohorts)
    return PlanReport(
        plan=made,
        messages=messages,
        sql=scripts if sql else (),
        estimate_s=estimated,
        not_replayable=reasons,
        edited=edited,
        losses=losses,
        per_tenant=takes,
        sizes=await sizes(project, made),
    )


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
    spreads: Mapping[str, Spread]
    edited: tuple[Edited, ...]


async def _judged(project: Project, made: Plan, execution: Execution) -> tuple[Plan, _Known | None]:
    """``made`` as a run would see it; ``None`` where the journal cannot be read."""
    try:
        async with opened_journal(project.fleet, read_only=True) as journal:
            durations = await journal.mean_durations(direction_of(made.command))
            spreads = await journal.spreads(direction_of(made.command))
            accepted = project.history.all_of(execution.accept_edited)
            edited = (each for each in (await integrity(project, journal)).edited if each.revision not in accepted)
            left = await left_partial(project, journal, made)
            return left.mark(made, retry=execution.retry_partial), _Known(durations, spreads, tuple(edited))
    except JournalError:
        # A plan is worth having without it, most of all when something is broken.
        return made, None
