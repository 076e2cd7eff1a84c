"""orchestrator offboard"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.group import command
from orchestrator.cli.options import at_once, at_once_from, duration_of, selecting, selection_from
from orchestrator.cli.options import everyone as everyone_option
from orchestrator.cli.render import naming, tenant_count
from orchestrator.cli.running import migrate, read
from orchestrator.cli.settings import Settings
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.actions.execution import Watch
    from orchestrator.databases.asides import Aside
    from orchestrator.fleet.fleet import Fleet


@click.command()
@click.argument("tenants", nargs=-1, metavar="[TENANT]...")
@selecting
@at_once
@everyone_option
@click.option("--archive", metavar="DIR", help="Back each tenant up into a file in DIR first.")
@click.option("--drop", is_flag=True, help="Drop what it holds: at once, or --after a while.")
@click.option("--after", metavar="TIME", help="With --drop: keep it so long (30d), under another name.")
@click.option("--undo", is_flag=True, help="Bring back what was set aside.")
@click.option("--purge", is_flag=True, help="Drop what was set aside long enough.")
@click.option("--allow-data-loss", is_flag=True, help="Agree that tenants are taken away.")
@command
def offboard(
    settings: Settings,
    tenants: tuple[str, ...],
    everyone: bool,
    archive: str | None,
    drop: bool,
    after: str | None,
    undo: bool,
    purge: bool,
    allow_data_loss: bool,
    **given: Any,
) -> int:
    """Take tenants out of the fleet: save them, set them aside or drop them, forget them.

    Given again, the same command ends what was cut off.
    """
    from orchestrator.actions.project import require_selection

    selection, execution = selection_from(given), at_once_from(given)
    selection = replace(selection, patterns=(*tenants, *selection.patterns))
    keep = None if after is None else _kept(after)
    _refuse_both(undo=undo, purge=purge, archive=archive is not None, drop=drop, after=after is not None)
    fleet = settings.fleet(may_be_empty=True)
    agreed = settings.yes and allow_data_loss
    if purge:
        if not (selection.is_empty and not everyone):
            raise UsageError(
                "--purge drops all that is due, and takes no tenants", hint="orchestrator offboard --purge"
            )
        return _purge(settings, fleet, execution, agreed=agreed)
    require_selection("offboard", selection, everyone)
    meant: list[str] | None = None
    if not (agreed or undo):
        from orchestrator.actions.offboard import offboarded_by

        meant = read(offboarded_by(fleet, tenants=selection, everyone=everyone))
        _ask(settings, meant, archive, _what(drop=drop, after=after))

    def work(watch: Watch) -> Any:
        if undo:
            from orchestrator.actions.offboarding.undo import undo_offboarding

            return undo_offboarding(fleet, tenants=selection, everyone=everyone, execution=execution, watch=watch)
        from orchestrator.actions.offboard import offboard

        return offboard(
            fleet,
            tenants=selection,
            everyone=everyone,
            archive=archive,
            drop=drop,
            after=keep,
            # Who was shown is who is taken out, also when more match by now.
            agreed=meant,
            execution=execution,
            watch=watch,
        )

    return migrate(settings, work)


def _refuse_both(*, undo: bool, purge: bool, **others: bool) -> None:
    named = [f"--{name}" for name, given in {"undo": undo, "purge": purge}.items() if given]
    beside = [f"--{name}" for name, given in others.items() if given]
    if len(named) > 1 or (named and beside):
        raise UsageError(
            f"{named[0]} stands alone, and not with {(named[1:] + beside)[0]}", hint="leave one of them out"
        )


def _kept(after: str) -> timedelta:
    """What ``--after`` says; days are a matter of this command alone."""
    text = after.strip()
    if text.endswith("d") and text[:-1].isdecimal():
        return timedelta(days=int(text[:-1]))
    return timedelta(seconds=duration_of(text, "--after", "30d, 12h or a number of seconds"))


def _what(*, drop: bool, after: str | None) -> str:
    if not drop:
        return "set aside until somebody drops it or brings it back"
    return "dropped at once" if after is None else f"set aside, and may be dropped {after} from now"


def _ask(settings: Settings, whom: list[str], archive: str | None, what: str) -> None:
    """Say who is taken out and ask; nobody is asked about nobody (an empty shard)."""
    saved = "without any archive" if archive is None else f"with an archive in {archive}"
    told = f"offboard of {naming(whom)}: each is taken out of the fleet and {what}, {saved}"
    if not settings.on_terminal:
        raise UsageError(
            f"offboard takes tenants away from their users, and nobody is there to ask ({told})",
            hint="add --yes --allow-data-loss",
        )
    if not whom:
        return
    click.echo(told, err=True)
    if not click.confirm("Go on?", err=True):
        raise UsageError("offboard was declined; nothing was touched")


def _purge(settings: Settings, fleet: Fleet, execution: Any, *, agreed: bool) -> int:
    from orchestrator.actions.offboarding.purge import list_set_aside

    found = read(list_set_aside(fleet))
    for aside in found.kept:
        click.echo(f"kept: {_told(aside)}", err=True)
    for aside in found.due:
        click.echo(f"to be dropped: {_told(aside)}", err=True)
    if found.due and not agreed:
        if not settings.on_terminal:
            raise UsageError(
                f"purge drops what {tenant_count(len(found.due))} had, and nobody is there to ask",
                hint="add --yes --allow-data-loss",
            )
        if not click.confirm("Drop them?", err=True):
            raise UsageError("purge was declined; nothing was touched")

    def work(watch: Watch) -> Any:
        from orchestrator.actions.offboarding.purge import purge

        # What was shown is what is dropped, also when more has become due meanwhile.
        return purge(fleet, names={aside.name for aside in found.due}, execution=execution, watch=watch)

    return migrate(settings, work)


def _told(aside: Aside) -> str:
    departure = aside.departure
    day = departure.until[:10] if departure.until is not None else "nobody has said when to drop it"
    where = f"{aside.tenant.id} ({departure.was} on {aside.tenant.server}, {aside.name})"
    saved = "" if departure.archive is None else f", archive {departure.archive['file']}"
    return f"{where}, set aside {departure.at[:10]}, {day if departure.until is None else f'until {day}'}{saved}"
