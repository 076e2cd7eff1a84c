"""Choose what an operator sees while a run goes on: live on a terminal, plain lines or JSON elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.cli.progress import JsonLines, Lines
from orchestrator.cli.settings import Settings
from orchestrator.rollout.watching import Observer


@contextmanager
def observing(settings: Settings) -> Iterator[Observer]:
    """The observer that fits where stderr goes."""
    if settings.log_format == "json":
        yield JsonLines(verbose=settings.verbose)
    elif sys.stderr.isatty() and settings.on_terminal:
        from orchestrator.cli.live import watched

        with watched(verbose=settings.verbose) as live:
            yield live
    else:
        yield Lines(verbose=settings.verbose)
