"""orchestrator downgrade"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.agreeing import agree, allowing_loss
from orchestrator.cli.group import command
from orchestrator.cli.options import backing_up, executing, execution_from, handing_over, selecting, selection_from
from orchestrator.cli.options import everyone as everyone_option
from orchestrator.cli.running import migrate
from orchestrator.cli.settings import Settings

if TYPE_CHECKING:
    from orchestrator.actions.execution import Watch


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("target")
@selecting
@executing
@backing_up
@handing_over
@everyone_option
@allowing_loss
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
    agree(settings, "downgrade", allow_data_loss, lambda: plan(fleet, target, **asked))

    def work(watch: Watch) -> Any:
        from orchestrator.actions.downgrade import downgrade

        return downgrade(fleet, target, tenants=selection, everyone=everyone, execution=execution, watch=watch)

    return migrate(settings, work, execution)
