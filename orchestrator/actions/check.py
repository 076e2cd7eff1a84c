"""check: whether every tenant has a revision. Reads only."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from orchestrator.actions.journals import opened_journal
from orchestrator.actions.nobody import warn_of_nobody
from orchestrator.actions.partial import left_partial
from orchestrator.actions.project import Project, opened_project
from orchestrator.actions.servers import Tenants
from orchestrator.actions.status import has_all, revisions_of
from orchestrator.errors import JournalError
from orchestrator.fleet.fleet import Fleet
from orchestrator.rollout.plan import Plan, PlannedTenant
from orchestrator.rollout.planning import Request
from orchestrator.statuses import TenantStatus

log = logging.getLogger("orchestrator.check")

#: States in which a tenant has all of its own target.
_READY = frozenset({TenantStatus.CURRENT, TenantStatus.AHEAD, TenantStatus.PINNED})


@dataclass(frozen=True, slots=True)
class CheckReport:
    """Whether the selected tenants have what was asked for."""

    #: The revision asked for; ``None`` where each tenant was measured by its own target, or where there are several.
    min_revision: str | None
    #: The revisions that were asked for, or that the tenants' targets stand for, sorted.
    target: tuple[str, ...]
    #: How many were looked at.
    tenants: int
    #: Those that do not have it, or are not known to, in the fleet's order.
    not_ready: tuple[PlannedTenant, ...]
    #: What makes less of the answer than it seems to be: sources that find nobody.
    warnings: tuple[str, ...] = ()

    @property
    def ready(self) -> bool:
        """Every tenant has it."""
        return not self.not_ready

    def as_json(self) -> dict[str, Any]:
        """The document of ``check --json`` (see docs/cli.md)."""
        return {
            "ready": self.ready,
            "min_revision": self.min_revision,
            "target": list(self.target),
            "tenants": self.tenants,
            "not_ready": [
                {
                    "tenant": each.tenant.id,
                    "heads": None if each.heads is None else list(each.heads),
                    "state": each.state.value,
                    "error": each.failure.as_json() if each.failure is not None else None,
                }
                for each in self.not_ready
            ],
            "warnings": list(self.warnings),
        }


async def check(fleet: Fleet, min_revision: str | None = None, *, tenants: Tenants = ()) -> CheckReport:
    """Say which of the selected tenants, all without a selection, do not have a revision.

    Args:
        fleet: as loaded from tenants.yaml.
        min_revision: what each must have, pinned or not: a revision, the start of one, ``label@head`` or ``heads``;
            ``None`` for each tenant's own target, which is the pin of one that is pinned.
        tenants: ids or globs, or a :class:`Selection`.

    Raises:
        OrchestratorError: bad input. A tenant that cannot be read is no error, and not ready.
    """
    async with opened_project(fleet) as project:
        wanted = None if min_revision is None else revisions_of(project.history, min_revision)
        chosen = project.choose(tenants)
        plan = await _with_partial(project, await project.plan(Request("upgrade"), chosen))
        found = {each.tenant.id: each for each in plan.tenants}
        have = {
            each.heads: wanted is not None and has_all(project.history, each.heads, wanted) for each in plan.tenants
        }

        def ready(each: PlannedTenant) -> bool:
            # A schema that is not there has nothing, whatever is asked for.
            there = each.state not in (TenantStatus.UNPROVISIONED, TenantStatus.UNREACHABLE)
            return each.state in _READY if wanted is None else there and have[each.heads]

        target = plan.target if wanted is None else tuple(sorted(wanted))
        not_ready = tuple(found[tenant.id] for tenant in chosen if not ready(found[tenant.id]))
        single = target[0] if wanted is not None and len(target) == 1 else None
        return CheckReport(single, target, len(chosen), not_ready, warn_of_nobody(fleet, project.fleet))


async def _with_partial(project: Project, plan: Plan) -> Plan:
    """``plan`` with those marked that a step outside any transaction left half done: only the journal knows them."""
    try:
        async with opened_journal(project.fleet, read_only=True) as journal:
            return (await left_partial(project, journal, plan)).mark(plan, retry=False)
    except JournalError as error:
        log.warning("%s; tenants that were left partial are not marked", error.message)
        return plan
