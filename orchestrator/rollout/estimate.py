"""How long a plan may take, from what its revisions took before. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from orchestrator.rollout.plan import Plan
from orchestrator.statuses import TenantStatus


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
