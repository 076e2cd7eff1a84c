"""orchestrator plan"""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.group import command
from orchestrator.cli.hints import typed
from orchestrator.cli.options import executing, execution_from, provisioning, selecting, selection_from
from orchestrator.cli.preflight import show_preflight
from orchestrator.cli.render import print_json, print_table, show_edited, sized, tenant_count
from orchestrator.cli.running import read
from orchestrator.cli.settings import Settings
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.actions.losses import Loss
    from orchestrator.actions.plan import PlanReport
    from orchestrator.databases.sizes import Size
    from orchestrator.history.hazards import Hazard
    from orchestrator.rollout.estimate import PerTenant

#: Tables from here on are shown to people, in bytes or in rows; all are in the JSON.
_LARGE, _MANY = 1_000_000, 10_000


@click.command()
@click.argument("target", required=False)
@selecting
@executing
@provisioning
@click.option("--sql", is_flag=True, help="Print each cohort's SQL, on the example of one of its tenants.")
@click.option("--sql-dir", metavar="DIR", help="Write each cohort's SQL to a file of its own.")
@click.option("--per-tenant", is_flag=True, help="With --sql-dir, write a file for each tenant.")
@click.option("--preflight", is_flag=True, help="Ask every tenant whether its rows stand against it.")
@click.option("--show-values", "values", is_flag=True, help="With --preflight, show some of the rows that do.")
@click.option("--out", metavar="FILE", help="Save the plan, for upgrade --plan.")
@command
def plan(settings: Settings, target: str | None, **given: Any) -> int:
    """Show what upgrade to TARGET would do. Touches nothing.

    With --preflight, exit code 1 when a tenant would fail.
    """
    if given["values"] and not given["preflight"]:
        raise UsageError("--show-values shows what --preflight finds", hint="add --preflight")
    if given["per_tenant"] and given["sql_dir"] is None:
        raise UsageError("--per-tenant is about the files that --sql-dir writes", hint="add --sql-dir DIR")
    selection, execution = selection_from(given), execution_from(given)
    return show(settings, target, tenants=selection, execution=execution, **given)


def show(
    settings: Settings,
    target: str | None,
    *,
    sql: bool = False,
    sql_dir: str | None = None,
    per_tenant: bool = False,
    out: str | None = None,
    **options: Any,
) -> int:
    """Make the plan that :func:`orchestrator.plan` makes, print it, and save it and its SQL. Returns the exit code."""
    from orchestrator.actions.plan import plan as make

    options["sql"] = sql or (sql_dir is not None and not per_tenant)
    options["each_sql"] = sql_dir is not None and per_tenant
    report = read(make(settings.fleet(), target, **options))
    if sql_dir is not None:
        from orchestrator.actions.scripts import script_files, write_scripts

        each = report.tenant_sql if per_tenant else None
        write_scripts(Path(sql_dir), script_files(report.plan.cohorts, report.sql, each))
    if out is not None:
        from orchestrator.rollout.saved_plan import save

        save(report.as_file(), Path(out))
    code = show_report(settings, report if sql else replace(report, sql=()))
    if out is not None:
        click.echo(typed(f"saved; run it with: {shlex.join(['orchestrator', 'upgrade', '--plan', out])}"), err=True)
    return code


def show_report(settings: Settings, report: PlanReport) -> int:
    """Print a plan. Returns the exit code."""
    if settings.json:
        print_json(report)
    else:
        show_plan(report)
    return 0 if report.preflight is None or report.preflight.ready else 1


def show_plan(report: PlanReport) -> None:
    """A plan for people: waves, cohorts, revisions, what is in the way, what is hazardous."""
    from orchestrator.rollout.plan import NOT_MIGRATED, ids

    made = report.plan
    todo = sum(cohort.tenants for cohort in made.cohorts)
    # A relative target takes tenants at different revisions to different ones.
    several = len({cohort.goal for cohort in made.cohorts}) > 1
    goal = (made.requested if several else None) or ", ".join(made.target) or made.requested or "base"
    taking = f", about {max(report.estimate_s, 0.1):.1f} s" if todo and report.estimate_s is not None else ""
    meant = f"of run {made.requested}" if made.command == "rollback" else f"to {goal}"
    click.echo(f"{made.command} {meant}: {todo} of {tenant_count(len(made.tenants))} to migrate{taking}")
    if len(made.waves) > 1:
        click.echo()
        print_table(
            ("WAVE", "TENANTS", "FIRST"),
            [(wave.name, str(len(wave.tenants)), ", ".join(ids(wave.tenants)[:5])) for wave in made.waves],
        )
    for number, cohort in enumerate(made.cohorts):
        start = ", ".join(cohort.start) or "base"
        end = f" to {', '.join(cohort.goal) or 'base'}" if several else ""
        click.echo(
            f"\n{tenant_count(cohort.tenants)} on {cohort.dialect} {cohort.version} from {start}{end},"
            f" for example {cohort.example.tenant.id}"
        )
        reasons = report.not_replayable[number]
        for revision in cohort.path:
            click.echo(f"  {revision}  {report.messages.get(revision, '')}")
            if revision in reasons:
                click.echo(f"    not replayed: {reasons[revision]}")
        if taking := _takes(report.per_tenant[number]):
            click.echo(taking)
        if report.sql:
            click.echo(f"\n{report.sql[number].rstrip()}")
    show_edited(report.edited)
    in_the_way = [each for each in made.tenants if each.verdict in NOT_MIGRATED]
    if in_the_way:
        click.echo()
        print_table(
            ("TENANT", "STATE", "WHY IT IS NOT MIGRATED"),
            [(each.tenant.id, each.state, each.failure.message if each.failure else "") for each in in_the_way],
        )
    if made.hazards:
        click.echo()
        print_table(
            ("REVISION", "HAZARD", "WHAT"),
            [(hazard.revision, hazard.kind, f"{hazard.detail} ({_place(hazard)})") for hazard in made.hazards],
        )
    large = [size for size in report.sizes if (size.bytes or 0) >= _LARGE or size.rows >= _MANY]
    if large:
        click.echo()
        print_table(
            ("TABLE", "TENANT", "ROWS", "SIZE"),
            [(each.table, each.tenant, f"{each.rows:,}", _bytes(each.bytes)) for each in large],
        )
    sizes = [(loss.hazard.revision, loss.hazard.table or "", told_size(loss)) for loss in report.losses]
    sizes = list(dict.fromkeys(size for size in sizes if size[2]))
    if sizes:
        click.echo()
        print_table(("REVISION", "LOSES FROM", "WHICH HAS"), sizes)
    if report.preflight is not None:
        show_preflight(report.preflight)


def told_size(loss: Loss) -> str:
    """How large the table is that a loss is about; empty where that is not known."""
    if loss.largest is None or loss.total is None:
        return ""
    name, largest = loss.largest
    text = f"{_amount(largest)} in {name}"
    return text if loss.tenants == 1 else f"{text}, {_amount(loss.total)} in {tenant_count(loss.tenants)}"


def _amount(size: Size) -> str:
    rows = "1 row" if size.rows == 1 else f"{size.rows} rows"
    return f"about {rows}" if size.bytes is None else f"about {rows}, {sized(size.bytes)}"


def _place(hazard: Hazard) -> str:
    return f"line {hazard.line}" if hazard.line else "in its SQL"


def _takes(takes: PerTenant) -> str:
    """How long a tenant takes, as far as that is known."""
    if takes.p50_ms is None or takes.p90_ms is None:
        new = takes.unknown
        return f"  no estimate: no history of {new[0] if len(new) == 1 else f'{len(new)} revisions'}" if new else ""
    times = f"{takes.times} time{'' if takes.times == 1 else 's'}"
    return f"  a tenant takes {_time(takes.p50_ms)}, nine in ten up to {_time(takes.p90_ms)} (run {times} before)"


def _time(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.1f} s" if milliseconds >= 1000 else f"{milliseconds:.0f} ms"


def _bytes(count: int | None) -> str:
    return "unknown" if count is None else sized(count)
