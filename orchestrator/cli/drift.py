"""orchestrator drift"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.group import command
from orchestrator.cli.hints import typed
from orchestrator.cli.options import selecting, selection_from
from orchestrator.cli.render import print_json, some, tenant_count
from orchestrator.cli.running import read
from orchestrator.cli.settings import Settings

if TYPE_CHECKING:
    from orchestrator.rollout.drift import DriftReport, NotCompared, Shape

#: Shapes, objects of each, and operations for each that are shown; all are in the JSON.
_SHAPES, _OBJECTS, _OPERATIONS = 10, 8, 4
#: Shapes that the first line tells one by one.
_HEADLINES = 2
#: Columns of a line that goes to a file or a pipe, and of a difference wherever it goes.
_WIDE = 160


@click.command()
@selecting
@click.option("--against", metavar="TENANT", help="Compare with this tenant, not with what the revisions make.")
@click.option("--baseline", metavar="FILE", help="Differences that were saved there are normal.")
@click.option(
    "--also",
    type=click.Choice(("comments", "owners")),
    multiple=True,
    help="Compare these as well; repeatable. SQLite has neither.",
)
@click.option("--save", metavar="FILE", help="Save today's differences as normal.")
@click.option(
    "--jobs", type=click.IntRange(min=1), default=32, show_default=True, help="Connections at once, over all."
)
@command
def drift(
    settings: Settings,
    against: str | None,
    baseline: str | None,
    also: tuple[str, ...],
    save: str | None,
    jobs: int,
    **given: Any,
) -> int:
    """Group tenants by the shape of their schema; show how the odd ones differ from what the revisions make.

    Exit code 3 where a tenant is odd, 1 where one could not be compared.
    """
    from orchestrator.actions.drift import accept, drift

    selection = selection_from(given)
    report = read(drift(settings.fleet(), tenants=selection, against=against, baseline=baseline, jobs=jobs, also=also))
    if save is not None:
        from orchestrator.rollout.baseline import save_baseline

        save_baseline(report, Path(save))
        report = accept(report)
    if settings.json:
        print_json(report)
    else:
        _show(report)
    if save is not None:
        again = shlex.join(["orchestrator", "drift", "--baseline", save])
        click.echo(f"saved; compare with it: {again}", err=True)
    return report.exit_code


def _show(report: DriftReport) -> None:
    alike: dict[tuple[str, ...], list[Shape]] = defaultdict(list)
    for shape in report.odd:
        # Also at other heads: what is to be done is the same.
        alike[tuple(shape.told)].append(shape)
    groups = sorted(alike.values(), key=lambda group: -_size(group))
    click.echo(_headline(report, groups))
    for group in groups[:_SHAPES]:
        _show_group(group)
    if len(groups) > _SHAPES:
        rest = sum(_size(group) for group in groups[_SHAPES:])
        more = f"and {tenant_count(rest)} in {len(groups) - _SHAPES} more shapes"
        click.echo(typed(f"\n{more}: orchestrator drift --json"))
    if report.not_compared:
        _show_not_compared(report.not_compared)


def _size(group: Sequence[Shape]) -> int:
    return sum(len(shape.tenants) for shape in group)


def _headline(report: DriftReport, groups: Sequence[Sequence[Shape]]) -> str:
    identical = sum(len(shape.tenants) for shape in report.shapes if not shape.difference)
    ignored = sum(shape.ignored for shape in report.shapes)
    accepted = sum(len(shape.tenants) for shape in report.shapes if shape.accepted)
    parts = [f"{identical:,} identical" + (f" ({ignored:,} but for what is ignored)" if ignored else "")]
    shared = [group for group in groups if _size(group) > 1]
    parts += [f"{_size(group):,} share {_summary(group[0])}" for group in shared[:_HEADLINES]]
    if others := shared[_HEADLINES:]:
        count = sum(_size(group) for group in others)
        parts.append(f"{count:,} in {len(others)} other shape{'s' if len(others) > 1 else ''}")
    unique = len(groups) - len(shared)
    parts += [f"{unique:,} unique"] if unique else []
    parts += [f"{accepted:,} accepted"] if accepted else []
    parts += [f"{len(report.not_compared):,} not compared"] if report.not_compared else []
    return "; ".join(parts)


def _summary(shape: Shape) -> str:
    if len(shape.difference) > 1:
        return f"{len(shape.difference)} differences"
    change = shape.difference[0]
    return f"one {change.what.value} {change.kind.value}"


def _show_group(group: Sequence[Shape]) -> None:
    from orchestrator.rollout.remedies import in_order, operations
    from orchestrator.rollout.telling import told

    tenants = [tenant for shape in group for tenant in shape.tenants]
    heads = [", ".join(shape.heads) or "base" for shape in group]
    where = heads[0] if len(set(heads)) == 1 else f"{len(set(heads))} different revisions"
    click.echo(f"\n{tenant_count(len(tenants))} at {where}: {some(tenants)}")
    shape = group[0]
    wide = max(shutil.get_terminal_size().columns, 80) if sys.stdout.isatty() else _WIDE
    # Whoever takes the operations from here takes them in this order.
    for change in in_order(shape.difference)[:_OBJECTS]:
        # What matters may be its last words: a terminal wraps it.
        click.echo(_cut(f"  {told(change)}", _WIDE))
        lines = operations(change, shape.kind.dialect)
        for operation in lines[:_OPERATIONS]:
            click.echo(_cut(f"      {operation}", wide))
        if len(lines) > _OPERATIONS:
            click.echo(f"      ... {len(lines) - _OPERATIONS} more operations: --json")
    if len(shape.difference) > _OBJECTS:
        click.echo(f"  and {len(shape.difference) - _OBJECTS} more differences: --json")


def _show_not_compared(left: Sequence[NotCompared]) -> None:
    counts = Counter((each.state, each.failure.message.partition("\n")[0], each.failure.hint) for each in left)
    click.echo("\nnot compared:")
    for (state, message, hint), count in counts.most_common(_SHAPES):
        same = [
            each.tenant for each in left if (each.state, each.failure.message.partition("\n")[0]) == (state, message)
        ]
        click.echo(f"  {tenant_count(count)} {state}: {some(same)}\n    {message}")
        if hint:
            click.echo(f"    hint: {typed(hint)}")
    if len(counts) > _SHAPES:
        click.echo(f"  and {len(counts) - _SHAPES} more reasons: --json")


def _cut(line: str, wide: int) -> str:
    """As much of a line as is to be seen at a glance; all of it is in the JSON."""
    return line if len(line) <= wide else f"{line[: wide - 3]}..."
