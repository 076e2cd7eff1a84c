"""orchestrator rehearse"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.group import command
from orchestrator.cli.options import duration_of, selecting, selection_from
from orchestrator.cli.render import print_json
from orchestrator.cli.running import carry_out
from orchestrator.cli.settings import Settings
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.actions.execution import Execution
    from orchestrator.actions.rehearsing.clones import Clones


@click.command()
@click.argument("target", required=False)
@selecting
@click.option(
    "--pick",
    metavar="largest,oldest,drifted|all",
    help="Whom to clone of those selected (default: all that are named by -t; else one of each).",
)
@click.option("--schema-only", is_flag=True, help="Copy definitions, and not a row.")
@click.option(
    "--rows", type=click.IntRange(min=1), metavar="N", help="With --schema-only: make up N rows in each table."
)
@click.option("--template", is_flag=True, help="Copy databases' files; nobody can connect to them meanwhile.")
@click.option("--no-down", is_flag=True, help="Only up: neither back nor up again.")
@click.option("--allow-outside", is_flag=True, help="Also run what may work outside: other connections, the network.")
@click.option("--wave", metavar="NAME", help="The estimate is of this wave.")
@click.option("--waves", metavar="1,10%,...", help="The estimate is of a run in these waves.")
@click.option("--lock-timeout", metavar="TIME", help="Reading a tenant waits no longer than this for a lock.")
@click.option("--statement-timeout", metavar="TIME", help="A statement runs no longer than this.")
@click.option("--md", is_flag=True, help="As a report in Markdown, for a ticket.")
@command
def rehearse(settings: Settings, target: str | None, md: bool, **given: Any) -> int:
    """Run what is pending up to TARGET on clones of real tenants: up, down and up.

    Tells what it locks and for how long, what cannot be undone, and how long the run would take. No tenant is touched,
    and nothing is kept. Exit code 1 when a clone did not go up, down and up as it should.
    """
    from orchestrator.actions.rehearse import rehearse
    from orchestrator.cli.rehearsal import show_rehearsal

    if md and settings.json:
        raise UsageError("--md and --json exclude each other", hint="leave one of them out")
    selection, clones, execution = selection_from(given), _clones(given), _execution(given)
    fleet = settings.fleet()
    work = rehearse(fleet, target, tenants=selection, clones=clones, execution=execution, told=_narrated(settings))
    report = carry_out(work)
    if settings.json:
        print_json(report)
    elif md:
        from orchestrator.rollout.rehearsal_report import report as written

        click.echo(written(report.as_json()), nl=False)
    else:
        show_rehearsal(report.as_json())
    return report.exit_code


def _narrated(settings: Settings) -> Callable[[str], None]:
    """Where each step is told: a line on stderr."""
    if settings.log_format == "json":
        import json

        return lambda text: click.echo(json.dumps({"event": "rehearse", "message": text}), err=True)
    return lambda text: click.echo(text, err=True)


def _clones(given: dict[str, Any]) -> Clones:
    from orchestrator.actions.rehearsing.clones import Clones

    pick, rows, schema_only = given.pop("pick"), given.pop("rows"), given.pop("schema_only")
    if rows is not None and not schema_only:
        raise UsageError("--rows makes rows up where none are copied", hint="add --schema-only")
    template = given.pop("template")
    if template and schema_only:
        raise UsageError("--template copies rows, and --schema-only copies none", hint="leave one of them out")
    return Clones(
        pick=None if pick is None else tuple(part.strip() for part in pick.split(",") if part.strip()),
        schema_only=schema_only,
        rows=rows,
        template=template,
        down=not given.pop("no_down"),
        allow_outside=given.pop("allow_outside"),
    )


def _execution(given: dict[str, Any]) -> Execution:
    from orchestrator.actions.execution import Execution
    from orchestrator.fleet.tenant import Limits

    def seconds(name: str) -> float | None:
        text = given.pop(name)
        form = "10s, 1m or a number of seconds"
        return None if text is None else duration_of(text, f"--{name.replace('_', '-')}", form)

    limits = Limits(lock_timeout=seconds("lock_timeout"), statement_timeout=seconds("statement_timeout"))
    return Execution(wave=given.pop("wave"), waves=given.pop("waves"), limits=limits)
