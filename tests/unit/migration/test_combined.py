"""How a tenant ended that was migrated in parts, replayed and through Alembic."""

from __future__ import annotations

import pytest

from orchestrator.migration.outcome import Outcome
from orchestrator.migration.replay import combined
from orchestrator.statuses import TenantStatus

FIRST = Outcome(TenantStatus.SUCCEEDED, ("r1",), ("r2",))


@pytest.mark.parametrize("status", ["failed", "locked", "blocked"])
def test_a_part_that_did_not_come_to_the_tenant(status: str) -> None:
    """Leaves it where the part before did: a rollback has to know that this run has moved it."""
    outcome = combined([FIRST, Outcome(TenantStatus(status))])

    assert (outcome.status, outcome.before, outcome.after) == (TenantStatus(status), ("r1",), ("r2",))


def test_a_part_whose_end_nobody_saw() -> None:
    """Leaves it nobody knows where."""
    assert combined([FIRST, Outcome(TenantStatus.UNKNOWN)]).after is None
    assert combined([FIRST, Outcome(TenantStatus.UNKNOWN, ("r2",))]).after is None
