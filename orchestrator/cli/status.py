"""orchestrator status"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.group import command
from orchestrator.cli.options import selecting, selection_from
from orchestrator.cli.render import counted, print_json, print_table, show_edited
from orchestrator.cli.running import read
from orchestrator.cli.settings import Settings

if TYPE_CHECKING:
    from orchestrator.actions.status import StatusReport


@click.command()
@click.argument("target", required=False)
@selecting
@command
def status(settings: Settings, target: str | None, **given: Any) -> int:
    """Show every tenant's heads and state, seen from TARGET (default: each tenant's own)."""
    from orchestrator.actions.status import status

    selection = selection_from(given)
    report = read(status(settings.fleet(), target, tenants=selection))
    if settings.json:
        print_json(report)
    else:
        _show(report)
    return 0


def _show(report: StatusReport) -> None:
    rows = []
    for each in report.tenants:
        heads = "?" if each.heads is None else ", ".join(each.heads) or "-"
        note = each.tenant.reason if each.state == "pinned" and each.tenant.reason else ""
        if each.failure is not None:
            note = each.failure.message.partition("\n")[0]
        pending = str(len(each.path)) if each.path else ""
        rows.append((each.tenant.id, each.tenant.server, each.tenant.place, heads, each.state.value, pending, note))
    print_table(("TENANT", "SERVER", "PLACE", "HEADS", "STATE", "PENDING", ""), rows)
    show_edited(report.edited)
    click.echo(f"\ntarget {', '.join(report.target) or 'base'}: {counted(report.summary)}")
