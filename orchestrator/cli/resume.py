"""orchestrator resume"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.group import command
from orchestrator.cli.options import backing_up, executing, execution_from, handing_over, provisioning
from orchestrator.cli.running import migrate
from orchestrator.cli.settings import Settings

if TYPE_CHECKING:
    from orchestrator.actions.execution import Watch


@click.command()
@click.argument("run", required=False)
@executing
@backing_up
@handing_over
@provisioning
@click.option("--approve", is_flag=True, help="Let the next wave begin that waits for approval.")
@command
def resume(settings: Settings, run: str | None, provision: bool, approve: bool, **given: Any) -> int:
    """Carry on RUN (default: the last one) where it stands."""
    execution = replace(execution_from(given), approve=approve)

    def work(watch: Watch) -> Any:
        from orchestrator.actions.resume import resume

        return resume(settings.fleet(may_be_empty=True), run, provision=provision, execution=execution, watch=watch)

    return migrate(settings, work, execution)
