"""What an operator sees while a run goes on: live on a terminal, a plain line per finished tenant elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from orchestrator.cli.render import tenant_count
from orchestrator.cli.settings import Settings
from orchestrator.journal.records import AttemptRecord
from orchestrator.migration.scope import StepDone
from orchestrator.rollout.plan import Plan
from orchestrator.rollout.watching import Observer
from orchestrator.statuses import OPEN, SATISFIED, TenantStatus

#: Not worth a line each: nothing happened to these tenants.
_QUIET = frozenset({TenantStatus.ALREADY_CURRENT, TenantStatus.NOT_STARTED})


@contextmanager
def observing(settings: Settings) -> Iterator[Observer]:
    """The observer that fits where stderr goes."""
    if settings.log_format == "json":
        yield JsonLines(verbose=settings.verbose)
    elif sys.stderr.isatty() and settings.on_terminal:
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
            yield Live(progress, console, verbose=settings.verbose)
    else:
        yield Lines(verbose=settings.verbose)


def line_of(attempt: AttemptRecord) -> str:
    """One finished tenant in one line."""
    took = f"  {attempt.duration_ms:.0f} ms" if attempt.duration_ms is not None else ""
    error = attempt.error or {}
    why = ""
    if attempt.status not in SATISFIED and error:
        message = str(error["message"]).partition("\n")[0]
        why = f"  {error['revision']}: {message}" if error.get("revision") else f"  {message}"
    return f"{attempt.tenant}  {attempt.status.value}{took}{why}"


class Lines:
    """Plain lines on stderr."""

    def __init__(self, *, verbose: bool) -> None:
        self._verbose = verbose

    def started(self, plan: Plan, run: str) -> None:
        """Says what begins."""
        self._say(_opening(plan, run))

    def tenant(self, attempt: AttemptRecord) -> None:
        """A line for each tenant that something happened to."""
        if attempt.status not in OPEN | _QUIET:
            self._say(line_of(attempt))

    def step(self, tenant: str, step: StepDone) -> None:
        """A line for each revision, when asked to be verbose."""
        if self._verbose:
            took = f"  {step.duration_ms:.0f} ms" if step.duration_ms is not None else ""
            self._say(f"{tenant}  {step.direction} {step.revision}{took}")

    def _say(self, text: str) -> None:
        # Nobody may be reading any more (`2>&1 | head`), and that must not end a run.
        with suppress(OSError):
            print(text, file=sys.stderr, flush=True)


class JsonLines(Lines):
    """The same as JSON objects, one on each line, for log collectors."""

    def started(self, plan: Plan, run: str) -> None:
        """Says what begins."""
        self._event(event="started", run=run, command=plan.command, tenants=len(plan.tenants))

    def tenant(self, attempt: AttemptRecord) -> None:
        """An object for each finished tenant."""
        if attempt.status not in OPEN:
            self._event(
                event="tenant",
                tenant=attempt.tenant,
                status=attempt.status.value,
                duration_ms=attempt.duration_ms,
                error=attempt.error,
            )

    def step(self, tenant: str, step: StepDone) -> None:
        """An object for each revision, when asked to be verbose."""
        if self._verbose:
            self._event(
                event="revision",
                tenant=tenant,
                direction=step.direction,
                revision=step.revision,
                duration_ms=step.duration_ms,
            )

    def _event(self, **fields: object) -> None:
        self._say(json.dumps({"at": time.time(), **fields}, ensure_ascii=False))


class Live(Lines):
    """A progress bar, with a line above it for each tenant that needs attention."""

    def __init__(self, progress: Progress, console: Console, *, verbose: bool) -> None:
        super().__init__(verbose=verbose)
        self._progress = progress
        self._console = console
        self._counts: Counter[TenantStatus] = Counter()
        self._task = progress.add_task("reading the fleet", total=None, counts="")

    def started(self, plan: Plan, run: str) -> None:
        """Sets the bar's length."""
        self._say(_opening(plan, run))
        self._progress.update(self._task, description=plan.command, total=len(plan.tenants))

    def tenant(self, attempt: AttemptRecord) -> None:
        """Moves the bar."""
        if attempt.status in OPEN:
            return
        self._counts[attempt.status] += 1
        counts = "  ".join(f"{count} {status.value}" for status, count in self._counts.items())
        self._progress.update(self._task, advance=1, counts=counts)
        if self._verbose or attempt.status not in SATISFIED | _QUIET:
            self._say(line_of(attempt))

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)


def _opening(plan: Plan, run: str) -> str:
    waves = f" in {len(plan.waves)} waves" if len(plan.waves) > 1 else ""
    if not plan.tenants:
        return f"run {run}: nothing is left to do"
    goal = f" to {', '.join(plan.target)}" if plan.target else ""
    return f"run {run}: {plan.command}{goal}, {tenant_count(len(plan.tenants))}{waves}"
