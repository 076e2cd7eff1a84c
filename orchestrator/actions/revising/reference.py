"""What the models are compared with: a tenant of nobody's at the heads, of the kind that a tenant of the fleet is."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from orchestrator.actions.linting.scope import example, stand_in
from orchestrator.actions.project import Project
from orchestrator.actions.revising.asked import Asked
from orchestrator.actions.scratch import Escaping, bring, scratch_tenant
from orchestrator.errors import DatabaseError, HistoryError
from orchestrator.fleet.tenant import Tenant
from orchestrator.history.directory import History

log = logging.getLogger("orchestrator.revision")

#: The target that every tenant has that says nothing else.
_HEADS = "heads"


def with_somebody(project: Project) -> Project:
    """The project; where nobody is a tenant yet, with one of no name, so that the first revision can be written."""
    if project.fleet.tenants:
        return project
    return project.joined_by(replace(project.fleet, tenants=(stand_in(project.fleet),)))


def choose_like(project: Project, asked: Asked) -> Tenant:
    """The tenant beside which a reference is made.

    Of those that are asked for, one whose target has the revision that the new one comes after: of several branches,
    each tenant may follow another. Of these, one in a PostgreSQL schema, else with a database, else with a file.

    Raises:
        OrchestratorError: no tenant is called so, or there is no such revision.
    """
    chosen = project.choose((asked.like,)) if asked.like is not None else project.fleet.tenants
    history = project.history
    after = frozenset(history.resolve(asked.head))
    # Thousands of tenants have a few targets.
    leads = {
        target: after <= history.graph.closure(history.resolve(_ends_at_heads(history, target)))
        for target in {tenant.target for tenant in chosen}
    }
    on_its_way = [tenant for tenant in chosen if leads[tenant.target]]
    like = example(on_its_way or chosen)
    _tell_of_others(project, like, on_its_way or chosen)
    return like


def _ends_at_heads(history: History, target: str) -> str:
    """``target`` where it ends at heads of the directory, as a branch's does; else all heads."""
    try:
        ends = set(history.resolve(target))
    except HistoryError:
        return _HEADS
    return target if ends <= set(history.heads) else _HEADS


def _tell_of_others(project: Project, like: Tenant, tenants: Sequence[Tenant]) -> None:
    """A type may print otherwise on another dialect, and the file is for all of them."""
    dialects = {tenant.id: project.databases[tenant.server].dialect for tenant in tenants}
    others = sorted(set(dialects.values()) - {dialects[like.id]})
    if others:
        other = next(tenant for tenant in tenants if dialects[tenant.id] == others[0])
        log.warning(
            "the models are compared on %s; tenants on %s get this file, too: read it with them in mind, "
            "or compare there (--like %s)",
            dialects[like.id],
            ", ".join(others),
            other.id,
        )


@asynccontextmanager
async def reference(project: Project, like: Tenant) -> AsyncIterator[Tenant]:
    """A scratch tenant of the kind that ``like`` is, at the heads; gone when this ends.

    Raises:
        OrchestratorError: nothing can be made there, or the revisions do not lead there, or they would change what is
            not the scratch tenant's; that is not committed.
    """
    target = _ends_at_heads(project.history, like.target)
    async with AsyncExitStack() as places:
        try:
            scratch = await places.enter_async_context(scratch_tenant(project, like, "base"))
        except DatabaseError as error:
            if len({tenant.server for tenant in project.fleet.tenants}) > 1:
                error.hint = "; ".join(filter(None, (error.hint, "or compare on another server: --like TENANT")))
            raise
        try:
            await bring(project, scratch, target)
        except Escaping as error:
            raise DatabaseError(
                f"no scratch tenant can be made: a revision {error.touched}, which real tenants share",
                hint=f"{error.hint}; or compare with a real tenant, which is only read:"
                f" alembic -x tenant={like.id} revision --autogenerate -m ...",
            ) from error
        yield scratch
