"""orchestrator downgrade"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.group import command
from orchestrator.cli.options import backing_up, executing, execution_from, selecting, selection_from
from orchestrator.cli.options import everyone as everyone_option
from orchestrator.cli.render import tenant_count
from orchestrator.cli.running import migrate, read
from orchestrator.cli.settings import Settings
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.actions.execution import Watch
    from orchestrator.actions.plan import PlanReport


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("target")
@selecting
@executing
@backing_up
@everyone_option
@click.option("--allow-data-loss", is_flag=True, help="Agree that rows and columns are thrown away.")
@click.option("--dry-run", is_flag=True, help="Show the plan and touch nothing.")
@command
def downgrade(
    settings: Settings, target: str, everyone: bool, allow_data_loss: bool, dry_run: bool, **given: Any
) -> int:
    """Take selected tenants back to TARGET: a revision, base, or -N where one head makes it plain."""
    from orchestrator.actions.plan import plan
    from orchestrator.actions.project import require_selection

    if target.startswith("-") and not target[1:].isdecimal():
        raise click.NoSuchOption(target)
    selection, execution = selection_from(given), execution_from(given)
    require_selection("downgrade", selection, everyone)
    asked: dict[str, Any] = {"command": "downgrade", "tenants": selection, "execution": execution}
    if dry_run:
        from orchestrator.cli.plan import show

        return show(settings, target, **asked)
    fleet = settings.fleet()
    agreed = settings.yes and allow_data_loss
    if not agreed:
        # Whether there is anything to lose is not asked first: a script that needs the flags always needs them.
        if not settings.on_terminal:
            raise UsageError(
                "downgrade can lose data, and nobody is there to ask",
                hint="look at it with --dry-run, then add --yes --allow-data-loss",
            )
        _ask(settings, read(plan(fleet, target, **asked)), allow_data_loss)

    def work(watch: Watch) -> Any:
        from orchestrator.actions.downgrade import downgrade

        return downgrade(fleet, target, tenants=selection, everyone=everyone, execution=execution, watch=watch)

    return migrate(settings, work)


def _ask(settings: Settings, report: PlanReport, allow_data_loss: bool) -> None:
    """Show what would be lost and ask."""
    todo = sum(cohort.tenants for cohort in report.plan.cohorts)
    if todo == 0:
        return
    click.echo(f"downgrade of {tenant_count(todo)}:", err=True)
    for cohort in report.plan.cohorts:
        start, goal = ", ".join(cohort.start), ", ".join(cohort.goal) or "base"
        click.echo(f"  {tenant_count(cohort.tenants)} from {start} to {goal}", err=True)
    for hazard in report.loses_data:
        click.echo(f"  {hazard.revision} throws data away: {hazard.detail}", err=True)
    agreed = settings.yes and (allow_data_loss or not report.loses_data)
    if not agreed and not click.confirm("Go on?", err=True):
        raise UsageError("downgrade was declined; nothing was touched")
