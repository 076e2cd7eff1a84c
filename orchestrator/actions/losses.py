"""What a plan would throw away: found in the source and in the rendered SQL, with how large the tables are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.actions.project import Project
from orchestrator.databases.sizes import Size
from orchestrator.history.data_loss import in_script
from orchestrator.history.hazards import Hazard, HazardKind
from orchestrator.history.position import direction_of
from orchestrator.rollout.plan import Plan, PlannedTenant
from orchestrator.statuses import TenantStatus

#: What is thrown away, by the direction that a plan goes.
_KINDS = {"upgrade": HazardKind.UPGRADE_LOSES_DATA, "downgrade": HazardKind.DOWNGRADE_LOSES_DATA}


@dataclass(frozen=True, slots=True)
class Loss:
    """One thing that a plan throws away, with the table that it is about."""

    hazard: Hazard
    #: Tenants of the plan that run it.
    tenants: int
    #: Those of them whose table was measured: the largest one's id and size.
    largest: tuple[str, Size] | None = None
    #: All of them together.
    total: Size | None = None

    def as_json(self) -> dict[str, Any]:
        """What ``plan --json`` adds to a hazard."""
        return {
            "table": self.hazard.table,
            "tenants": self.tenants,
            "largest": self.largest and {"tenant": self.largest[0], **_size(self.largest[1])},
            "total": self.total and _size(self.total),
        }


def with_rendered(project: Project, made: Plan, scripts: Sequence[str]) -> Plan:
    """``made`` with what only the SQL of going back tells: statements that Python has put together.

    Args:
        project: opened.
        made: a plan; one that goes forward is given back as it is.
        scripts: of its cohorts, in the plan's order; one that could not be rendered tells nothing.
    """
    if direction_of(made.command) != "downgrade":
        return made
    more: dict[Hazard, None] = {}
    for script in scripts:
        for revision, found in in_script(script, project.loop.version_table).items():
            known = project.history.losses(revision, "downgrade")
            for loss in found:
                if not any(loss.is_like(other) for other in known):
                    hazard = Hazard(revision, HazardKind.DOWNGRADE_LOSES_DATA, loss.detail, 0, loss.table)
                    more[hazard] = None
    order = {revision: number for number, revision in enumerate(_revisions(made.tenants))}
    hazards = sorted((*made.hazards, *more), key=lambda hazard: order.get(hazard.revision, len(order)))
    return replace(made, hazards=tuple(hazards))


async def measured(project: Project, made: Plan) -> tuple[Loss, ...]:
    """What ``made`` throws away, in its hazards' order, with the sizes of the tables; reads statistics only."""
    kind = _KINDS.get(direction_of(made.command))
    lossy = [hazard for hazard in made.hazards if hazard.kind is kind]
    todo = [each for each in made.tenants if each.verdict is TenantStatus.PENDING]
    tables = {hazard.table for hazard in lossy if hazard.table is not None}
    sizes: dict[str, Mapping[str, Size]] = {}
    if tables:
        concerned = {hazard.revision for hazard in lossy}
        for server, database in project.databases.items():
            here = [each.tenant for each in todo if each.tenant.server == server and concerned & set(each.path)]
            if here:
                sizes.update(await database.sizes(here, tables))
    return tuple(_measured(hazard, todo, sizes) for hazard in lossy)


def _measured(hazard: Hazard, todo: Iterable[PlannedTenant], sizes: Mapping[str, Mapping[str, Size]]) -> Loss:
    concerned = [each.tenant.id for each in todo if hazard.revision in each.path]
    table = hazard.table or ""
    found = {tenant: sizes[tenant][table] for tenant in concerned if table in sizes.get(tenant, {})}
    if not found:
        return Loss(hazard, len(concerned))
    name, largest = max(found.items(), key=lambda item: (item[1].bytes or 0, item[1].rows))
    known = [size.bytes for size in found.values() if size.bytes is not None]
    total = Size(sum(known) if known else None, sum(size.rows for size in found.values()))
    return Loss(hazard, len(concerned), (name, largest), total)


def _revisions(tenants: Iterable[PlannedTenant]) -> Iterator[str]:
    return iter(dict.fromkeys(revision for each in tenants for revision in each.path))


def _size(size: Size) -> dict[str, int | None]:
    return {"bytes": size.bytes, "rows": size.rows}
