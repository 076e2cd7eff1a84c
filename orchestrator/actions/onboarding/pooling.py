"""Pools: databases that are ready before anybody comes, filled by a deploy and behind the sign-ups of an open desk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.actions.onboarding.making import template_of
from orchestrator.actions.project import Project
from orchestrator.databases.answers import never
from orchestrator.databases.claims import Pool, Stock, Template
from orchestrator.errors import OrchestratorError
from orchestrator.fleet.tenant import Isolation, Tenant

log = logging.getLogger("orchestrator.run")


def pool_for(project: Project, tenant: Tenant, template: Template) -> Pool | None:
    """Where a database for ``tenant`` may be ready; ``None`` where none is kept.

    Only for who is on a server of the fleet's, and goes to the target that all go to: others could not have been
    expected.
    """
    fleet = project.fleet
    if not fleet.onboarding.pool or fleet.server_of(tenant).own or tenant.target != fleet.defaults.target:
        return None
    return Pool(project.identity, tenant.server, template)


async def fill_pool(
    project: Project, tenant: Tenant, *, tidy: bool = True, stopped: Callable[[], bool] = never
) -> Stock | None:
    """Fill the pool that tenants like ``tenant`` come from.

    Args:
        project: opened.
        tenant: an example; it need not be there, and is not touched.
        tidy: also drop what can be used no more; not where a process of the version before may still be at work.
        stopped: asked before each is made, whether the rest is to be left.

    Returns:
        What is there now; ``None`` where there is no pool, or nothing is prepared that could be copied.

    Raises:
        OrchestratorError: one could not be made.
    """
    if tenant.isolation is not Isolation.DATABASE or tenant.schema is not None:
        return None
    database = project.databases[tenant.server]
    if not project.fleet.onboarding.pool:
        if tidy:
            # There may have been one before.
            await database.drop_pool(project.identity)
        return None
    template = await template_of(project, tenant, tenant.target)
    pool = None if template is None else pool_for(project, tenant, template)
    if pool is None:
        return None
    return await database.fill_pool(pool, project.fleet.onboarding.pool, tidy=tidy, stopped=stopped)


@dataclass(slots=True)
class Filler:
    """Fills the pools of one project behind those who have come: nobody waits for it, and it fails nobody."""

    project: Project
    #: By server: who fills, and for whom to begin again afterwards.
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _next: dict[str, Tenant] = field(default_factory=dict)
    _ended: bool = False

    def wake(self, tenant: Tenant) -> None:
        """Have the pool filled that ``tenant`` may have come from."""
        if self._ended or not self.project.fleet.onboarding.pool or tenant.isolation is not Isolation.DATABASE:
            return
        self._next[tenant.server] = tenant
        task = self._tasks.get(tenant.server)
        if task is None or task.done():
            self._tasks[tenant.server] = asyncio.create_task(self._fill(tenant.server))

    async def end(self) -> None:
        """Wait for what is being made, and make no more."""
        self._ended = True
        await asyncio.gather(*self._tasks.values())

    async def _fill(self, server: str) -> None:
        while not self._ended and (tenant := self._next.pop(server, None)) is not None:
            try:
                await fill_pool(self.project, tenant, tidy=False, stopped=lambda: self._ended)
            except OrchestratorError as error:
                log.warning("%s%s", error.message, f" ({error.hint})" if error.hint else "")
            except Exception:
                log.exception("the pool of server %s was not filled", server)
