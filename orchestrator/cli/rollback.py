"""orchestrator rollback"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.agreeing import agree, allowing_loss
from orchestrator.cli.group import command
from orchestrator.cli.options import backing_up, executing, execution_from, handing_over, selecting, selection_from
from orchestrator.cli.options import everyone as everyone_option
from orchestrator.cli.running import migrate, read
from orchestrator.cli.settings import Settings

if TYPE_CHECKING:
    from orchestrator.actions.execution import Watch


@click.command()
@click.argument("run")
@selecting
@executing
@backing_up
@handing_over
@everyone_option
@click.option("--to-before", is_flag=True, help="Take along what later runs have done to these tenants.")
@allowing_loss
@click.option("--dry-run", is_flag=True, help="Show the plan and touch nothing.")
@command
def rollback(
    settings: Settings, run: str, everyone: bool, to_before: bool, allow_data_loss: bool, dry_run: bool, **given: Any
) -> int:
    """Put the tenants that RUN changed back to the heads that each of them had before it."""
    from orchestrator.actions.rollback import plan_rollback, rollback, run_to_take_back

    # Who is meant is said by the run; `--all` says it once more.
    asked: dict[str, Any] = {
        "tenants": selection_from(given),
        "to_before": to_before,
        "execution": execution_from(given),
    }
    fleet = settings.fleet()
    # Now: what is agreed to is what is done, also where `last` is another one by then.
    run = read(run_to_take_back(fleet, run))
    if dry_run:
        from orchestrator.cli.plan import show_report

        return show_report(settings, read(plan_rollback(fleet, run, **asked)))
    agree(settings, "rollback", allow_data_loss, lambda: plan_rollback(fleet, run, **asked))

    def work(watch: Watch) -> Any:
        return rollback(fleet, run, **asked, watch=watch)

    return migrate(settings, work, asked["execution"])
