"""What plain Alembic's user sees while tenants are migrated: a line on stderr, where Alembic's own log goes."""

from __future__ import annotations

import sys
from contextlib import suppress

from orchestrator.journal.records import AttemptRecord
from orchestrator.migration.scope import StepDone
from orchestrator.rollout.watching import Beginning
from orchestrator.rollout.waves import WaveRecord
from orchestrator.statuses import OPEN


class Narrator:
    """An observer that prints."""

    def started(self, plan: Beginning, run: str) -> None:
        """Says what begins."""
        some = "1 tenant" if len(plan.tenants) == 1 else f"{len(plan.tenants)} tenants"
        _say(f"run {run}: {plan.command} of {some}")

    def tenant(self, attempt: AttemptRecord) -> None:
        """Says how a tenant ended."""
        if attempt.status not in OPEN:
            _say(f"{attempt.tenant}: {attempt.status}")

    def step(self, tenant: str, step: StepDone) -> None:
        """Says which revision a tenant is through."""
        took = "" if step.duration_ms is None else f" ({step.duration_ms:.0f} ms)"
        _say(f"{tenant}: {step.direction} {step.revision}{took}")

    def wave(self, record: WaveRecord) -> None:
        """Says how a wave stands: nothing else is shown of a bake, and it would look like a hang."""
        _say(str(record))


def _say(text: str) -> None:
    # Nobody may be reading any more, and that must not end a run.
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)
