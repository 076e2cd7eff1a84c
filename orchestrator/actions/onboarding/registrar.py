"""Write tenants down in the fleet as they come, many at once where many come at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from orchestrator.actions.onboarding import registering
from orchestrator.actions.onboarding.registering import Registration
from orchestrator.actions.project import Project
from orchestrator.fleet import registry
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.tenant import Tenant

_Waiting: TypeAlias = tuple[Tenant, "asyncio.Future[str]"]


@dataclass(slots=True)
class Registrar:
    """Registers the tenants of one run.

    A write reads and compares the whole fleet, so whoever comes while one is under way goes with the next.
    """

    project: Project
    #: As loaded, its sources unread.
    declared: Fleet
    _waiting: list[_Waiting] = field(default_factory=list)
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def register(self, tenant: Tenant) -> str:
        """Write ``tenant`` down; nothing where it is written down already, as it is.

        Returns:
            Where, for people.

        Raises:
            OrchestratorError: it cannot be; whatever the fleet is read from is as it was.
        """
        mine: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append((tenant, mine))
        async with self._writing:
            if not mine.done():
                batch, self._waiting = self._waiting, []
                try:
                    await self._write(batch)
                except BaseException:
                    # Cut off: the next one who waits writes for the others.
                    left = [each for each in batch if not each[1].done() and each[1] is not mine]
                    self._waiting = [*left, *self._waiting]
                    raise
        return await mine

    async def lists(self, tenant: Tenant) -> bool:
        """Whether the fleet has ``tenant`` now: everything that it is read from is read again.

        Raises:
            OrchestratorError: it cannot be read.
        """
        return await registering.lists(self.project.servers, self._with_servers, tenant)

    async def unregister(self, tenant: Tenant) -> None:
        """Take ``tenant`` out again, there where it is written down.

        Raises:
            OrchestratorError: it cannot be.
        """
        async with self._writing:
            await registering.unregister(self.project.servers, self._with_servers, tenant)

    @property
    def _with_servers(self) -> Fleet:
        """With the servers that newcomers have for themselves."""
        return replace(self.declared, servers={**self.project.fleet.servers, **self.declared.servers})

    async def _write(self, batch: list[_Waiting]) -> None:
        try:
            done = await self._written([tenant for tenant, _ in batch])
        except Exception as error:
            if len(batch) > 1:
                # One that cannot be written down must not keep the others out.
                for each in batch:
                    await self._write([each])
                return
            done = [error]
        for (_, waiting), there in zip(batch, done, strict=True):
            if waiting.done():
                continue
            if isinstance(there, Exception):
                waiting.set_exception(there)
            else:
                waiting.set_result(there.where or self.declared.path.name)

    async def _written(self, tenants: list[Tenant]) -> Sequence[Registration | Exception]:
        if self.declared.sources:
            return await registering.register_all(self.project.servers, self._with_servers, tenants)
        fleet = self.project.fleet
        entries = [registry.entry_of(tenant, fleet) for tenant in tenants]
        await asyncio.to_thread(registry.register_all, fleet.path, entries)
        return [Registration(fleet.path.name, changed=True)] * len(tenants)
