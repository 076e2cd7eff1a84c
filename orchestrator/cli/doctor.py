"""orchestrator doctor"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.group import command
from orchestrator.cli.options import selecting, selection_from
from orchestrator.cli.render import print_json
from orchestrator.cli.running import read
from orchestrator.cli.settings import Settings

if TYPE_CHECKING:
    from orchestrator.actions.doctor import Checkup


@click.command()
@selecting
@command
def doctor(settings: Settings, **given: Any) -> int:
    """Look at all that a run needs: servers, rights, connections, locks, journal. Exit code 3 where it would break."""
    from orchestrator.actions.doctor import doctor

    selection = selection_from(given)
    checkup = read(doctor(settings.fleet(), tenants=selection))
    if settings.json:
        print_json(checkup)
    else:
        _show(checkup)
    return 0 if checkup.healthy else 3


def _show(checkup: Checkup) -> None:
    for finding in checkup.findings:
        if finding.level != "ok":
            where = f"{finding.server}: " if finding.server is not None else ""
            click.echo(f"{finding.level.value:<7}  {where}{finding.check}: {finding.message}")
            if finding.hint is not None:
                click.echo(f"         {finding.hint}")
    counts = checkup.summary
    told = "a run has what it needs" if checkup.healthy else "a run would break"
    click.echo(f"{told}: {counts['ok']} ok, notes: {counts['note']}, problems: {counts['problem']}")
