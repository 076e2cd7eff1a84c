"""orchestrator upgrade"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.group import command
from orchestrator.cli.options import (
    backing_up,
    executing,
    execution_from,
    handing_over,
    provisioning,
    selecting,
    selection_from,
)
from orchestrator.cli.running import migrate
from orchestrator.cli.settings import Settings
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.actions.execution import Watch


@click.command()
@click.argument("target", required=False)
@selecting
@executing
@backing_up
@handing_over
@provisioning
@click.option("--plan", "plan_file", metavar="FILE", help="Run this plan (see plan --out), if all is still as it was.")
@click.option("--dry-run", is_flag=True, help="Show the plan and touch nothing.")
@command
def upgrade(
    settings: Settings, target: str | None, provision: bool, plan_file: str | None, dry_run: bool, **given: Any
) -> int:
    """Migrate tenants to TARGET (default: each tenant's own, heads without one).

    Stops on the first failure: no new tenant starts, running ones finish.
    """
    selection, execution = selection_from(given), execution_from(given)
    if dry_run:
        if plan_file is not None:
            raise UsageError("--dry-run makes a plan, and --plan has one", hint="leave one of them out")
        from orchestrator.cli.plan import show

        return show(settings, target, tenants=selection, provision=provision, execution=execution)

    def work(watch: Watch) -> Any:
        from orchestrator.actions.upgrade import upgrade

        return upgrade(
            settings.fleet(),
            target,
            tenants=selection,
            provision=provision,
            execution=execution,
            watch=watch,
            plan=plan_file,
        )

    return migrate(settings, work, execution)
