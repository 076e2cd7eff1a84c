"""What an operator sees while a run goes on, off a terminal: a plain line, or a JSON object, per finished tenant."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from orchestrator.cli.render import tenant_count
from orchestrator.statuses import OPEN, SATISFIED, TenantStatus

if TYPE_CHECKING:
    from orchestrator.journal.records import AttemptRecord
    from orchestrator.migration.scope import StepDone
    from orchestrator.rollout.watching import Beginning
    from orchestrator.rollout.waves import WaveRecord

#: Not worth a line each: nothing happened to these tenants.
QUIET = frozenset({TenantStatus.ALREADY_CURRENT, TenantStatus.NOT_STARTED})


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

    def started(self, plan: Beginning, run: str) -> None:
        """Says what begins."""
        self._say(opening(plan, run))

    def tenant(self, attempt: AttemptRecord) -> None:
        """A line for each tenant that something happened to."""
        if attempt.status not in OPEN | QUIET:
            self._say(line_of(attempt))

    def step(self, tenant: str, step: StepDone) -> None:
        """A line for each revision, when asked to be verbose."""
        if self._verbose:
            took = f"  {step.duration_ms:.0f} ms" if step.duration_ms is not None else ""
            self._say(f"{tenant}  {step.direction} {step.revision}{took}")

    def wave(self, record: WaveRecord) -> None:
        """A line for each wave that is through."""
        self._say(str(record))

    def _say(self, text: str) -> None:
        # Nobody may be reading any more (`2>&1 | head`), and that must not end a run.
        with suppress(OSError):
            print(text, file=sys.stderr, flush=True)


class JsonLines(Lines):
    """The same as JSON objects, one on each line, for log collectors."""

    def started(self, plan: Beginning, run: str) -> None:
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

    def wave(self, record: WaveRecord) -> None:
        """An object for each wave that is through, and again when its bake is over."""
        self._event(event="wave", **record.as_json())

    def _event(self, **fields: object) -> None:
        self._say(json.dumps({"at": time.time(), **fields}, ensure_ascii=False))


def opening(plan: Beginning, run: str) -> str:
    """What begins, in one line."""
    waves = f" in {len(plan.waves)} waves" if len(plan.waves) > 1 else ""
    if not plan.tenants:
        return f"run {run}: nothing is left to do"
    goal = f" to {', '.join(plan.target)}" if plan.target else ""
    if plan.command == "rollback":
        goal = f" of run {plan.requested}"
    return f"run {run}: {plan.command}{goal}, {tenant_count(len(plan.tenants))}{waves}"
