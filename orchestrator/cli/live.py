"""A run on a terminal: a bar, and a line above it for each tenant that needs attention. Only here rich is imported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from orchestrator.cli.progress import QUIET, Lines, line_of, opening
from orchestrator.statuses import OPEN, SATISFIED, TenantStatus

if TYPE_CHECKING:
    from orchestrator.journal.records import AttemptRecord
    from orchestrator.rollout.watching import Beginning


@contextmanager
def watched(*, verbose: bool) -> Iterator[Live]:
    """The bar, for as long as the run goes on."""
    console = Console(stderr=True, highlight=False)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[counts]}"),
        console=console,
        transient=True,
    ) as progress:
        yield Live(progress, console, verbose=verbose)


class Live(Lines):
    """A progress bar, with a line above it for each tenant that needs attention."""

    def __init__(self, progress: Progress, console: Console, *, verbose: bool) -> None:
        super().__init__(verbose=verbose)
        self._progress = progress
        self._console = console
        self._counts: Counter[TenantStatus] = Counter()
        self._task = progress.add_task("reading the fleet", total=None, counts="")

    def started(self, plan: Beginning, run: str) -> None:
        """Sets the bar's length."""
        self._say(opening(plan, run))
        self._progress.update(self._task, description=plan.command, total=len(plan.tenants))

    def tenant(self, attempt: AttemptRecord) -> None:
        """Moves the bar."""
        if attempt.status in OPEN:
            return
        self._counts[attempt.status] += 1
        counts = "  ".join(f"{count} {status.value}" for status, count in self._counts.items())
        self._progress.update(self._task, advance=1, counts=counts)
        if self._verbose or attempt.status not in SATISFIED | QUIET:
            self._say(line_of(attempt))

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)
