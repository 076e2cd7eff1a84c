"""How many tenants stand where: by heads and state, the most frequent first. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from orchestrator.history.directory import History
from orchestrator.rollout.plan import PlannedTenant
from orchestrator.statuses import TenantStatus


@dataclass(frozen=True, slots=True)
class Group:
    """Tenants at the same heads in the same state."""

    #: ``None`` where they could not be read.
    heads: tuple[str, ...] | None
    state: TenantStatus
    #: How many they are.
    tenants: int
    #: What the revision says of itself, in a line; of several heads the first one's; empty where it is not known.
    message: str
    #: The day that its file says it was made on, ``YYYY-MM-DD``; ``None`` where it says none.
    date: str | None

    def as_json(self) -> dict[str, Any]:
        """An entry of ``revisions`` in ``status --json``."""
        return {
            "heads": None if self.heads is None else list(self.heads),
            "state": self.state.value,
            "tenants": self.tenants,
            "message": self.message,
            "date": self.date,
        }


def histogram(history: History, tenants: Iterable[PlannedTenant]) -> tuple[Group, ...]:
    """Group ``tenants``, the largest group first."""
    counts = Counter((each.heads, each.state) for each in tenants)
    return tuple(_group(history, heads, state, count) for (heads, state), count in counts.most_common())


def _group(history: History, heads: tuple[str, ...] | None, state: TenantStatus, count: int) -> Group:
    known = [head for head in heads or () if head in history.graph.parents]
    if not known:
        return Group(heads, state, count, "", None)
    return Group(heads, state, count, history.message(known[0]), history.created(known[0]))
