"""drift: tenants grouped by the shape of their schema, the odd ones with their difference. Changes no tenant."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.actions.drifting.looking import looking
from orchestrator.actions.servers import Tenants, opened_servers, selection_of
from orchestrator.databases.definitions import COMMENTS, OWNERS
from orchestrator.errors import UsageError
from orchestrator.fleet.fleet import Fleet

if TYPE_CHECKING:
    from orchestrator.rollout.drift import DriftReport


async def drift(
    fleet: Fleet,
    *,
    tenants: Tenants = (),
    against: str | None = None,
    baseline: str | Path | None = None,
    jobs: int = 32,
    also: Collection[str] = (),
) -> DriftReport:
    """Group the selected tenants, all without a selection, by the shape of their schema.

    Args:
        fleet: as loaded from tenants.yaml.
        tenants: ids or globs, or a :class:`Selection`.
        against: the id of a tenant that is right; ``None`` for what the revisions make of an empty tenant, at the heads
            that each tenant has.
        baseline: a file of differences that are normal, as ``save_baseline`` wrote it.
        jobs: connections over all servers, at most.
        also: ``comments``, ``owners``: what is compared only where it is asked for. SQLite has neither.

    Raises:
        UsageError: ``baseline`` cannot be used; nobody was asked.
        OrchestratorError: other bad input, or ``against`` cannot be read. A tenant that cannot be compared is no
            error: the report has it.
    """
    asked = frozenset(also)
    if unknown := sorted(asked - {COMMENTS, OWNERS}):
        raise UsageError(f"there is nothing to compare called {unknown[0]!r}", hint=f"also: {COMMENTS}, {OWNERS}")
    accepted: frozenset[str] = frozenset()
    if baseline is not None:
        # Whoever has mistyped it does not wait for thousands of tenants first.
        from orchestrator.rollout.baseline import load_baseline
        from orchestrator.rollout.drift import REVISIONS

        accepted = load_baseline(Path(baseline), against or REVISIONS, fleet.ignore)
    async with (
        opened_servers(fleet) as servers,
        looking(servers, selection_of(tenants), against=against, jobs=jobs, also=asked) as looked,
    ):
        await servers.imported("orchestrator.actions.drifting.comparison")
        from orchestrator.actions.drifting.comparison import compared
        from orchestrator.actions.project import read_project

        return await compared(await read_project(fleet, servers), looked, accepted)


def accept(found: DriftReport) -> DriftReport:
    """The report with all that is odd taken as normal, as it is once its baseline is saved."""
    shapes = tuple(replace(shape, accepted=bool(shape.difference)) for shape in found.shapes)
    return replace(found, shapes=shapes)
