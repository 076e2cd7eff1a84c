"""orchestrator check"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.group import command
from orchestrator.cli.hints import typed
from orchestrator.cli.options import selecting, selection_from
from orchestrator.cli.render import print_json, print_table, tenant_count
from orchestrator.cli.running import read
from orchestrator.cli.settings import Settings
from orchestrator.cli.standing import heads_of, note_of

if TYPE_CHECKING:
    from orchestrator.actions.check import CheckReport

#: Tenants that are named.
_NAMED = 20


@click.command()
@click.option("--min-revision", metavar="REV", help="What every tenant must have; default: its own target.")
@selecting
@command
def check(settings: Settings, min_revision: str | None, **given: Any) -> int:
    """Say whether every tenant has a revision: exit code 0, else 3 with those that do not."""
    from orchestrator.actions.check import check

    report = read(check(settings.fleet(), min_revision, tenants=selection_from(given)))
    if settings.json:
        print_json(report)
    else:
        _show(report, min_revision)
    return 0 if report.ready else 3


def _show(report: CheckReport, asked: str | None) -> None:
    what = ", ".join(report.target) or "base"
    if report.ready:
        click.echo(f"ready: {tenant_count(report.tenants)} at {what} or beyond")
        return
    rows = [
        (each.tenant.id, each.tenant.server, heads_of(each.heads), each.state.value, note_of(each))
        for each in report.not_ready[:_NAMED]
    ]
    print_table(("TENANT", "SERVER", "HEADS", "STATE", ""), rows)
    if len(report.not_ready) > _NAMED:
        see = "orchestrator check --json" if asked is None else f"orchestrator status --older-than {asked}"
        click.echo(f"and {len(report.not_ready) - _NAMED} more: {typed(see)}")
    click.echo(f"\nnot ready: {len(report.not_ready)} of {tenant_count(report.tenants)} not known to have {what}")
