"""orchestrator lint"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.group import command
from orchestrator.cli.hints import typed
from orchestrator.cli.options import selecting, selection_from
from orchestrator.cli.render import print_json
from orchestrator.cli.running import read
from orchestrator.cli.settings import Settings
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.actions.linting.report import Finding, LintReport
    from orchestrator.fleet.fleet import Fleet

#: How the revisions were taken, for people.
_TAKEN = {"pending": "pending", "range": "in the range", "all": "in all"}


@click.command()
@click.argument("target", required=False)
@selecting
@click.option("--all-revisions", "every_revision", is_flag=True, help="All of them up to TARGET; asks no server.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "github"]),
    default="text",
    show_default=True,
    help="github: annotations of a pull request.",
)
@command
def lint(settings: Settings, target: str | None, every_revision: bool, form: str, **given: Any) -> int:
    """Look for hazards in the revisions that are pending up to TARGET, or in a range A:B.

    A range and --all-revisions ask no server. Exit code 3 when something is an error.
    """
    from orchestrator.actions.lint import lint

    if settings.json and form != "text":
        raise UsageError("--json and --format are two forms of one document", hint="leave one of them out")
    fleet = settings.fleet()
    selection = selection_from(given)
    report = read(lint(fleet, target, tenants=selection, every_revision=every_revision))
    if settings.json:
        print_json(report)
    elif form == "github":
        _annotate(fleet, report)
    else:
        _show(report)
    return 0 if report.passed else 3


def _show(report: LintReport) -> None:
    click.echo(_taken(report))
    for line in report_lines(report):
        click.echo(line)


def report_lines(report: LintReport) -> Iterator[str]:
    """What lint found, for people: a line for each finding, hints below, and the sum."""
    for finding in (*report.findings, *report.not_linted):
        where = f"{finding.file}:{finding.line}: " if finding.file is not None else ""
        yield f"{where}{finding.severity.value}: {finding.rule}: {finding.message}"
        # Warnings may be many, and are mostly of a few kinds; their hints are in the JSON.
        if finding.hint and finding.severity == "error":
            yield f"  hint: {typed(finding.hint)}"
    for excused in report.ignored:
        yield f"{excused.finding.file}:{excused.finding.line}: ignored: {excused.finding.rule}: {excused.reason}"
    if report.squawk.reason is not None:
        yield f"squawk: not run: {report.squawk.reason}"
        if report.squawk.hint:
            yield f"  hint: {typed(report.squawk.hint)}"
    yield _sum(report)


def _taken(report: LintReport) -> str:
    count = len(report.revisions)
    shown = ", ".join(report.revisions[:5]) + (", ..." if count > 5 else "")
    named = f": {shown}" if shown else ""
    return f"{count} revision{'' if count == 1 else 's'} {_TAKEN[report.taken]}{named}"


def _sum(report: LintReport) -> str:
    counts = report.summary
    parts = [
        f"{counts['errors']} error{'' if counts['errors'] == 1 else 's'}",
        f"{counts['warnings']} warning{'' if counts['warnings'] == 1 else 's'}",
    ]
    parts += [
        f"{counts[name]} {told}"
        for name, told in (("not_linted", "not linted"), ("ignored", "ignored"))
        if counts[name]
    ]
    return ", ".join(parts)


def _annotate(fleet: Fleet, report: LintReport) -> None:
    """GitHub's workflow commands; what is not about a line goes to stderr, where people read the log.

    https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions
    """
    for finding in (*report.findings, *report.not_linted):
        properties = {"title": finding.rule}
        if finding.file is not None:
            properties = {"file": _from_checkout(fleet.root / finding.file), "line": str(finding.line), **properties}
        _command(finding, properties)
    if report.squawk.severity != "off":
        text = f"not run: {report.squawk.reason}" + (f" (hint: {report.squawk.hint})" if report.squawk.hint else "")
        click.echo(f"::{report.squawk.severity.value} title=squawk::{_escaped(text)}")
    click.echo(f"{_taken(report)}: {_sum(report)}", err=True)


def _command(finding: Finding, properties: dict[str, str]) -> None:
    listed = ",".join(f"{name}={_escaped(value, also=':,')}" for name, value in properties.items())
    text = finding.message + (f"\nhint: {finding.hint}" if finding.hint else "")
    click.echo(f"::{finding.severity.value} {listed}::{_escaped(text)}")


def _from_checkout(file: Path) -> str:
    """GitHub wants paths from the checkout's root, which is not always the current directory."""
    checkout = Path(os.environ.get("GITHUB_WORKSPACE") or Path.cwd()).resolve()
    file = file.resolve()
    return str(file.relative_to(checkout) if file.is_relative_to(checkout) else file)


def _escaped(text: str, also: str = "") -> str:
    for character in f"%\r\n{also}":
        text = text.replace(character, f"%{ord(character):02X}")
    return text
