"""Alembic operations that would make a tenant what the reference is. Suggestions: somebody reads them first."""

from __future__ import annotations

from orchestrator.rollout.differences import Change
from orchestrator.rollout.remedies.ordering import in_order
from orchestrator.rollout.remedies.postgresql import operations as _postgresql
from orchestrator.rollout.remedies.sqlite import operations as _sqlite

__all__ = ["in_order", "operations"]


def operations(change: Change, dialect: str) -> tuple[str, ...]:
    """Lines for the ``upgrade()`` of a revision, in order; where Alembic and SQL have no way, a comment that says so.

    Args:
        change: what is not as in the reference.
        dialect: ``postgresql`` or ``sqlite``.
    """
    return tuple(_sqlite(change) if dialect == "sqlite" else _postgresql(change))
