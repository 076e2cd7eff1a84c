"""What is said of a tenant that a run need not attempt any more, because an earlier part of it has done it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.history.graph import Graph
from orchestrator.journal.records import AttemptRecord, EventRecord
from orchestrator.rollout.foresight import Foresight
from orchestrator.rollout.plan import PlannedTenant
from orchestrator.statuses import TenantStatus
from tests.unit.rollout.fleets import tenant

LINE = {"r1": (), "r2": ("r1",)}


class Nobody:
    """Records nothing: nothing is to be recorded."""

    def record_event(self, event: EventRecord) -> None:
        """Whatever it is, it should not have happened."""
        raise AssertionError(event)


@pytest.mark.parametrize(
    ("status", "attempts", "expected"),
    [("pending", 0, 1), ("running", 0, 1), ("running", 2, 3), ("interrupted", 1, 2), ("unknown", 2, 2)],
)
def test_a_try_whose_end_nobody_saw_counts(status: str, attempts: int, expected: int) -> None:
    """Who is at the target was tried, once more than was written down: a try is counted when its end is seen."""
    earlier = AttemptRecord("run", "a", "all", TenantStatus(status), ("r1",), None, attempts=attempts)
    there = TenantStatus.ALREADY_CURRENT
    planned = PlannedTenant(tenant("a"), "postgresql", "15", ("r2",), TenantStatus.CURRENT, "heads", ("r2",), (), there)

    told = Foresight("run", Graph(LINE, LINE), Nobody(), {"a": earlier}).attempt("all", planned)

    assert (told.status, told.from_heads, told.attempts) == (TenantStatus.SUCCEEDED, ("r1",), expected)
    # One that had not moved is as it was found, and was not tried for that.
    found = Foresight("run", Graph(LINE, LINE), Nobody(), {"a": replace(earlier, from_heads=("r2",))})
    assert found.attempt("all", planned).attempts == attempts
