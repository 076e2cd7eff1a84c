"""What tenants are held against: one of nobody's that the shared directory makes, or a real one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass

from orchestrator.actions.project import Project
from orchestrator.actions.scratch import bring, scratch_tenant
from orchestrator.databases.definitions import Definition
from orchestrator.databases.failures import Failure
from orchestrator.errors import DatabaseError, OrchestratorError
from orchestrator.fleet.tenant import Tenant
from orchestrator.history.chains import chains


@dataclass(frozen=True, slots=True)
class Reference:
    """What a tenant at certain heads should look like, for as long as it is there to be looked at."""

    tenant: Tenant
    heads: tuple[str, ...]
    digest: str

    async def definitions(self, project: Project) -> Sequence[Definition]:
        """All of it.

        Raises:
            DatabaseError: it can no longer be read.
        """
        found = await project.databases[self.tenant.server].definitions([self.tenant])
        if self.tenant.id not in found:
            raise DatabaseError(f"the reference {self.tenant.id} cannot be read", hint="try again")
        return found[self.tenant.id]


async def made_references(
    project: Project, like: Tenant, places: Iterable[tuple[str, ...]]
) -> AsyncGenerator[Reference | tuple[tuple[str, ...], Failure], None]:
    """References by the shared directory alone, one after the other; the one before is gone when the next one comes.

    One scratch tenant passes all places that are on one line.

    Args:
        project: opened.
        like: a tenant; scratch ones are of its kind, and beside it.
        places: sets of heads, all of them known to the directory.

    Yields:
        A reference for each place, or the place and why there is none.
    """
    for line in chains(project.history.graph, places):
        failure = None
        done: set[tuple[str, ...]] = set()
        try:
            async with scratch_tenant(project, like, "base") as scratch:
                for heads in line:
                    if heads:
                        # Together: from one of two branches, no path leads to the other.
                        await bring(project, scratch, ",".join(heads))
                    reference = await _seen(project, scratch, heads)
                    done.add(heads)
                    yield reference
        except OrchestratorError as error:
            hint = f"{error.hint or 'mend that'}; or take a tenant that is right: orchestrator drift --against TENANT"
            failure = Failure("no_reference", error.message, hint=hint)
        for heads in line:
            if failure is not None and heads not in done:
                yield heads, failure


async def _seen(project: Project, scratch: Tenant, heads: tuple[str, ...]) -> Reference:
    database, table = project.databases[scratch.server], project.loop.version_table
    graph = project.history.graph
    arrived = (await database.read([scratch], table))[scratch.id].heads
    if graph.unknown(arrived) or graph.closure(arrived) != graph.closure(heads):
        raise DatabaseError(f"the revisions lead an empty tenant to {', '.join(arrived)}, not to {', '.join(heads)}")
    digest = (await database.fingerprints([scratch], table)).get(scratch.id)
    if digest is None:
        raise DatabaseError(f"what the revisions make at {', '.join(heads) or 'base'} cannot be read")
    return Reference(scratch, heads, digest)
