"""orchestrator status"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.group import command
from orchestrator.cli.options import selecting, selection_from
from orchestrator.cli.render import print_json
from orchestrator.cli.running import read
from orchestrator.cli.settings import Settings
from orchestrator.cli.standing import print_csv, print_line, show
from orchestrator.cli.streams import nobody_reads
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from orchestrator.actions.status import StatusReport

#: States that reading a tenant may find; spelled out here, so that --help imports nothing.
_STATES = (
    *("current", "behind", "ahead", "pinned", "unprovisioned", "unknown_revision", "diverged", "partial"),
    "unreachable",
)
#: Seconds between two readings of --watch.
_PAUSE = 2.0
#: Puts the cursor into the upper left corner and clears what is below it (ECMA-48).
_CLEAR = "\x1b[H\x1b[J"


@click.command()
@click.argument("target", required=False)
@selecting
@click.option("--all", "everyone", is_flag=True, help="List every tenant, however many there are.")
@click.option("--behind", is_flag=True, help="Only tenants with pending revisions: --state behind.")
@click.option("--state", "states", multiple=True, type=click.Choice(_STATES), help="Only tenants in this state.")
@click.option("--older-than", metavar="REV", help="Only tenants that are not known to have REV.")
@click.option("--noticed", is_flag=True, help="Only tenants that are not where a run saw them last.")
@click.option("--csv", "as_csv", is_flag=True, help="Every tenant as a line of CSV.")
@click.option("--watch", is_flag=True, help=f"Read again every {_PAUSE:.0f} seconds, until Ctrl-C.")
@command
def status(settings: Settings, target: str | None, **given: Any) -> int:
    """Show where tenants stand, seen from TARGET (default: each tenant's own)."""
    from orchestrator.actions.status import Narrowed, status

    if sum((settings.json, given["as_csv"], given["watch"])) > 1:
        raise UsageError("--json, --csv and --watch exclude each other", hint="orchestrator status --json")
    states = (*given["states"], *(("behind",) if given["behind"] else ()))
    narrowed = Narrowed(states, given["older_than"], given["noticed"])
    everyone, as_csv, watch = given["everyone"] or narrowed != Narrowed(), given["as_csv"], given["watch"]
    selection = selection_from(given)

    def look() -> Awaitable[StatusReport]:
        # Loaded anew: somebody may edit tenants.yaml while it is watched.
        return status(settings.fleet(), target, tenants=selection, narrowed=narrowed)

    if watch:
        _watch(look, everyone=everyone)
        return 0
    report = read(_once(look))
    if settings.json:
        print_json(report)
    elif as_csv:
        print_csv(report)
    else:
        show(report, everyone=everyone)
    return 0


async def _once(look: Callable[[], Awaitable[StatusReport]]) -> StatusReport:
    return await look()


def _watch(look: Callable[[], Awaitable[StatusReport]], *, everyone: bool) -> None:
    """Show what there is again and again; an interrupt ends it, or that nobody reads on."""
    import os
    import time

    redraw = sys.stdout.isatty() and not os.environ.get("CI")
    while not nobody_reads():
        report = read(_once(look))
        if redraw:
            click.echo(_CLEAR, nl=False)
            show(report, everyone=everyone)
        else:
            print_line(report)
        time.sleep(_PAUSE)
