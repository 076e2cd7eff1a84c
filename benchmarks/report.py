"""Write the page: ``python -m benchmarks.report results.json [--page docs/performance.md]``.

The charts go into a directory beside the page, called like it.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.charts import bars
from benchmarks.peers import SHELL
from benchmarks.verdicts import Figure, RowResult, Subject

_HERE = Path(__file__).parent
_MS = 1000.0
#: Rows whose subjects do the same work, so that a picture compares them.
_CHARTED = (
    "one-revision",
    "twenty-revisions",
    "databases",
    "nothing-to-do",
    "network",
    "reading",
    "drift-databases",
    "version",
)
#: A bar this many times as long as the shortest leaves nothing of it to see.
_VISIBLE = 60
#: Names of what is ours among the subjects.
_OURS = ("orchestrator", "no-op upgrade", "status")


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the results, write the page and its charts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--page", type=Path, default=Path("docs/performance.md"))
    options = parser.parse_args(arguments)
    document = json.loads(options.results.read_text(encoding="utf-8"))
    charts = options.page.with_suffix("")
    charts.mkdir(parents=True, exist_ok=True)
    for result in _results(document):
        if result.name in _CHARTED:
            (charts / f"{result.name}.svg").write_text(chart(result), encoding="utf-8")
    options.page.write_text(page(document, charts.name), encoding="utf-8")
    return 0


def page(document: Mapping[str, Any], charts: str) -> str:
    """The page's Markdown.

    Args:
        document: what ``benchmarks.run --out`` wrote.
        charts: directory of the pictures, as seen from the page.
    """
    results = list(_results(document))
    parts = {
        "summary": _summary(document, results),
        "shell": _shell(results),
        "repetitions": str(document["repetitions"]),
        "results": table(results),
        "rows": "\n\n".join(_row(result, charts) for result in results),
        "machine": _facts(document["machine"]),
        "duration": _duration(sum(row["took_s"] for row in document["rows"])),
        "tried": (_HERE / "tried.md").read_text(encoding="utf-8").strip(),
    }
    # In one pass: what is put in may contain braces of its own.
    text = (_HERE / "page.md").read_text(encoding="utf-8")
    return re.sub(r"\{(\w+)\}", lambda found: parts[found[1]], text)


def table(results: Sequence[RowResult]) -> str:
    """One line for each figure: the work, what was found, the goal, the verdict."""
    lines = ["| work | figure | found | goal | |", "|---|---|--:|--:|---|"]
    for result in results:
        lines += [
            f"| {result.work} | {figure.what} | {found(figure)} | {goal(figure)} | {figure.verdict} |"
            for figure in result.figures
        ]
    return "\n".join(lines)


def found(figure: Figure) -> str:
    """A figure's value with its unit."""
    return "-" if figure.value is None else f"{figure.value:.2f} {figure.unit}"


def goal(figure: Figure) -> str:
    """What a figure is held against."""
    return f"{'at most' if figure.at_most else 'at least'} {figure.goal:g} {figure.unit}"


def chart(result: RowResult) -> str:
    """Everybody's seconds, or milliseconds where they are few, as bars; who would make the others invisible is told."""
    timed = {each.name: seconds for each in result.subjects if (seconds := each.seconds(result.tenants)) is not None}
    shortest = min(timed.values(), default=0.0)
    drawn = {name: seconds for name, seconds in timed.items() if seconds <= _VISIBLE * shortest}
    short = max(drawn.values(), default=0.0) < 1.0
    values = [(name, seconds * (_MS if short else 1), name.startswith(_OURS)) for name, seconds in drawn.items()]
    beyond = [f"{name} {seconds:.0f} s" for name, seconds in timed.items() if name not in drawn]
    return bars(result.work, values, "ms" if short else "s", f"Not drawn: {', '.join(beyond)}" if beyond else "")


def _results(document: Mapping[str, Any]) -> Iterator[RowResult]:
    return (RowResult.from_json(row) for row in document["rows"])


def _summary(document: Mapping[str, Any], results: Sequence[RowResult]) -> str:
    figures = [figure for result in results for figure in result.figures]
    reached = sum(figure.ok for figure in figures)
    lines = [f"Measured on {document['started_at'][:10]}: {reached} of {len(figures)} goals reached."]
    for result in results:
        lines += [f"Not reached: {result.name}, {each.what} ({found(each)})." for each in result.figures if not each.ok]
    if document["quick"]:
        lines.append("From a quick run: smaller counts, extrapolated. The full run is `make bench`.")
    return "\n".join(lines)


def _shell(results: Sequence[RowResult]) -> str:
    counts = [each.tenants for result in results for each in result.subjects if each.name == SHELL]
    return f"{counts[0]} tenants" if counts else "a few tenants"


def _row(result: RowResult, charts: str) -> str:
    lines = [f"### {result.name}", "", f"{result.work[:1].upper()}{result.work[1:]}.", ""]
    if result.name in _CHARTED:
        lines += [f"![{result.work}]({charts}/{result.name}.svg)", ""]
    lines += ["| who | seconds | per tenant | lowest to highest | runs | |", "|---|--:|--:|--:|--:|---|"]
    lines += [_subject(result, each) for each in result.subjects]
    if result.notes:
        lines += ["", *(f"- {note}" for note in result.notes)]
    return "\n".join(lines)


def _subject(result: RowResult, subject: Subject) -> str:
    # A row that compares counts shows each of them as it was run.
    tenants = result.tenants if result.name in _CHARTED else subject.tenants
    seconds = subject.seconds(tenants)
    if seconds is None:
        return f"| {subject.name} | - | - | - | 0 | {(subject.problem or 'not measured').splitlines()[0]} |"
    walls = [sample.wall_s for sample in subject.samples]
    spread = f"{min(walls):.2f} to {max(walls):.2f}"
    remark = (
        "" if subject.tenants == tenants else f"extrapolated from {subject.tenants} ({statistics.median(walls):.2f} s)"
    )
    return f"| {subject.name} | {seconds:.2f} | {seconds / tenants * _MS:.2f} ms | {spread} | {len(walls)} | {remark} |"


def _facts(machine: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in machine.items())])


def _duration(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"


if __name__ == "__main__":
    sys.exit(main())
