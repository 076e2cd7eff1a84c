"""How long a plan may take, from what its revisions took before. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.journal.records import Spread
from orchestrator.rollout.plan import Plan
from orchestrator.statuses import TenantStatus


@dataclass(frozen=True, slots=True)
class PerTenant:
    """How long the revisions of one path take on a tenant."""

    #: Milliseconds for half of the tenants; ``None`` when a revision was never run.
    p50_ms: float | None
    #: Milliseconds within which nine in ten are through; rather more, for a tenant is seldom slow in each of them.
    p90_ms: float | None
    #: Times that the revision that was run least often was run.
    times: int
    #: Revisions that were never run.
    unknown: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The key ``per_tenant`` of a cohort."""
        return {
            "p50_ms": self.p50_ms and round(self.p50_ms, 1),
            "p90_ms": self.p90_ms and round(self.p90_ms, 1),
            "times": self.times,
            "no_history": list(self.unknown),
        }


def per_tenant(path: Sequence[str], spreads: Mapping[str, Spread]) -> PerTenant:
    """How long ``path`` takes on one tenant.

    Args:
        path: revisions to run.
        spreads: what the journal knows of each, by revision.
    """
    unknown = tuple(revision for revision in path if revision not in spreads)
    if unknown or not path:
        return PerTenant(None, None, 0, unknown)
    known = [spreads[revision] for revision in path]
    return PerTenant(
        sum(each.p50_ms for each in known), sum(each.p90_ms for each in known), min(each.times for each in known), ()
    )


def estimate(plan: Plan, durations: Mapping[str, float], budgets: Mapping[str, tuple[str, int]]) -> float | None:
    """Seconds that ``plan`` may take.

    Args:
        plan: what is to be done.
        durations: milliseconds a revision took on average, by revision.
        budgets: each server's physical identity and how many tenants it takes at once, by server name.

    Returns:
        The sum over the waves of what the slowest server needs for the revisions alone; ``None`` when a revision was
        never run before.
    """
    total = 0.0
    for wave in plan.waves:
        busy: dict[str, float] = defaultdict(float)
        count: Counter[str] = Counter()
        at_once: dict[str, int] = {}
        for planned in wave.tenants:
            if planned.verdict is not TenantStatus.PENDING:
                continue
            if not all(revision in durations for revision in planned.path):
                return None
            identity, cap = budgets[planned.tenant.server]
            at_once[identity] = min(cap, at_once.get(identity, cap))
            busy[identity] += sum(durations[revision] for revision in planned.path) / 1000
            count[identity] += 1
        total += max((busy[each] / min(at_once[each], count[each]) for each in busy), default=0.0)
    return total
