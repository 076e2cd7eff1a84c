"""Tenants that are not where a run saw them last: restored, moved or stamped behind the orchestrator's back."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache, partial
from typing import Any, TypeAlias

from orchestrator.actions.going import at_work
from orchestrator.actions.places import Place, places_as_journaled
from orchestrator.actions.project import Project
from orchestrator.history.graph import Graph
from orchestrator.journal.journal import Journal
from orchestrator.journal.last_seen import LastSeen, Unclear
from orchestrator.rollout.plan import PlannedTenant
from orchestrator.statuses import TenantStatus

Heads: TypeAlias = tuple[str, ...]


class Noticed(StrEnum):
    """In what a tenant differs from what the journal says of it."""

    #: Its heads are before those: an old backup was restored, or it was stamped.
    MOVED_BACK = "moved_back"
    #: Its heads are others: stamped, or migrated by somebody whom the journal does not know.
    CHANGED_OUTSIDE = "changed_outside"
    #: Its tables are in another place, whatever they hold.
    ELSEWHERE = "elsewhere"
    #: Its schema, database or file is no longer there.
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Notice:
    """One tenant that differs from what the journal says of it."""

    tenant: str
    kind: Noticed
    #: What its version table says.
    heads: tuple[str, ...]
    state: TenantStatus
    #: Where it is now; ``None`` where its server's address cannot be read.
    place: Place | None
    #: What the journal says.
    journal: LastSeen

    @property
    def was(self) -> Place | None:
        """Where its tables were by the journal; ``None`` where that does not say."""
        return None if self.journal.place is None else Place(*self.journal.place)

    @property
    def message(self) -> str:
        """What is not as it was, for people."""
        seen = self.journal
        left = f"run {seen.run} left it at {_names(seen.heads)}"
        on = f"on {seen.at:%Y-%m-%d %H:%M:%S} UTC"
        match self.kind:
            case Noticed.GONE:
                return f"{self.place or 'its place'} is not there; {left} {on}"
            case Noticed.ELSEWHERE:
                same = "" if self.heads == seen.heads else f" at {_names(self.heads)}"
                return f"in {self.place}{same}; {left} in {self.was} {on}"
            case Noticed.MOVED_BACK:
                return f"back at {_names(self.heads)}; {left} {on}"
            case Noticed.CHANGED_OUTSIDE:
                return f"at {_names(self.heads)}; {left} {on}"

    @property
    def hint(self) -> str:
        """What to do about it."""
        tenant = shlex.quote(self.tenant)
        match self.kind:
            case Noticed.GONE:
                return (
                    "find out who dropped, renamed or moved it; an empty one is made by: "
                    f"orchestrator upgrade --provision -t {tenant}"
                )
            case Noticed.ELSEWHERE:
                return f"if it was moved, any run takes note: orchestrator upgrade -t {tenant}; else mend tenants.yaml"
            case Noticed.MOVED_BACK:
                return (
                    "find out whether an old backup was restored (its rows are old, too); forward again: "
                    f"orchestrator upgrade -t {tenant}"
                )
            case Noticed.CHANGED_OUTSIDE:
                plain = len(self.heads) == 1 and self.state is not TenantStatus.UNKNOWN_REVISION
                agree = self.heads[0] if plain else "REV"
                return (
                    "find out who changed it, and whether its tables are what the version table says; if they are: "
                    f"orchestrator stamp {agree} -t {tenant}"
                )

    def as_json(self) -> dict[str, Any]:
        """The field ``noticed`` of ``status --json``."""
        seen = self.journal
        return {
            "kind": self.kind.value,
            "place": None if self.place is None else str(self.place),
            "journal": {
                "heads": list(seen.heads),
                "place": None if self.was is None else str(self.was),
                "run": seen.run,
                "when": seen.at.isoformat(),
            },
            "message": self.message,
            "hint": self.hint,
        }


async def notice(
    project: Project,
    journal: Journal,
    tenants: Sequence[PlannedTenant],
    began: datetime,
) -> dict[str, Notice]:
    """Compare where ``tenants`` were found with where the journal's runs saw them last.

    Args:
        project: opened.
        journal: opened.
        tenants: as they were read.
        began: when they began to be read: what a run has done since then is not held against them.

    Returns:
        What was noticed, by tenant id; without those that are as they were, that could not be read or that a run is at.

    Raises:
        JournalError: the journal cannot be read.
    """
    readable = [each for each in tenants if each.heads is not None]
    seen = await journal.last_seen([each.tenant.id for each in readable])
    places = await places_as_journaled(project, [each.tenant for each in readable])
    found: dict[str, Notice] = {}
    # Whether somebody is at a run is asked once for all its tenants.
    runs = {unclear.run.id: unclear.run for last in seen.values() for unclear in last.since}
    going = await at_work(journal, runs.values())
    graph = project.history.graph
    before = lru_cache(maxsize=None)(partial(_is_before, graph))
    for each in readable:
        last = seen.get(each.tenant.id)
        if last is None or last.at >= began or any(unclear.run.id in going for unclear in last.since):
            continue
        place = places.get(each.tenant.id)
        kind = judged(graph, each, place, last, before)
        if kind is not None:
            found[each.tenant.id] = Notice(each.tenant.id, kind, each.heads or (), each.state, place, last)
    return found


def judged(
    graph: Graph, each: PlannedTenant, place: Place | None, last: LastSeen, before: Callable[[Heads, Heads], bool]
) -> Noticed | None:
    """In what a tenant differs from what the journal says of it; ``None`` where it does not. Pure.

    Args:
        graph: the shared directory.
        each: the tenant as it was read.
        place: where it is.
        last: what the journal says.
        before: whether one set of heads is before another; thousands of tenants ask the same.
    """
    heads = each.heads or ()
    if last.place is not None and place is not None and last.place != place.parts:
        return Noticed.ELSEWHERE
    if heads == last.heads or any(_explains(graph, unclear, heads) for unclear in last.since):
        return None
    if each.state is TenantStatus.UNPROVISIONED:
        return Noticed.GONE
    return Noticed.MOVED_BACK if before(heads, last.heads) else Noticed.CHANGED_OUTSIDE


def _is_before(graph: Graph, heads: Heads, others: Heads) -> bool:
    return not graph.unknown((*heads, *others)) and graph.closure(heads) < graph.closure(others)


def _explains(graph: Graph, unclear: Unclear, heads: Collection[str]) -> bool:
    """Whether an attempt with an unknown end may have left a tenant at ``heads``: between its beginning and target."""
    if unclear.run.command == "restore":
        # A backup is of any moment.
        return True
    start, target = unclear.from_heads, unclear.run.target
    if graph.unknown((*heads, *start, *target)):
        return frozenset(heads) in (frozenset(start), frozenset(target))
    now, before, goal = graph.closure(heads), graph.closure(start), graph.closure(target)
    return before & goal <= now <= before | goal


def _names(heads: Sequence[str]) -> str:
    return ", ".join(heads) or "base"
