"""Where tenants stand, for people and spreadsheets: how many are where first, then what is odd."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from orchestrator.cli.hints import typed
from orchestrator.cli.render import counted, print_table, show_edited, tenant_count

if TYPE_CHECKING:
    from orchestrator.actions.noticed import Notice
    from orchestrator.actions.status import StatusReport
    from orchestrator.rollout.plan import PlannedTenant

#: So many tenants are all listed: that is as quick to read as how many are where.
_FEW = 20
#: Tenants of each kind that are named where there are more.
_NAMED = 5
#: States in the order in which they are to be looked at; those that are as they should be are not named.
_ODD = ("unreachable", "partial", "unknown_revision", "diverged", "unprovisioned", "behind", "ahead", "pinned")
_COLUMNS = ("TENANT", "SERVER", "PLACE", "HEADS", "STATE", "PENDING", "")


def show(report: StatusReport, *, everyone: bool) -> None:
    """Print a report for people.

    Args:
        report: what was read.
        everyone: list every tenant, however many there are.
    """
    many = len(report.tenants) > _FEW
    if many:
        _show_histogram(report)
    if many and everyone:
        click.echo()
    if everyone or not many:
        print_table(_COLUMNS, map(_row, report.tenants))
    else:
        _show_odd(report)
    _show_noticed(report, None if everyone or not many else _NAMED)
    show_edited(report.edited)
    click.echo(f"\n{_line(report)}")


def print_line(report: StatusReport) -> None:
    """Print how many tenants are in which state, with the moment."""
    from datetime import UTC, datetime

    click.echo(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC  {_line(report)}")
    # Whoever reads a pipe waits for it.
    sys.stdout.flush()


def print_csv(report: StatusReport) -> None:
    """Print a line for each tenant, with headings."""
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    names = ("tenant", "server", "database", "schema", "tags", "heads", "state", "pending", "noticed", "error")
    writer.writerow(names)
    for tenant in report.as_json()["tenants"]:
        noticed, error = tenant["noticed"], tenant["error"]
        told = {
            **tenant,
            "tags": " ".join(tenant["tags"]),
            "heads": None if tenant["heads"] is None else " ".join(tenant["heads"]),
            "noticed": noticed and noticed["kind"],
            "error": error and error["message"],
        }
        writer.writerow([told[name] for name in names])


def _line(report: StatusReport) -> str:
    noticed = f"; {len(report.noticed)} not as the journal has it" if report.noticed else ""
    return f"target {', '.join(report.target) or 'base'}: {counted(report.summary)}{noticed}"


def _show_histogram(report: StatusReport) -> None:
    print_table(
        ("TENANTS", "STATE", "HEADS", "MADE", "MESSAGE"),
        [
            (f"{group.tenants:>7}", group.state.value, heads_of(group.heads), group.date or "", group.message)
            for group in report.revisions
        ],
    )


def _show_odd(report: StatusReport) -> None:
    """A few tenants of each state that is not as it should be."""
    for state in _ODD:
        found = [each for each in report.tenants if each.state == state]
        if found:
            click.echo(f"\n{tenant_count(len(found))} {state}:")
            _print_indented(_named(each) for each in found[:_NAMED])
            _more(len(found), f"--state {state}")


def _named(each: PlannedTenant) -> tuple[str, ...]:
    return (each.tenant.id, each.tenant.server, each.tenant.place, heads_of(each.heads), note_of(each))


def _show_noticed(report: StatusReport, listed: int | None) -> None:
    kinds: dict[str, list[Notice]] = {}
    for notice in report.noticed.values():
        kinds.setdefault(notice.kind.value, []).append(notice)
    for kind, found in kinds.items():
        click.echo(f"\n{tenant_count(len(found))} not as the journal has it ({kind}):")
        for notice in found[:listed]:
            click.echo(f"  {notice.tenant}: {notice.message}")
        if listed is not None:
            _more(len(found), "--noticed")
        click.echo(f"  hint: {typed(found[0].hint)}")


def _more(count: int, options: str) -> None:
    if count > _NAMED:
        click.echo(typed(f"  and {count - _NAMED} more: orchestrator status {options}"))


def _row(each: PlannedTenant) -> tuple[str, ...]:
    pending = str(len(each.path)) if each.path else ""
    tenant = each.tenant
    return (tenant.id, tenant.server, tenant.place, heads_of(each.heads), each.state.value, pending, note_of(each))


def note_of(each: PlannedTenant) -> str:
    """Why a tenant is as it is, in a line; empty where there is nothing to say."""
    if each.failure is not None:
        return each.failure.message.partition("\n")[0]
    return each.tenant.reason or "" if each.state == "pinned" else ""


def heads_of(heads: Sequence[str] | None) -> str:
    """Heads as a table has them."""
    return "?" if heads is None else ", ".join(heads) or "-"


def _print_indented(rows: Iterable[Sequence[str]]) -> None:
    table = [tuple(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        click.echo("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
