"""Bring an empty place to a target, by the fastest way that can be shown to make what Alembic makes."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.actions.project import Project, migrating
from orchestrator.databases.failures import Failure
from orchestrator.errors import DatabaseError
from orchestrator.fleet.tenant import Limits, Tenant
from orchestrator.migration.attempt import Migrator, Work
from orchestrator.migration.seam import self_check
from orchestrator.statuses import TenantStatus


class Way(StrEnum):
    """How a new tenant comes to its tables, fastest first."""

    #: A copy of a database or file that is kept at the target.
    TEMPLATE = "template"
    #: What two scratch tenants were sent, sent again.
    REPLAY = "replay"
    #: What a scratch tenant holds, restored under the tenant's name.
    SNAPSHOT = "snapshot"
    #: Revision by revision.
    ALEMBIC = "alembic"


@dataclass(frozen=True, slots=True)
class Made:
    """How a tenant came to its target."""

    way: Way
    #: What its version table says, read again at the end; sorted.
    heads: tuple[str, ...]
    duration_ms: float
    #: Why faster ways were not taken, by way, for people.
    not_taken: Mapping[Way, str] = field(default_factory=dict)


class NotMade(DatabaseError):
    """A tenant did not come to its target.

    Args:
        failure: why.
        status: how the attempt ended; ``locked`` where another process is at work on the tenant.
        heads: where it is now; ``None`` where that could not be read.
    """

    def __init__(self, message: str, failure: Failure, status: TenantStatus, heads: tuple[str, ...] | None) -> None:
        super().__init__(message, hint=failure.hint)
        self.failure = failure
        self.status = status
        self.heads = heads


async def make(
    project: Project,
    tenant: Tenant,
    target: str,
    *,
    application: str,
    limits: Limits,
    ways: Collection[Way] | None = None,
) -> Made:
    """Bring ``tenant`` to ``target``; its place is made where it is missing, and holds nothing where it is there.

    A tenant that is already on its way (a killed call's, somebody else's) is taken on from there by Alembic; so the
    same call again finishes what was cut off.

    Args:
        project: opened; what does not change from tenant to tenant is kept in it.
        tenant: on one of the project's servers; it need not be in the fleet.
        target: ``heads``, ``label@head`` or a revision.
        application: how connections name themselves to the server.
        limits: timeouts, over the tenant's, its server's and the fleet's.
        ways: those that may be taken; ``None`` for all. Alembic is always one of them.

    Raises:
        NotMade: it is not at its target.
        OrchestratorError: its place cannot be made.
    """
    started = time.perf_counter()
    heads = await _by_alembic(project, tenant, target, application, limits)
    return Made(Way.ALEMBIC, heads, (time.perf_counter() - started) * 1000)


async def _by_alembic(
    project: Project, tenant: Tenant, target: str, application: str, limits: Limits
) -> tuple[str, ...]:
    migrator = Migrator(
        project.fleet,
        project.history,
        project.loop,
        project.databases,
        application=application,
        provision=True,
        asked=limits,
        concurrent=await self_check(),
    )
    with migrating(migrator):
        outcome = await migrator.attempt(tenant, Work.of(project.history, "upgrade", target))
    if outcome.status in (TenantStatus.SUCCEEDED, TenantStatus.ALREADY_CURRENT):
        assert outcome.after is not None
        return outcome.after
    failure = outcome.failure or Failure(outcome.status.value, f"it is {outcome.status.value}")
    where = f" in revision {failure.revision}" if failure.revision else ""
    raise NotMade(
        f"tenant {tenant.id} is not at {target}{where}: {failure.message}", failure, outcome.status, outcome.after
    )
