"""orchestrator backup"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.group import command
from orchestrator.cli.options import at_once, at_once_from, selecting, selection_from
from orchestrator.cli.running import migrate
from orchestrator.cli.settings import Settings

if TYPE_CHECKING:
    from orchestrator.actions.execution import Watch


@click.command()
@click.option("--to", "--backup", "to", metavar="DIR", required=True, help="Directory that the backups go into.")
@selecting
@at_once
@command
def backup(settings: Settings, to: str, **given: Any) -> int:
    """Write each selected tenant (default: all) into a file of its own, under its lock. Goes on whatever fails."""
    selection, execution = selection_from(given), at_once_from(given)

    def work(watch: Watch) -> Any:
        from orchestrator.actions.backup import backup

        return backup(settings.fleet(), Path(to), tenants=selection, execution=execution, watch=watch)

    return migrate(settings, work)
