"""Who is through in the part of a run that is under way: known from the journal to a worker that takes it over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestrator.journal.records import AttemptRecord
from orchestrator.statuses import FAILURES, SATISFIED, TenantStatus

#: Ends that an attempt comes to by itself, and after which a run does not try the tenant again before it is resumed.
_ENDS = FAILURES | {TenantStatus.LOCKED, TenantStatus.BLOCKED}


def ended_at(attempts: Iterable[AttemptRecord]) -> dict[str, str]:
    """When attempts ended, in ISO 8601, by tenant id; without those whose tenant is done."""
    return {
        each.tenant: each.finished_at.isoformat()
        for each in attempts
        if each.finished_at is not None and each.status not in SATISFIED
    }


def through(attempts: Iterable[AttemptRecord], before: Mapping[str, str]) -> dict[str, AttemptRecord]:
    """Attempts that have failed since the run was begun or resumed, by tenant id: they count, and are not made again.

    Args:
        attempts: the run's, as the journal has them.
        before: what :func:`ended_at` said then. Compared, not ordered: machines' clocks differ.
    """
    now = ended_at(attempts)
    return {
        each.tenant: each
        for each in attempts
        if each.status in _ENDS and each.tenant in now and now[each.tenant] != before.get(each.tenant)
    }
