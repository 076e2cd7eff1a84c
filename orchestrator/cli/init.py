"""orchestrator init"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.group import command
from orchestrator.cli.render import print_json
from orchestrator.cli.settings import Settings
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.actions.adopt import AdoptedProject
    from orchestrator.actions.init import NewProject


@click.command()
@click.option("--adopt", metavar="DIR", help="Put the tenant loop on the Alembic project in DIR instead.")
@command
def init(settings: Settings, adopt: str | None) -> int:
    """Make a project beside --config: alembic.ini, alembic/ and tenants.yaml. Nothing is ever overwritten."""
    result: AdoptedProject | NewProject
    if adopt is None:
        from orchestrator.actions.init import init_project

        result = init_project(settings.path)
    else:
        if settings.config is not None:
            raise UsageError(
                "--adopt takes no --config: tenants.yaml is written beside the alembic.ini that is there",
                hint=f"orchestrator init --adopt {adopt}",
            )
        from orchestrator.actions.adopt import adopt_project

        result = adopt_project(Path(adopt))
        _tell(result)
    if settings.json:
        print_json(result)
        return 0
    for path in result.created:
        click.echo(f"created  {path}")
    if result.next:
        click.echo("\nnext, once the servers and tenants in tenants.yaml are yours:")
    for line in result.next:
        click.echo(f"  {line}")
    return 0


def _tell(result: AdoptedProject) -> None:
    """What became of env.py, on stderr: it is for the person who is about to look at it."""
    if result.kept is None:
        click.echo(f"{result.env} calls for_each_tenant already; nothing was changed", err=True)
        return
    click.echo(f"changed  {result.env} (the old one is {result.kept})", err=True)
    if result.left_out:
        click.echo("\nlook at these lines of the old one:", err=True)
    for each in result.left_out:
        click.echo(f"  {result.kept}:{each.line}: {each.text}\n      {each.reason}", err=True)
