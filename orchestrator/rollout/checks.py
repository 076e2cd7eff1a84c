"""``verify:`` of a wave: SQL for each of its tenants, a command, a function of the user's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.databases.failures import describe
from orchestrator.errors import OrchestratorError
from orchestrator.fleet.callables import called
from orchestrator.fleet.masking import mask
from orchestrator.fleet.tenant import Tenant
from orchestrator.fleet.waves import Check
from orchestrator.history.position import direction_of
from orchestrator.journal.records import AttemptRecord
from orchestrator.migration.attempt import Migrator
from orchestrator.rollout.commands import refusal
from orchestrator.rollout.plan import PlannedWave
from orchestrator.statuses import TenantStatus

#: Attempts after which a tenant is where the run wanted it.
_THERE = frozenset({TenantStatus.SUCCEEDED, TenantStatus.ALREADY_CURRENT})


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
        budgets: says each server's physical identity and how many tenants it takes at once, by server name.
        about: the run, for commands and functions.
    """

    migrator: Migrator
    budgets: Callable[[Sequence[Tenant]], Awaitable[Mapping[str, tuple[str, int]]]]
    about: Mapping[str, Any]

    async def verdict(self, wave: PlannedWave, attempts: Mapping[str, AttemptRecord]) -> Verdict:
        """Carry out the checks of ``wave``, one after the other, until one is not met.

        Args:
            wave: its tenants are through.
            attempts: how the run's tenants stand, by id.
        """
        if direction_of(self.about["command"]) != "upgrade":
            # They say what is true of a fleet that has gone forwards.
            return Verdict()
        there = {each.tenant for each in attempts.values() if each.wave == wave.name and each.status in _THERE}
        tenants = [tenant for tenant in self.migrator.fleet.tenants if tenant.id in there]
        document = {**self.about, "wave": wave.name, "tenants": [tenant.id for tenant in tenants]}
        for check in wave.settings.verify:
            verdict = await self._one(check, tenants, document)
            if verdict.reason is not None:
                return verdict
        return Verdict()

    async def _one(self, check: Check, tenants: Sequence[Tenant], document: Mapping[str, Any]) -> Verdict:
        if check.sql is not None:
            return await self._sql(check.sql, tenants)
        if check.command is not None:
            reason = await refusal(check.command, self.migrator.fleet.root, document)
            return Verdict() if reason is None else Verdict(f"verify {check}: {reason}")
        assert check.python is not None
        try:
            fine = await called(check.python, dict(document))
        except OrchestratorError as error:
            return Verdict(f"verify {check}: {error.message}")
        return Verdict() if fine is True else Verdict(mask(f"verify {check} returned {fine!r}"))

    async def _sql(self, sql: str, tenants: Sequence[Tenant]) -> Verdict:
        places: dict[str, asyncio.Semaphore] = {}
        budgets = await self.budgets(tenants)
        for identity, cap in budgets.values():
            places[identity] = asyncio.Semaphore(cap)

        async def one(tenant: Tenant) -> str | None:
            async with places[budgets[tenant.server][0]]:
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
