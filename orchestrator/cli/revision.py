"""orchestrator revision"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestrator.cli.group import command
from orchestrator.cli.render import print_json
from orchestrator.cli.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.option("-m", "--message", metavar="TEXT", help="What the revision is for, in one line.")
@click.option(
    "--autogenerate", is_flag=True, help="Fill it with what the models have and the reference tenant has not."
)
@click.option("-t", "--tenant", metavar="TENANT", help="The reference tenant (default: the first one at its target).")
@click.option("--head", default="head", show_default=True, metavar="REV", help="The revision it comes after.")
@click.option("--splice", is_flag=True, help="Allow --head to be no head: start a branch there.")
@click.option("--branch-label", metavar="LABEL", help="Name of the branch it starts.")
@command
def revision(
    settings: Settings,
    message: str | None,
    autogenerate: bool,
    tenant: str | None,
    head: str,
    splice: bool,
    branch_label: str | None,
) -> int:
    """Write a new revision file."""
    from orchestrator.actions.revision import write_revision

    written: Path = write_revision(
        settings.fleet(),
        message or "",
        autogenerate=autogenerate,
        tenant=tenant,
        head=head,
        splice=splice,
        branch_label=branch_label,
    )
    if settings.json:
        print_json({"file": str(written)})
    else:
        click.echo(written)
    return 0
