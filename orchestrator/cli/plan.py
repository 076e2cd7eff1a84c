"""orchestrator plan"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.group import command
from orchestrator.cli.options import executing, execution_from, provisioning, selecting, selection_from
from orchestrator.cli.render import print_json, print_table, show_edited, sized, tenant_count
from orchestrator.cli.running import read
from orchestrator.cli.settings import Settings

if TYPE_CHECKING:
    from orchestrator.actions.losses import Loss
    from orchestrator.actions.plan import PlanReport
    from orchestrator.databases.sizes import Size
    from orchestrator.history.hazards import Hazard


@click.command()
@click.argument("target", required=False)
@selecting
@executing
@provisioning
@click.option("--sql", is_flag=True, help="Print each cohort's SQL, on the example of one of its tenants.")
@command
def plan(settings: Settings, target: str | None, provision: bool, sql: bool, **given: Any) -> int:
    """Show what upgrade to TARGET would do. Touches nothing."""
    selection, execution = selection_from(given), execution_from(given)
    return show(settings, target, tenants=selection, provision=provision, execution=execution, sql=sql)


def show(settings: Settings, target: str | None, **options: Any) -> int:
    """Make the plan that :func:`orchestrator.plan` makes and print it. Returns the exit code."""
    from orchestrator.actions.plan import plan as make

    return show_report(settings, read(make(settings.fleet(), target, **options)))


def show_report(settings: Settings, report: PlanReport) -> int:
    """Print a plan. Returns the exit code."""
    if settings.json:
        print_json(report)
    else:
        show_plan(report)
    return 0


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
    sizes = [(loss.hazard.revision, loss.hazard.table or "", told_size(loss)) for loss in report.losses]
    sizes = list(dict.fromkeys(size for size in sizes if size[2]))
    if sizes:
        click.echo()
        print_table(("REVISION", "LOSES FROM", "WHICH HAS"), sizes)


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
