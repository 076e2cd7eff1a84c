"""What a run had done before it was carried on, as whoever carries it on is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.journal.records import AttemptRecord, RunRecord
from orchestrator.rollout.waves import WaveRecord


@dataclass(frozen=True, slots=True)
class Earlier:
    """Nothing, for a new run."""

    #: By tenant id.
    attempts: Mapping[str, AttemptRecord] = field(default_factory=dict)
    #: By name.
    waves: Mapping[str, WaveRecord] = field(default_factory=dict)
    #: Those that failed in this part of it, before another worker took it over.
    through: Sequence[AttemptRecord] = ()
    #: It is carried on at once, with tenants that have come meanwhile.
    joining: bool = False
    #: The run as the process before left it; ``None`` where what it was asked to end as is asked of this one.
    record: RunRecord | None = None
