"""orchestrator restore"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.group import command
from orchestrator.cli.options import at_once, at_once_from, selecting, selection_from
from orchestrator.cli.options import everyone as everyone_option
from orchestrator.cli.render import naming
from orchestrator.cli.running import migrate, read
from orchestrator.cli.settings import Settings
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.actions.execution import Watch
    from orchestrator.actions.restore import Foreseen


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
    from orchestrator.actions.restore import foreseen

    selection, execution = selection_from(given), at_once_from(given)
    require_selection("restore", selection, everyone)
    fleet = settings.fleet(may_be_empty=register)
    meant: list[str] | None = None
    if not (settings.yes and allow_data_loss):
        found = read(foreseen(fleet, source, tenants=selection, everyone=everyone, register=register))
        _ask(settings, found)
        # What was shown is what is done, also when another run makes backups meanwhile or more tenants match.
        source, meant = found.source, [*found.made, *found.without]

    def work(watch: Watch) -> Any:
        from orchestrator.actions.restore import restore

        return restore(
            fleet,
            source,
            tenants=selection,
            everyone=everyone,
            keep=keep,
            register=register,
            agreed=meant,
            execution=execution,
            watch=watch,
        )

    return migrate(settings, work)


def _ask(settings: Settings, found: Foreseen) -> None:
    told = f"restore of {naming([*found.made])} from {found.source}, {_when(list(found.made.values()))}"
    if not settings.on_terminal:
        raise UsageError(
            f"restore throws away what came in since the backup, and nobody is there to ask ({told})",
            hint="add --yes --allow-data-loss; --keep leaves what is replaced under another name",
        )
    click.echo(f"{told}: what they hold now is replaced by what they held then", err=True)
    if found.without:
        click.echo(f"  no backup there, and left alone: {naming(found.without)}", err=True)
    if not click.confirm("Go on?", err=True):
        raise UsageError("restore was declined; nothing was touched")


def _when(made: list[datetime]) -> str:
    """When backups were made, and how long ago that is: what came in since then is lost."""
    first, last = (f"{moment:%Y-%m-%d %H:%M:%S} UTC" for moment in (min(made), max(made)))
    span = first if first == last else f"{first} to {last}"
    return f"as of {span} ({_ago((datetime.now(UTC) - min(made)).total_seconds())} ago)"


def _ago(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
