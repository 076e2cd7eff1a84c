"""onboard --prepare: make what new tenants are made from, before the first of them comes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.actions.onboarding.making import Way, blueprint_of, prepare
from orchestrator.actions.onboarding.pooling import fill_pool
from orchestrator.actions.project import Project
from orchestrator.databases.claims import Stock
from orchestrator.fleet.tenant import Isolation, Tenant
from orchestrator.rollout.blueprints import Blueprint

#: So many new tenants of a kind are worth what preparing costs: about three migrations from nothing.
_WORTH_IT = 5


@dataclass(frozen=True, slots=True)
class Readiness:
    """How new tenants of one kind will be made."""

    server: str
    isolation: Isolation
    #: The fastest way that is open.
    way: Way
    #: Why faster ones are closed, by way.
    closed: Mapping[str, str]
    #: Those that are made already; ``None`` where there is no pool of them.
    stock: Stock | None = None

    def as_json(self) -> dict[str, Any]:
        """The document of ``onboard --prepare --json``."""
        return {
            "server": self.server,
            "isolation": self.isolation.value,
            "way": self.way.value,
            "closed": dict(self.closed),
            "pool": None if self.stock is None else asdict(self.stock),
        }


async def made_ready(project: Project, tenant: Tenant) -> Readiness:
    """Make what tenants like ``tenant`` are made from at their target, where that is not there, and fill their pool.

    Args:
        project: opened.
        tenant: an example; it need not be there, and is not touched.

    Raises:
        OrchestratorError: the directory does not lead there, or nothing can be made on the server.
    """
    found = await prepare(project, tenant, tenant.target)
    stock = await fill_pool(project, tenant)
    return Readiness(tenant.server, tenant.isolation, _way(found), found.closed, stock)


async def ready_for_many(project: Project, tenants: Iterable[Tenant]) -> None:
    """Make what is needed to make ``tenants``, of each kind that has enough of them to be worth it."""
    kinds: dict[tuple[str, Isolation, str], list[Tenant]] = {}
    for tenant in tenants:
        kinds.setdefault((tenant.server, tenant.isolation, tenant.target), []).append(tenant)
    for alike in kinds.values():
        if len(alike) >= _WORTH_IT and await blueprint_of(project, alike[0], alike[0].target) is None:
            await prepare(project, alike[0], alike[0].target)


def _way(found: Blueprint) -> Way:
    made = {Way.REPLAY: found.step, Way.SNAPSHOT: found.snapshot, Way.TEMPLATE: found.template}
    return next((way for way, what in made.items() if what is not None), Way.ALEMBIC)
