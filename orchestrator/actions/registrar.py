"""Write tenants down in the fleet as they come, many at once where many come at once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TypeAlias

from orchestrator.actions.project import Project
from orchestrator.fleet import registry
from orchestrator.fleet.tenant import Tenant

_Waiting: TypeAlias = tuple[Tenant, "asyncio.Future[str]"]


@dataclass(slots=True)
class Registrar:
    """Registers the tenants of one run.

    A write reads and compares the whole file, so whoever comes while one is under way goes with the next.
    """

    project: Project
    _waiting: list[_Waiting] = field(default_factory=list)
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def register(self, tenant: Tenant) -> str:
        """Write ``tenant`` down; nothing where it is written down already, as it is.

        Returns:
            Where, for people.

        Raises:
            ConfigurationError: it cannot be; the file is as it was.
        """
        mine: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append((tenant, mine))
        async with self._writing:
            if not mine.done():
                batch, self._waiting = self._waiting, []
                await self._write(batch)
        return await mine

    async def unregister(self, tenant: Tenant) -> bool:
        """Take ``tenant`` out again. Returns whether it was there."""
        async with self._writing:
            return await asyncio.to_thread(registry.unregister, self.project.fleet.path, tenant.id)

    async def _write(self, batch: list[_Waiting]) -> None:
        fleet = self.project.fleet
        try:
            entries = [registry.entry_of(tenant, fleet) for tenant, _ in batch]
            await asyncio.to_thread(registry.register_all, fleet.path, entries)
        except Exception as error:
            if len(batch) > 1:
                # One that cannot be written down must not keep the others out.
                for each in batch:
                    await self._write([each])
                return
            batch[0][1].set_exception(error)
            return
        for _, done in batch:
            if not done.done():
                done.set_result(fleet.path.name)
