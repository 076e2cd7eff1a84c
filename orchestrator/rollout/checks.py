"""``verify:`` of a wave: SQL for each of its tenants, a command, a function of the user's."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.databases.failures import describe
from orchestrator.errors import OrchestratorError
from orchestrator.fleet.callables import called
from orchestrator.fleet.masking import mask
from orchestrator.fleet.tenant import Tenant
from orchestrator.fleet.waves import Check
from orchestrator.migration.attempt import Migrator

#: Characters of a command's output that are told.
_TOLD = 500


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the checks of a wave said."""

    #: Why it must not go on; ``None`` when all is well.
    reason: str | None = None
    #: Tenants that are not as they should be, with what was found there.
    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Checks:
    """Carries out checks on tenants that a run has migrated.

    Args:
        migrator: knows the tenants' databases and how to reach them.
        budgets: each server's physical identity and how many tenants it takes at once, by server name.
        about: the run, for commands and functions.
    """

    migrator: Migrator
    budgets: Mapping[str, tuple[str, int]]
    about: Mapping[str, Any]

    async def verdict(self, wave: str, checks: Sequence[Check], tenants: Sequence[Tenant]) -> Verdict:
        """Carry out ``checks``, one after the other, until one is not met.

        Args:
            wave: its name.
            checks: what has to be true.
            tenants: those of the wave that are where the run wanted them.
        """
        document = {**self.about, "wave": wave, "tenants": [tenant.id for tenant in tenants]}
        for check in checks:
            verdict = await self._one(check, tenants, document)
            if verdict.reason is not None:
                return verdict
        return Verdict()

    async def _one(self, check: Check, tenants: Sequence[Tenant], document: Mapping[str, Any]) -> Verdict:
        if check.sql is not None:
            return await self._sql(check.sql, tenants)
        if check.command is not None:
            return await self._command(check.command, document)
        assert check.python is not None
        try:
            fine = await called(check.python, dict(document))
        except OrchestratorError as error:
            return Verdict(f"verify {check}: {error.message}")
        return Verdict() if fine is True else Verdict(mask(f"verify {check} returned {fine!r}"))

    async def _sql(self, sql: str, tenants: Sequence[Tenant]) -> Verdict:
        places = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(1))
        for identity, cap in self.budgets.values():
            places[identity] = asyncio.Semaphore(cap)

        async def one(tenant: Tenant) -> str | None:
            identity, _ = self.budgets.get(tenant.server, (tenant.server, 1))
            async with places[identity]:
                return await self._found(sql, tenant)

        found = await asyncio.gather(*map(one, tenants))
        refused = {tenant.id: why for tenant, why in zip(tenants, found, strict=True) if why is not None}
        if not refused:
            return Verdict()
        example, why = next(iter(refused.items()))
        return Verdict(f"verify refused {len(refused)} of {len(tenants)} tenants ({example}: {why}): {sql}", refused)

    async def _found(self, sql: str, tenant: Tenant) -> str | None:
        """Why the tenant is refused; nothing that the query does stays."""
        database = self.migrator.databases[tenant.server]
        name, limits = self.migrator.connection_name(tenant), self.migrator.limits(tenant, self.migrator.tries)
        try:
            async with database.session(tenant, name, limits) as session:
                if database.dialect == "postgresql":
                    await session.connection.exec_driver_sql("SET TRANSACTION READ ONLY")
                value = (await session.connection.exec_driver_sql(sql)).scalar()
                await session.connection.rollback()
        except Exception as error:
            return describe(error).message
        return None if value is True or value == 1 else f"it is {value!r}"

    async def _command(self, command: str, document: Mapping[str, Any]) -> Verdict:
        process = await asyncio.create_subprocess_shell(
            command,
            cwd=self.migrator.fleet.root,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            told, _ = await process.communicate(json.dumps(document).encode())
        except BaseException:
            process.kill()
            await process.wait()
            raise
        if process.returncode == 0:
            return Verdict()
        text = mask(told.decode(errors="replace").strip()[-_TOLD:])
        return Verdict(f"verify {command}: exit code {process.returncode}" + (f": {text}" if text else ""))
