"""What a plan already says of a tenant's attempt, and what an earlier part of the run did to that tenant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from orchestrator.history.graph import Graph
from orchestrator.journal.records import AttemptRecord, EventRecord
from orchestrator.migration.outcome import ALEMBIC
from orchestrator.rollout.plan import PlannedTenant
from orchestrator.rollout.share import CUT_OFF, MOVED_BETWEEN, Share
from orchestrator.rollout.watching import Recorder
from orchestrator.statuses import TenantStatus

#: Types of errors that are found after the last commit, and that the journal's steps do not tell.
_LEFT_WRONG = frozenset({"shape"})


@dataclass(frozen=True, slots=True)
class Foresight:
    """Of one run, or of the part of it that is done here."""

    run: str
    graph: Graph
    recorder: Recorder
    #: What the run had done to a tenant before it was carried on, by tenant id.
    earlier: Mapping[str, AttemptRecord]

    def attempt(self, wave: str, planned: PlannedTenant) -> AttemptRecord:
        """How a tenant's attempt stands before it is made, or how it has ended without one.

        Args:
            wave: its name.
            planned: whom.
        """
        earlier = self.earlier.get(planned.tenant.id)
        share = self.share(planned)
        if planned.heads is not None:
            self.look_for_others(planned, Share.of(earlier), planned.heads)
        status, tried = planned.verdict, 0 if earlier is None else earlier.attempts
        if status is TenantStatus.ALREADY_CURRENT and earlier is not None and earlier.status in CUT_OFF and share.moved:
            # The run was killed between this tenant's commit and the note of it.
            status = TenantStatus.SUCCEEDED
            # A try is counted when its end is seen.
            tried += earlier.status is not TenantStatus.UNKNOWN
        elif planned.heads is None and share.moved and share.left is None:
            # It may have been migrated before the run was cut off, and cannot be asked now.
            status = TenantStatus.UNKNOWN
        elif status is TenantStatus.ALREADY_CURRENT and _left_wrong(earlier, planned):
            assert earlier is not None
            return earlier
        return AttemptRecord(
            self.run,
            planned.tenant.id,
            wave,
            status,
            share.start if share.start is not None or earlier is None else earlier.from_heads,
            share.left,
            attempts=tried,
            path=ALEMBIC if status is TenantStatus.SUCCEEDED else None,
            error=planned.failure.as_json() if planned.failure is not None else None,
        )

    def share(self, planned: PlannedTenant) -> Share:
        """What the run had done to the tenant before the plan was made."""
        share = Share.of(self.earlier.get(planned.tenant.id))
        return share if planned.heads is None else share.found(planned.heads)

    def look_for_others(self, planned: PlannedTenant, share: Share, heads: tuple[str, ...]) -> None:
        """Note where somebody else has moved the tenant on since the run left it: a rollback must know."""
        if share.is_mixed(self.graph, heads, planned.goal):
            detail = {"left": None if share.left is None else list(share.left), "found": list(heads)}
            event = EventRecord(self.run, planned.tenant.id, datetime.now(UTC), MOVED_BETWEEN, detail=detail)
            self.recorder.record_event(event)


def _left_wrong(earlier: AttemptRecord | None, planned: PlannedTenant) -> bool:
    """The revision is through and what it made is not right: the version table cannot tell, and has not moved since."""
    if earlier is None or earlier.error is None:
        return False
    return earlier.error.get("type") in _LEFT_WRONG and earlier.to_heads == planned.heads
