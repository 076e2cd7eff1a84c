"""orchestrator stamp"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.group import command
from orchestrator.cli.options import everyone as everyone_option
from orchestrator.cli.options import executing, execution_from, selecting, selection_from
from orchestrator.cli.running import migrate
from orchestrator.cli.settings import Settings

if TYPE_CHECKING:
    from orchestrator.actions.execution import Watch


@click.command()
@click.argument("revision")
@selecting
@executing
@everyone_option
@command
def stamp(settings: Settings, revision: str, everyone: bool, **given: Any) -> int:
    """Set the version of selected tenants to REVISION without migrating them."""
    selection, execution = selection_from(given), execution_from(given)

    def work(watch: Watch) -> Any:
        from orchestrator.actions.stamp import stamp

        return stamp(settings.fleet(), revision, tenants=selection, everyone=everyone, execution=execution, watch=watch)

    return migrate(settings, work)
