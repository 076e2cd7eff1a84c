"""The way back to the heads that a tenant had before a run: a set of revisions, where a downgrade has a target."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.history.graph import Graph

#: No revision at all, as Alembic writes it.
_BASE = "base"


@dataclass(frozen=True, slots=True)
class WayBack:
    """From where to where one tenant goes back; as text it is what the journal keeps and a resume goes on with."""

    #: The heads that it may be at, at most: whoever has more has moved on.
    start: tuple[str, ...]
    #: The heads that it is to have again.
    goal: tuple[str, ...]

    def __str__(self) -> str:
        # As in Alembic's `downgrade FROM:TO`, and never taken for a relative target; a colon is not allowed in a
        # revision's name, and a comma stands between revisions on Alembic's own command line.
        return f"{_listed(self.start)}:{_listed(self.goal)}"

    @classmethod
    def parse(cls, text: str) -> WayBack:
        """Read what ``str()`` makes of one."""
        start, _, goal = text.partition(":")
        return cls(_heads(start), _heads(goal))


class Stand(StrEnum):
    """How a tenant's heads stand to a way back."""

    #: It has what it is to have again, and nothing else.
    BACK = "back"
    #: On the way: at its start, or part of it was gone already.
    ON_THE_WAY = "on_the_way"
    #: It has revisions that it did not have at the start.
    MOVED_ON = "moved_on"
    #: It lacks revisions that it is to have: it was taken further back than this way leads.
    BEYOND = "beyond"


def stand_to(graph: Graph, heads: Collection[str], way: WayBack) -> tuple[Stand, tuple[str, ...]]:
    """Where a tenant at ``heads`` stands on ``way``, and the revisions that are to be taken back, in order.

    Args:
        graph: the shared directory; it has all these heads.
        heads: what the tenant's version table says.
        way: where it may be, and where it is to be.
    """
    applied, kept = graph.closure(heads), graph.closure(way.goal)
    if applied == kept:
        return Stand.BACK, ()
    if not kept <= applied:
        return Stand.BEYOND, ()
    if not applied <= graph.closure(way.start):
        return Stand.MOVED_ON, ()
    return Stand.ON_THE_WAY, graph.back(applied - kept)


def _listed(heads: tuple[str, ...]) -> str:
    return ",".join(heads) or _BASE


def _heads(text: str) -> tuple[str, ...]:
    return () if text == _BASE else tuple(text.split(","))
