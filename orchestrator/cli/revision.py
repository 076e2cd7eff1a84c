"""orchestrator revision"""

from __future__ import annotations

from typing import Any

import click

from orchestrator.cli.group import command
from orchestrator.cli.lint import report_lines
from orchestrator.cli.render import print_json
from orchestrator.cli.running import read
from orchestrator.cli.settings import Settings


@click.command()
@click.option("-m", "--message", metavar="TEXT", help="What the revision is for, in one line.")
@click.option("--autogenerate", is_flag=True, help="Fill it with what the models have and the revisions have not.")
@click.option(
    "--like",
    "-t",
    "--tenant",
    "like",
    metavar="TENANT",
    help="Compare in a scratch place beside this tenant, of its kind.",
)
@click.option("--head", default="head", show_default=True, metavar="REV", help="The revision it comes after.")
@click.option("--splice", is_flag=True, help="Allow --head to be no head: start a branch there.")
@click.option("--branch-label", metavar="LABEL", help="Name of the branch it starts.")
@click.option("--depends-on", multiple=True, metavar="REV", help="A revision of another branch that it needs.")
@click.option("--version-path", metavar="DIR", help="Which of several directories of revisions to write to.")
@click.option("--rev-id", metavar="ID", help="Its identifier (default: a new one).")
@command
def revision(settings: Settings, message: str | None, **given: Any) -> int:
    """Write a new revision file.

    With --autogenerate the revisions are brought to a scratch schema, database or file, which is compared with the
    models and dropped: no tenant is read. What was written is linted; exit code 3 when something is an error.
    """
    from orchestrator.actions.revision import revision

    written = read(revision(settings.fleet(), message or "", **given))
    if settings.json:
        print_json(written)
    else:
        for file in written.files:
            click.echo(file)
        if not written.files:
            click.echo("nothing to write: the revisions make what the models have", err=True)
        if written.lint is not None:
            for line in report_lines(written.lint):
                click.echo(line, err=True)
    return 0 if written.passed else 3
