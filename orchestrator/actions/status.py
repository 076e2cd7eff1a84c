"""status: where every tenant stands. Reads only."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.actions.journals import opened_journal
from orchestrator.actions.project import opened_project
from orchestrator.actions.servers import Tenants
from orchestrator.databases.failures import Failure
from orchestrator.databases.port import Database
from orchestrator.errors import JournalError, OrchestratorError
from orchestrator.fleet.fleet import Fleet
from orchestrator.journal.records import AttemptRecord
from orchestrator.rollout.plan import PlannedTenant, Request
from orchestrator.statuses import TenantStatus

log = logging.getLogger("orchestrator.status")

#: States of a tenant that has something to run.
_MAY_BE_PARTIAL = frozenset({TenantStatus.BEHIND, TenantStatus.DIVERGED})


@dataclass(frozen=True, slots=True)
class StatusReport:
    """Where the selected tenants stand, seen from their targets."""

    #: The revisions that the targets stand for, sorted.
    target: tuple[str, ...]
    tenants: tuple[PlannedTenant, ...]
    #: The database that a tenant without one of its own is in, by server name.
    default_databases: Mapping[str, str | None]

    @property
    def summary(self) -> dict[str, int]:
        """How many tenants are in which state; only states that occur."""
        counts = Counter(each.state for each in self.tenants)
        return {state.value: counts[state] for state in TenantStatus if counts[state]}

    def as_json(self) -> dict[str, Any]:
        """The document of ``status --json`` (see docs/cli.md)."""
        return {
            "target": list(self.target),
            "tenants": [self._tenant(each) for each in self.tenants],
            "summary": self.summary,
        }

    def _tenant(self, each: PlannedTenant) -> dict[str, Any]:
        tenant = each.tenant
        return {
            "tenant": tenant.id,
            "server": tenant.server,
            "database": tenant.file or tenant.database or self.default_databases.get(tenant.server),
            "schema": tenant.schema,
            "tags": list(tenant.tags),
            "heads": None if each.heads is None else list(each.heads),
            "state": each.state.value,
            "pending": len(each.path),
            "error": each.failure.as_json() if each.failure is not None else None,
        }


async def status(fleet: Fleet, target: str | None = None, *, tenants: Tenants = ()) -> StatusReport:
    """Read where the selected tenants stand, all without a selection.

    Args:
        fleet: as loaded from tenants.yaml.
        target: what to measure them by; ``None`` for each tenant's own target.
        tenants: ids or globs, or a :class:`Selection`.

    Raises:
        OrchestratorError: bad input. A tenant that cannot be read is no error: it says so itself.
    """
    async with opened_project(fleet) as project:
        # Waves say who goes when, and would reorder what is listed here.
        found = await project.plan(Request("upgrade", target), project.choose(tenants))
        by_id = {each.tenant.id: each for each in found.tenants}
        partial = await _left_partial(fleet)
        listed = tuple(
            _marked(by_id[tenant.id], partial.get(tenant.id)) for tenant in project.fleet.tenants if tenant.id in by_id
        )
        defaults = await asyncio.to_thread(
            lambda: {name: _default_database(database) for name, database in project.databases.items()}
        )
        return StatusReport(found.target, listed, defaults)


def _default_database(database: Database) -> str | None:
    try:
        return database.default_database
    except OrchestratorError:
        # Its secret cannot be read: its tenants say so.
        return None


async def _left_partial(fleet: Fleet) -> dict[str, AttemptRecord]:
    """Tenants that a step outside any transaction left half done: their version tables cannot tell, the journal can."""
    try:
        async with opened_journal(fleet, read_only=True) as journal:
            return {attempt.tenant: attempt for attempt in await journal.left_partial()}
    except JournalError as error:
        log.warning("%s; tenants that were left partial are not marked", error.message)
        return {}


def _marked(each: PlannedTenant, attempt: AttemptRecord | None) -> PlannedTenant:
    """``each`` as partial, if it still stands where the attempt left it."""
    if attempt is None or attempt.to_heads != each.heads or each.state not in _MAY_BE_PARTIAL:
        return each
    failure = Failure(**attempt.error) if attempt.error is not None else None
    return replace(each, state=TenantStatus.PARTIAL, failure=failure)
