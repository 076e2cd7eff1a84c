"""orchestrator demo"""

from __future__ import annotations

import sys

import click

from orchestrator.cli.group import command
from orchestrator.cli.render import print_json
from orchestrator.cli.settings import Settings


@click.command()
@command
def demo(settings: Settings) -> int:
    """Run the main job on a throw-away fleet: migrate, fail, mend, resume, roll back."""
    from orchestrator.actions.demo import demo

    if settings.json:
        ran = demo(lambda text: click.echo(text, err=True), output=sys.stderr.fileno())
        print_json({"commands": [{"command": each.command, "exit_code": each.exit_code} for each in ran]})
    else:
        demo(_say)
    return 0


def _say(text: str) -> None:
    click.echo(text)
    # The commands write to the same terminal or file by themselves.
    sys.stdout.flush()
