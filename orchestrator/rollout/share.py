"""What of a tenant's way is a run's own: nothing else is taken back with the run. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from orchestrator.history.graph import Graph
from orchestrator.journal.records import AttemptRecord, RunRecord
from orchestrator.statuses import OPEN, TenantStatus

#: Kind of the event that tells that somebody else has moved a tenant between two parts of a run.
MOVED_BETWEEN = "moved_between"

#: Attempts whose end the run did not see: where the tenant is at its target after all, it was this run that did it.
CUT_OFF = OPEN | {TenantStatus.INTERRUPTED, TenantStatus.UNKNOWN}
#: Attempts that, where no heads were read after them, had not come as far as the tenant's first revision.
_NOT_BEGUN = frozenset({TenantStatus.FAILED, TenantStatus.LOCKED, TenantStatus.BLOCKED})

#: A run and what it did to one tenant.
Change = tuple[RunRecord, AttemptRecord]


def left_at(attempt: AttemptRecord) -> tuple[str, ...] | None:
    """Where the run left the tenant; ``None`` where its end was not seen, or it had not come to anything."""
    return None if attempt.status in CUT_OFF else attempt.to_heads


def may_have_moved(attempt: AttemptRecord) -> bool:
    """Whether the run has moved the tenant, or may have: to be believed only where nobody else came after it."""
    if attempt.from_heads is None:
        return False
    left = left_at(attempt)
    return attempt.status not in _NOT_BEGUN if left is None else left != attempt.from_heads


@dataclass(frozen=True, slots=True)
class Share:
    """How far a run has come with one tenant, over all its parts and tries."""

    #: Heads before the run's first move; while it has not moved the tenant, where it found it last.
    start: tuple[str, ...] | None = None
    #: Where the run left it, or found it last; ``None`` when that was not seen.
    left: tuple[str, ...] | None = None
    #: Whether the run has moved it, or may have.
    moved: bool = False

    @classmethod
    def of(cls, earlier: AttemptRecord | None) -> Share:
        """What the earlier parts of a run have done; nothing for ``None``."""
        if earlier is None or not may_have_moved(earlier):
            return cls()
        return cls(earlier.from_heads, left_at(earlier), True)

    def found(self, heads: tuple[str, ...]) -> Share:
        """The run looks at the tenant again. What others did before the run's first move is not the run's."""
        if not self.moved or heads == self.start:
            return Share(heads, heads, False)
        return replace(self, left=heads)

    def ended(self, before: tuple[str, ...] | None, after: tuple[str, ...] | None, *, unseen: bool) -> Share:
        """The run has tried the tenant.

        Args:
            before: heads when it began; ``None`` where it did not come to that.
            after: heads read at the end; ``None`` where they could not be.
            unseen: it may have moved the tenant, and did not see how that ended.
        """
        if unseen:
            return replace(self, left=None, moved=True)
        return self if after is None else replace(self, left=after, moved=self.moved or after != before)

    def is_mixed(self, graph: Graph, heads: tuple[str, ...], target: Collection[str]) -> bool:
        """Whether somebody else has given a tenant at ``heads`` revisions since the run left it.

        Where that was not seen, whatever is on the way to ``target`` is taken for the run's own.
        """
        if not self.moved or heads == self.start:
            return False
        reach = self.left if self.left is not None else (*(self.start or ()), *target)
        if graph.unknown((*heads, *reach)):
            return heads != self.left
        return not graph.closure(heads) <= graph.closure(reach)


def added(graph: Graph, changes: Iterable[Change]) -> frozenset[str]:
    """The revisions that ``changes`` of one tenant, oldest first, have given it and not taken back again.

    Those included that a run may have given it whose end nobody saw.
    """
    found: set[str] = set()
    for run, attempt in changes:
        first = attempt.from_heads or ()
        left = left_at(attempt)
        before = closure_of_known(graph, first)
        after = closure_of_known(graph, (*first, *run.target) if left is None else left)
        found = (found | (after - before)) - (before - after)
    return frozenset(found)


def led(changes: Sequence[Change], start: tuple[str, ...] | None, end: tuple[str, ...]) -> bool:
    """Whether ``changes`` of one tenant, oldest first, are all that led it from ``start`` to ``end``."""
    here = start
    for _, attempt in changes:
        left = left_at(attempt)
        if attempt.from_heads != here or left is None:
            return False
        here = left
    return bool(changes) and here == end


def by_tenant(changes: Iterable[Change]) -> dict[str, list[Change]]:
    """``changes`` in their order, by tenant id; without those that had not come as far as to change anything."""
    found: dict[str, list[Change]] = {}
    for run, attempt in changes:
        if may_have_moved(attempt):
            found.setdefault(attempt.tenant, []).append((run, attempt))
    return found


def closure_of_known(graph: Graph, heads: Iterable[str]) -> frozenset[str]:
    """``heads`` and everything before them, without those that the directory does not have.

    Directories change; and nobody is taken back past what is not there.
    """
    return graph.closure(head for head in heads if head in graph.parents)
