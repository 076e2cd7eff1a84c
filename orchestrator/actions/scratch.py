"""A tenant of nobody's, brought to a target by the shared directory alone: what every tenant should look like there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from orchestrator.actions.project import Project, migrating
from orchestrator.errors import DatabaseError
from orchestrator.fleet.tenant import Tenant
from orchestrator.migration.abroad import Watched
from orchestrator.migration.attempt import Migrator
from orchestrator.migration.seam import self_check
from orchestrator.migration.work import Work
from orchestrator.statuses import TenantStatus


class Escaping(DatabaseError):
    """Revisions would have changed what is not the scratch tenant's own; that was not committed.

    Args:
        touched: what it is, for people: ``touches public.plans``.
    """

    def __init__(self, message: str, *, hint: str, touched: str) -> None:
        super().__init__(message, hint=hint)
        self.touched = touched


def watched(project: Project, tenant: Tenant) -> Watched:
    """A recording of a scratch tenant; it lets nothing be done to the real tenants beside it, or to what they share."""
    if tenant.schema is None:
        return Watched()
    shared = project.fleet.server_of(tenant).extensions_schema
    return Watched(home=(tenant.schema, *([shared] if shared else [])))


@asynccontextmanager
async def scratch_tenant(
    project: Project, like: Tenant, *targets: str, recording: Watched | None = None
) -> AsyncIterator[Tenant]:
    """A tenant of the kind that ``like`` is, made beside it and at ``targets``; gone when this ends.

    Args:
        project: opened.
        like: a tenant of the fleet; a schema is made in its database, a database on its server.
        targets: one after the other: ``heads``, ``label@head`` or a revision; none for an empty one.
        recording: where what is sent is to be recorded.

    Raises:
        DatabaseError: the directory does not lead from nothing to there; says which revision failed.
        OrchestratorError: nothing can be made there.
    """
    async with project.databases[like.server].scratch(like) as tenant:
        for target in (each for each in targets if each != "base"):
            await bring(project, tenant, target, recording)
        yield tenant


async def bring(project: Project, tenant: Tenant, target: str, recording: Watched | None = None) -> None:
    """Migrate a scratch tenant to ``target``, through Alembic; may be asked again, with a later target.

    Raises:
        Escaping: on the way, what is not its own would have been changed.
        DatabaseError: it did not get there.
    """
    migrator = Migrator(
        project.fleet,
        project.history,
        project.loop,
        project.databases,
        application="orchestrator scratch",
        concurrent=await self_check(),
    )
    recording = recording or watched(project, tenant)
    work = Work.of(project.history, "upgrade", target)
    with migrating(migrator):
        outcome = await migrator.attempt(tenant, work, recording=recording)
    failure = outcome.failure
    where = f" in revision {failure.revision}" if failure is not None and failure.revision else ""
    if recording.prevented and recording.abroad is not None:
        # Whatever a revision made of that: it may have caught the error, and gone on.
        raise Escaping(
            f"the revisions change more than their tenant{where}: it {recording.abroad}, which real tenants share",
            hint=recording.hint or "the database is as it was; what is shared belongs into a history of its own",
            touched=recording.abroad,
        )
    if outcome.status not in (TenantStatus.SUCCEEDED, TenantStatus.ALREADY_CURRENT):
        what = failure.message if failure is not None else outcome.status.value
        raise DatabaseError(
            f"the revisions do not lead from an empty tenant to {target}{where}: {what}",
            hint=(failure.hint if failure is not None else None) or "try them on an empty tenant of your own",
        )
