"""orchestrator doctor"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.group import command
from orchestrator.cli.hints import typed
from orchestrator.cli.options import selecting, selection_from
from orchestrator.cli.render import print_json
from orchestrator.cli.running import read
from orchestrator.cli.settings import Settings

if TYPE_CHECKING:
    from orchestrator.actions.doctor import DoctorReport


@click.command()
@selecting
@command
def doctor(settings: Settings, **given: Any) -> int:
    """Look whether anything would break a run. Exit code 3 where something would."""
    from orchestrator.actions.doctor import doctor

    report = read(doctor(settings.fleet(), tenants=selection_from(given)))
    if settings.json:
        print_json(report)
    else:
        _show(report, verbose=settings.verbose)
    return 0 if report.healthy else 3


def _show(report: DoctorReport, *, verbose: bool) -> None:
    shown = [finding for finding in report.findings if verbose or finding.level != "ok"]
    for finding in shown:
        where = f"{finding.server}: " if finding.server else ""
        click.echo(f"{finding.level.value:<8} {where}{finding.check}: {finding.message}")
        if finding.hint:
            click.echo(f"         hint: {typed(finding.hint)}")
    looked = f"{len(report.findings)} things looked at"
    problems = sum(finding.level == "problem" for finding in report.findings)
    click.echo(f"{looked}, {problems} would break a run" if problems else f"{looked}, nothing stands against a run")
