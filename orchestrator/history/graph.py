"""The revisions as a graph of plain values: who comes before whom. Pure; Alembic is not asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Graph:
    """Which revisions each revision needs applied before it."""

    #: Revision to the revisions directly before it: its ``down_revision`` and its ``depends_on``.
    parents: Mapping[str, tuple[str, ...]]
    #: The same without ``depends_on``: what makes a branch.
    lineage: Mapping[str, tuple[str, ...]]

    def unknown(self, revisions: Iterable[str]) -> tuple[str, ...]:
        """Those of ``revisions`` that the directory does not have."""
        return tuple(revision for revision in revisions if revision not in self.parents)

    def closure(self, revisions: Iterable[str]) -> frozenset[str]:
        """``revisions`` and everything before them: what is applied when these are the heads."""
        return _reached(revisions, self.parents)

    def branch(self, revisions: Iterable[str]) -> frozenset[str]:
        """``revisions`` and those that they descend from; a dependency on another branch is no descent."""
        return _reached(revisions, self.lineage)

    def tips(self, applied: frozenset[str]) -> tuple[str, ...]:
        """The heads of what is applied, sorted; ``applied`` holds everything before each of its members."""
        return tuple(sorted(applied - {parent for revision in applied for parent in self.parents[revision]}))

    def overlapping(self, heads: Collection[str]) -> tuple[str, ...]:
        """Those of ``heads``, all of them known, that are before another of them, sorted.

        No migration leaves a version table so; Alembic refuses to upgrade from there, and its downgrade leaves out what
        the later ones have.
        """
        return tuple(sorted(head for head in heads if any(head in self.before(other) for other in heads)))

    def back(self, revisions: frozenset[str]) -> tuple[str, ...]:
        """``revisions`` in an order to take them back in: each after all of them that need it, otherwise by name.

        One line is followed down as far as it goes before the next one is begun, as Alembic does it.
        """
        needed_by = Counter(parent for revision in revisions for parent in self.parents[revision])
        ready = sorted((revision for revision in revisions if not needed_by[revision]), reverse=True)
        order: list[str] = []
        while ready:
            revision = ready.pop()
            order.append(revision)
            free = []
            for parent in self.parents[revision]:
                needed_by[parent] -= 1
                if not needed_by[parent] and parent in revisions:
                    free.append(parent)
            ready.extend(sorted(free, reverse=True))
        return tuple(order)

    def before(self, revision: str) -> frozenset[str]:
        """Everything before ``revision``, itself not included."""
        return self.closure(self.parents[revision])


def _reached(revisions: Iterable[str], steps: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    found: set[str] = set()
    todo = list(revisions)
    while todo:
        revision = todo.pop()
        if revision not in found:
            found.add(revision)
            todo.extend(steps[revision])
    return frozenset(found)
