"""Results for people: tables for what is many, a few plain lines for what went wrong. On stdout, or as JSON there."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from orchestrator.cli.hints import typed, typed_in
from orchestrator.cli.settings import Settings

if TYPE_CHECKING:
    from orchestrator.actions.integrity import Edited
    from orchestrator.journal.records import AttemptRecord, RunRecord
    from orchestrator.rollout.result import RunResult

#: Failures told in full; the rest are counted by cause.
_TOLD = 5
#: Tenants named in a line; the rest are counted.
_NAMED = 5


class Document(Protocol):
    """A result that knows its JSON form."""

    def as_json(self) -> dict[str, Any]:
        """Plain data, as docs/cli.md describes it."""
        ...


def print_json(document: Document | dict[str, Any]) -> None:
    """The one document that ``--json`` prints."""
    data = typed_in(document if isinstance(document, dict) else document.as_json())
    # Not json.dump: it calls write() for every word, which takes ten times as long.
    text = json.dumps(data, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None)
    sys.stdout.write(text + "\n")


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as what is in them; the last one takes what it needs."""
    table = [tuple(headings), *(tuple(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    # One format and one echo for all: called for each of a hundred thousand rows, they take longer than the journal.
    form = "  ".join(f"{{:<{width}}}" for width in widths)
    lines = [form.format(*row).rstrip() for row in table]
    if _styled():
        lines[0] = click.style(lines[0], bold=True)
    click.echo("\n".join(lines))


def _styled() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and not os.environ.get("CI")


def tenant_count(count: int) -> str:
    """``1 tenant``, ``2 tenants``."""
    return f"{count} tenant" if count == 1 else f"{count} tenants"


def naming(ids: Sequence[str]) -> str:
    """How many tenants and who: ``7 tenants (acme, globex, initech and 4 more)``."""
    return f"{tenant_count(len(ids))} ({some(ids)})" if ids else tenant_count(0)


def some(ids: Sequence[str]) -> str:
    """The first few of many tenants: ``acme, globex, initech and 4 more``."""
    shown = ", ".join(ids[:_NAMED])
    return shown if len(ids) <= _NAMED else f"{shown} and {len(ids) - _NAMED} more"


def sized(count: int) -> str:
    """``512 bytes``, ``24 kB``, ``1.5 GB``: as PostgreSQL's ``pg_size_pretty``, with one digit where it is large."""
    amount = float(count)
    for unit in ("bytes", "kB", "MB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GB" if amount < 1024 else f"{amount / 1024:.1f} TB"


def counted(summary: dict[str, int]) -> str:
    """``11 succeeded, 1 failed``."""
    return ", ".join(f"{count} {status}" for status, count in summary.items()) or "no tenants"


def show_edited(edited: Sequence[Edited]) -> None:
    """Revisions whose files are not those that tenants were migrated with."""
    for each in edited:
        click.echo(f"\n{each.message}\n  hint: {typed(each.hint)}")


def show_run(settings: Settings, result: RunResult) -> None:
    """How a run ended: its sum, what failed and why, and the command to go on."""
    if settings.json:
        print_json(result)
        return
    run = result.run
    took = ""
    if run.finished_at is not None:
        took = f" in {(run.finished_at - run.started_at).total_seconds():.1f} s"
    click.echo(f"run {run.id} {run.status.value}{took}: {counted(result.summary)}")
    if result.waits is not None:
        click.echo(f"it {result.waits}")
        if result.waits.behind is None:
            click.echo(typed(f"  hint: {result.waits.way_on(run.given_as)}"))
    if result.rehearsed is not None:
        from orchestrator.rollout.rehearsal_telling import compared

        click.echo(compared(result.rehearsed))
    if result.backups:
        directory = os.path.commonpath([Path(each["file"]).parent for each in result.backups])
        click.echo(f"backups of {tenant_count(len({each['tenant'] for each in result.backups}))} in {directory}")
    if len(result.causes) > 1:
        count = sum(cause.count for cause in result.causes)
        click.echo(f"\n{tenant_count(count)}, {len(result.causes)} causes")
    for cause in result.causes[:_TOLD]:
        example = next(attempt for attempt in result.tenants if attempt.tenant == cause.example)
        _show_failure(run, example, cause.count)
    if len(result.causes) > _TOLD:
        click.echo(typed(f"\nand {len(result.causes) - _TOLD} more causes: orchestrator runs show {run.id} --json"))
    held_up = result.held_up
    if held_up is not None:
        click.echo(f"\n{held_up}")
    if not result.satisfied and result.way_on is not None:
        click.echo(f"\n{typed(result.way_on)}")


def _show_failure(run: RunRecord, attempt: AttemptRecord, count: int) -> None:
    from orchestrator.rollout.next_commands import hint_of

    error = attempt.error or {}
    others = f" and {count - 1} more for the same cause" if count > 1 else ""
    click.echo(f"\n{attempt.tenant} {attempt.status.value}{others}")
    state = f" ({error['sqlstate']})" if error.get("sqlstate") else ""
    for name, value in (
        ("revision", error.get("revision")),
        ("statement", error.get("statement")),
        ("error", f"{error.get('type')}{state}: {error.get('message')}"),
        ("hint", typed(hint_of(run, error) or "")),
    ):
        if value:
            text = str(value).strip().replace("\n", "\n             ")
            click.echo(f"  {name:<9}  {text}")
