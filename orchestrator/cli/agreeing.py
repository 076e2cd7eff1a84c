"""Agreement to what can lose data: given by options, or asked for on a terminal after showing what would be lost."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.render import naming, tenant_count
from orchestrator.cli.running import read
from orchestrator.cli.settings import Settings
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.actions.plan import PlanReport

#: Agree without being asked.
allowing_loss = click.option("--allow-data-loss", is_flag=True, help="Agree that rows and columns are thrown away.")


def agree(
    settings: Settings, command: str, allow_data_loss: bool, plan: Callable[[], Coroutine[Any, Any, PlanReport]]
) -> None:
    """Return if the operator agrees that ``command`` goes on.

    Args:
        settings: say who is there to be asked, and whether everything was answered with yes.
        command: its name.
        allow_data_loss: as given.
        plan: makes the plan to show; not called where all was agreed to.

    Raises:
        UsageError: nobody is there to ask, or they said no.
        OrchestratorError: there is no such run, revision or tenant: that comes before any question.
    """
    if settings.yes and allow_data_loss:
        return
    report = read(plan())
    # Also where there is nothing to lose: a script that needs the flags always needs them.
    if not settings.on_terminal:
        raise UsageError(
            f"{command} can lose data, and nobody is there to ask",
            hint="look at it with --dry-run, then add --yes --allow-data-loss",
        )
    _ask(settings, command, report, allow_data_loss)


def _ask(settings: Settings, command: str, report: PlanReport, allow_data_loss: bool) -> None:
    """Show what would be lost and ask."""
    from orchestrator.cli.plan import told_size
    from orchestrator.rollout.plan import NOT_MIGRATED

    todo = sum(cohort.tenants for cohort in report.plan.cohorts)
    if todo == 0:
        return
    pending = [tenant.id for tenant in report.plan.pending]
    click.echo(f"{command} of {naming(pending)}:", err=True)
    for cohort in report.plan.cohorts:
        start, goal = ", ".join(cohort.start), ", ".join(cohort.goal) or "base"
        click.echo(f"  {tenant_count(cohort.tenants)} from {start} to {goal}", err=True)
    for loss in report.losses:
        size = told_size(loss)
        click.echo(f"  {loss.hazard.revision} throws data away: {loss.hazard.detail}", err=True)
        if size:
            click.echo(f"    {size}", err=True)
    for hazard in report.plan.hazards:
        if hazard.kind == "empty_downgrade":
            click.echo(f"  {hazard.revision} has nothing in downgrade(): what it made stays", err=True)
    in_the_way = [each for each in report.plan.tenants if each.verdict in NOT_MIGRATED]
    if in_the_way:
        example = in_the_way[0]
        why = f": {example.failure.message}" if example.failure else ""
        click.echo(f"  {tenant_count(len(in_the_way))} left alone, such as {example.tenant.id}{why}", err=True)
    agreed = settings.yes and (allow_data_loss or not report.losses)
    if not agreed and not click.confirm("Go on?", err=True):
        raise UsageError(f"{command} was declined; nothing was touched")
