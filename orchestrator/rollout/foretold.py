"""What a rehearsal had said of a run, beside what the run took. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from orchestrator.journal.records import AttemptRecord
from orchestrator.migration.outcome import ALEMBIC
from orchestrator.rollout.forecast import Takes, run_time


def foretold(rehearsal: str, kept: Mapping[str, Any], attempts: Sequence[AttemptRecord]) -> dict[str, Any] | None:
    """Compare a run with its rehearsal: over the tenants that it has migrated, and no others.

    Args:
        rehearsal: the id of its run.
        kept: what :meth:`~orchestrator.rollout.rehearsal.Estimate.kept` gave.
        attempts: of the run, in its order.

    Returns:
        The key ``rehearsed`` of a run's document; ``None`` where it has migrated nobody whom the rehearsal knew.
    """
    known = {tenant: Takes.from_json(tenant, each) for tenant, each in kept["takes"].items()}
    waves: dict[str, list[Takes]] = defaultdict(list)
    began: dict[str, list[datetime]] = defaultdict(list)
    ended: dict[str, list[datetime]] = defaultdict(list)
    count = unforeseen = not_replayed = 0
    for attempt in attempts:
        if attempt.started_at is None or attempt.finished_at is None or attempt.from_heads == attempt.to_heads:
            continue
        wave = attempt.wave or ""
        began[wave].append(attempt.started_at)
        ended[wave].append(attempt.finished_at)
        count += 1
        if attempt.tenant in known:
            waves[wave].append(known[attempt.tenant])
            not_replayed += known[attempt.tenant].replayed and attempt.path == ALEMBIC
        else:
            unforeseen += 1
    if not any(waves.values()):
        return None
    # Waves are gone through one after the other; what lies between two of them is waiting.
    measured = sum((max(ended[wave]) - min(began[wave])).total_seconds() for wave in began)
    in_order = [sorted(wave, key=lambda each: -each.ms) for wave in waves.values()]
    caps = {identity: int(cap) for identity, cap in kept["caps"].items()}
    return {
        "rehearsal": rehearsal,
        **run_time(in_order, caps).as_json(),
        "measured_s": round(measured, 3),
        "tenants": count,
        "unforeseen": unforeseen,
        "not_replayed": not_replayed,
    }
