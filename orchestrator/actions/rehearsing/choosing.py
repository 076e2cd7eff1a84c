"""Which tenants are cloned: those that were named, else the largest, the oldest and the most drifted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.actions.drift import drift
from orchestrator.actions.project import Project
from orchestrator.databases.cloning import Footprint
from orchestrator.errors import OrchestratorError, UsageError
from orchestrator.fleet.selection import Selection
from orchestrator.rollout.plan import PlannedTenant

log = logging.getLogger("orchestrator.rehearse")

#: What ``--pick`` takes.
LARGEST, OLDEST, DRIFTED, ALL = "largest", "oldest", "drifted", "all"
PICKS = (LARGEST, OLDEST, DRIFTED, ALL)
#: All that are named one by one, without a word about picking.
NAMED = "named"
#: Those of which nobody is left out.
EVERYBODY = frozenset({ALL, NAMED})


@dataclass(frozen=True, slots=True)
class Picked:
    """A tenant that is to be cloned."""

    planned: PlannedTenant
    #: Why.
    reasons: tuple[str, ...]


def picks_of(asked: Sequence[str] | None, selection: Selection) -> tuple[str, ...]:
    """How tenants are picked: as asked; all that are named one by one; else one of each kind.

    Raises:
        UsageError: there is no such kind.
    """
    if asked:
        for name in asked:
            if name not in PICKS:
                raise UsageError(f"there is no pick {name!r}", hint=f"--pick takes {', '.join(PICKS)}")
        return tuple(dict.fromkeys(asked))
    narrowed = replace(selection, patterns=(), listed=None) != Selection()
    named = selection.patterns and not any(set("*?[") & set(each) for each in selection.patterns)
    return (NAMED,) if (named or selection.listed) and not narrowed else (LARGEST, OLDEST, DRIFTED)


async def chosen(
    project: Project, candidates: Sequence[PlannedTenant], picks: Sequence[str], told: Callable[[str], None]
) -> list[Picked]:
    """Choose among ``candidates``.

    Args:
        project: opened.
        candidates: with something to run, in the fleet's order.
        picks: some of :data:`PICKS`, or :data:`NAMED`.
        told: of what takes long.
    """
    found: dict[str, list[str]] = {}
    everybody = EVERYBODY.intersection(picks)
    if len(candidates) == 1 and not everybody:
        return [Picked(candidates[0], ("the only one",))]
    by_id = {each.tenant.id: each for each in candidates}
    if everybody:
        found = {each.tenant.id: list(everybody) for each in candidates}
    sizes = await footprints(project, candidates) if {LARGEST, OLDEST} & set(picks) else {}
    none = Footprint(0, 0)
    if LARGEST in picks and candidates:
        largest = max(candidates, key=lambda each: sizes.get(each.tenant.id, none).bytes)
        found.setdefault(largest.tenant.id, []).append("largest")
    if OLDEST in picks and candidates:
        oldest = min(candidates, key=lambda each: (-len(each.path), sizes.get(each.tenant.id, none).made))
        found.setdefault(oldest.tenant.id, []).append("oldest")
    if DRIFTED in picks and candidates:
        told(f"looking for the most drifted of {len(candidates)} tenants")
        drifted = await _most_drifted(project, candidates)
        if drifted is not None:
            found.setdefault(drifted, []).append("most drifted")
    return [Picked(by_id[tenant], tuple(reasons)) for tenant, reasons in found.items()]


async def footprints(project: Project, tenants: Sequence[PlannedTenant]) -> Mapping[str, Footprint]:
    """How large and how old tenants are, by id; without those that cannot be looked at."""
    found: dict[str, Footprint] = {}
    for server in dict.fromkeys(each.tenant.server for each in tenants):
        here = [each.tenant for each in tenants if each.tenant.server == server]
        try:
            found.update(await project.databases[server].footprints(here))
        except OrchestratorError as error:
            log.warning("%s; the sizes of its tenants are not known", error.message)
    return found


async def _most_drifted(project: Project, candidates: Sequence[PlannedTenant]) -> str | None:
    """The id of the one with the most objects that are not as the revisions make them; ``None`` for nobody."""
    try:
        selection = Selection(listed=tuple(each.tenant.id for each in candidates))
        report = await drift(project.fleet, tenants=selection)
    except OrchestratorError as error:
        log.warning("nobody knows who is the most drifted: %s", error.message)
        return None
    odd = max(report.odd, key=lambda shape: len(shape.difference), default=None)
    return odd.tenants[0] if odd is not None else None
