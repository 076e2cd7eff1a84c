"""orchestrator resume"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.group import command
from orchestrator.cli.options import backing_up, executing, execution_from, provisioning
from orchestrator.cli.running import migrate
from orchestrator.cli.settings import Settings

if TYPE_CHECKING:
    from orchestrator.actions.execution import Watch


@click.command()
@click.argument("run", required=False)
@executing
@backing_up
@provisioning
@command
def resume(settings: Settings, run: str | None, provision: bool, **given: Any) -> int:
    """Carry on RUN (default: the last one) where it stands."""
    execution = execution_from(given)

    def work(watch: Watch) -> Any:
        from orchestrator.actions.resume import resume

        return resume(settings.fleet(), run, provision=provision, execution=execution, watch=watch)

    return migrate(settings, work)
