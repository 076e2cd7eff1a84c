"""orchestrator runs list, orchestrator runs show"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.group import command
from orchestrator.cli.hints import typed
from orchestrator.cli.render import counted, print_json, print_table, show_run
from orchestrator.cli.running import follow, read
from orchestrator.cli.settings import Settings
from orchestrator.cli.standing import heads_of
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.actions.execution import Watch
    from orchestrator.actions.runs import RunList
    from orchestrator.journal.records import RunRecord
    from orchestrator.rollout.result import RunResult


@click.group()
@command
def runs(settings: Settings) -> None:
    """What the journal says of earlier runs."""


@runs.command("list")
@click.option("-t", "--tenant", metavar="TENANT", help="Only runs that meant this tenant.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Runs at most.")
@command
def list_(settings: Settings, tenant: str | None, limit: int) -> int:
    """List runs, newest first."""
    from orchestrator.actions.runs import list_runs

    found = read(list_runs(settings.fleet(), tenant=tenant, limit=limit))
    if settings.json:
        print_json(found)
        return 0
    if tenant is not None:
        _show_tenant(found, tenant)
        return 0
    print_table(
        ("RUN", "COMMAND", "STATUS", "STARTED", "BY", "TENANTS"),
        [
            (
                run.id,
                run.command,
                run.status.value,
                run.started_at.strftime("%Y-%m-%d %H:%M:%S UTC"),
                f"{run.actor.user}@{run.actor.host}",
                counted({status.value: count for status, count in summary.items()}),
            )
            for run, summary in found.runs
        ],
    )
    return 0


def _show_tenant(found: RunList, tenant: str) -> None:
    """What happened to one tenant, when, and by whom."""
    from orchestrator.actions.runs import asked

    rows = []
    for run, _ in found.runs:
        attempt = found.attempts[run.id]
        error = str((attempt.error or {}).get("message") or "").partition("\n")[0]
        when = attempt.started_at or run.started_at
        rows.append(
            (
                run.id,
                f"{run.command} {asked(run)}".rstrip(),
                attempt.status.value,
                when.strftime("%Y-%m-%d %H:%M:%S UTC"),
                f"{run.actor.user}@{run.actor.host}",
                heads_of(attempt.from_heads),
                heads_of(attempt.to_heads),
                error,
            )
        )
    print_table(("RUN", "COMMAND", "STATUS", "STARTED", "BY", "FROM", "TO", ""), rows)
    if not rows:
        text = f"no run in the journal has meant {tenant}; orchestrator tenants list has the ids"
        click.echo(typed(text), err=True)


@runs.command()
@click.argument("run")
@click.option("--md", is_flag=True, help="As a report in Markdown, for a ticket.")
@click.option(
    "--follow", "follows", is_flag=True, help="Look on until it is over; then the exit code is that of the run."
)
@command
def show(settings: Settings, run: str, md: bool, follows: bool) -> int:
    """Show RUN (an id, the start of one, or last): every tenant, and failures by cause."""
    from orchestrator.actions.runs import show_run as read_run

    if md and settings.json:
        raise UsageError("--md and --json exclude each other", hint=f"orchestrator runs show {run} --md")
    if follows:
        return _follow(settings, run, md)
    result = read(read_run(settings.fleet(), run))
    if result.run.command == "rehearse" and not settings.json:
        _show_rehearsal(result, md=md)
        return 0
    if md:
        from orchestrator.rollout.report import report

        click.echo(typed(report(result)), nl=False)
        return 0
    if not settings.json:
        print_table(
            ("TENANT", "STATUS", "FROM", "TO", "TRIES", "MS"),
            [
                (
                    attempt.tenant,
                    attempt.status.value,
                    heads_of(attempt.from_heads),
                    heads_of(attempt.to_heads),
                    str(attempt.attempts),
                    "" if attempt.duration_ms is None else f"{attempt.duration_ms:.0f}",
                )
                for attempt in result.tenants
            ],
        )
        click.echo()
    show_run(settings, result)
    return 0


def _follow(settings: Settings, run: str, md: bool) -> int:
    """As the command that began the run would have ended."""
    from orchestrator.rollout.report import report

    def work(watch: Watch) -> Any:
        from orchestrator.actions.distributing.following import follow_run

        return follow_run(settings.fleet(), run, watch)

    result, left = follow(settings, work)
    if md:
        click.echo(typed(report(result)), nl=False)
    else:
        show_run(settings, result)
    return left if left is not None else 0 if result.satisfied else 1


def _show_rehearsal(result: RunResult, *, md: bool) -> None:
    from orchestrator.cli.rehearsal import show_rehearsal
    from orchestrator.rollout.rehearsal_report import report

    if result.rehearsal is None:
        click.echo(
            f"rehearsal {result.run.id} {result.run.status.value}: it did not come to its end, and found nothing"
        )
    elif md:
        click.echo(typed(report(result.rehearsal)), nl=False)
    else:
        show_rehearsal(result.rehearsal)


@runs.command()
@click.argument("run")
@command
def pause(settings: Settings, run: str) -> int:
    """Let RUN end once the tenants that it is at are through; resume carries it on."""
    from orchestrator.actions.stopping import pause as ask

    _asked(settings, read(ask(settings.fleet(), run)), "paused")
    return 0


@runs.command()
@click.argument("run")
@command
def cancel(settings: Settings, run: str) -> int:
    """End RUN for good once the tenants that it is at are through; the others stay as they are."""
    from orchestrator.actions.stopping import cancel as ask

    _asked(settings, read(ask(settings.fleet(), run)), "cancelled")
    return 0


def _asked(settings: Settings, record: RunRecord, status: str) -> None:
    """Tell of a run what it is to be called once its process has heeded."""
    if settings.json:
        print_json({"run": record.id, "asked": status})
    else:
        click.echo(f"run {record.id} is to be {status}: no new tenant starts")
