"""orchestrator restore"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.group import command
from orchestrator.cli.options import at_once, at_once_from, selecting, selection_from
from orchestrator.cli.options import everyone as everyone_option
from orchestrator.cli.running import migrate, read
from orchestrator.cli.settings import Settings
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.actions.execution import Watch


@click.command()
@click.argument("source", metavar="RUN|FILE")
@selecting
@at_once
@everyone_option
@click.option("--keep", is_flag=True, help="Leave what is replaced where it is, under another name.")
@click.option("--register", is_flag=True, help="Also tenants that the fleet has no more: they are in it again.")
@click.option("--allow-data-loss", is_flag=True, help="Agree that what came in since the backup is thrown away.")
@command
def restore(
    settings: Settings, source: str, everyone: bool, keep: bool, register: bool, allow_data_loss: bool, **given: Any
) -> int:
    """Put selected tenants back whole, from the backups of RUN (an id, the start of one, or last) or from FILE."""
    from orchestrator.actions.project import require_selection
    from orchestrator.actions.restore import last_source

    selection, execution = selection_from(given), at_once_from(given)
    require_selection("restore", selection, everyone)
    fleet = settings.fleet(may_be_empty=register)
    if source == "last":
        # Now: what is agreed to is what is done, also when another run makes backups meanwhile.
        source = read(last_source(fleet))
    if not (settings.yes and allow_data_loss):
        _ask(settings, source)

    def work(watch: Watch) -> Any:
        from orchestrator.actions.restore import restore

        return restore(
            fleet,
            source,
            tenants=selection,
            everyone=everyone,
            keep=keep,
            register=register,
            execution=execution,
            watch=watch,
        )

    return migrate(settings, work)


def _ask(settings: Settings, source: str) -> None:
    if not settings.on_terminal:
        raise UsageError(
            "restore throws away what came in since the backup, and nobody is there to ask",
            hint="add --yes --allow-data-loss; --keep leaves what is replaced under another name",
        )
    click.echo(f"restore from {source}: what the tenants hold now is replaced by what they held then", err=True)
    if not click.confirm("Go on?", err=True):
        raise UsageError("restore was declined; nothing was touched")
