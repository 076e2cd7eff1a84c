"""require: an application makes sure that its own tenant has a revision before it serves it.

Imports little, and reads nothing but that tenant's version table where that is enough: it runs while somebody waits.
"""

from __future__ import annotations

import asyncio
import shlex

from orchestrator.databases.answers import Reading
from orchestrator.databases.connect import connect
from orchestrator.databases.failures import describe
from orchestrator.errors import HistoryError, OrchestratorError, RevisionMissing, SelectionError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.nearest import did_you_mean
from orchestrator.fleet.tenant import Tenant
from orchestrator.targets import require_absolute

#: What Alembic calls the version table where env.py says nothing else.
_VERSION_TABLE = "alembic_version"


async def require(fleet: Fleet, tenant: Tenant | str, revision: str, *, version_table: str = _VERSION_TABLE) -> None:
    """Make sure that ``tenant`` has ``revision``, which is one of its heads or before one of them.

    Reads the tenant's version table over one connection. env.py is not run and no other tenant is asked. The shared
    directory is read only where the revision is not itself a head of the tenant, and the sources of tenants.yaml only
    where the tenant is given by an id that tenants.yaml does not list.

    Args:
        fleet: as loaded from tenants.yaml.
        tenant: its id, or itself.
        revision: a full identifier, which is quickest; or the start of one, ``label@head``, ``heads``.
        version_table: name of Alembic's version table, where env.py gives it another.

    Raises:
        RevisionMissing: the tenant does not have it, or that cannot be told: it could not be read (``heads`` is
            ``None``), it is at a revision that this directory does not have, or the directory has no such revision.
        UsageError: ``revision`` is blank, or counted from where the tenant is (``-1``): any tenant has that.
        OrchestratorError: there is no such tenant, or a source cannot be read.
    """
    require_absolute(revision)
    if isinstance(tenant, str):
        fleet, tenant = await _named(fleet, tenant)
    reading = await _read(fleet, tenant, version_table)
    about, option = f"tenant {tenant.id}", f"-t {shlex.quote(tenant.id)}"
    if reading.failure is not None:
        raise RevisionMissing(
            f"{about} could not be read, so that nobody knows whether it has {revision}: {reading.failure.message}",
            heads=None,
            hint=reading.failure.hint or f"look at it with: orchestrator status {option}",
        )
    heads = reading.heads
    if revision in heads:
        return
    if not reading.exists:
        raise RevisionMissing(
            f"{about} does not have {revision}: its schema, database or file does not exist",
            heads=heads,
            hint=f"make it: orchestrator upgrade --provision {option}",
        )
    # Imports Alembic and every revision file.
    at = ", ".join(heads) or "no revision"
    try:
        missing, unknown = await asyncio.to_thread(_missing, fleet, heads, revision)
    except HistoryError as error:
        raise RevisionMissing(
            f"{about} is at {at}, and nobody knows whether it has {revision}: {error.message}",
            heads=heads,
            hint=error.hint,
        ) from error
    if not missing:
        return
    if unknown:
        raise RevisionMissing(
            f"{about} is at {at}; {', '.join(unknown)} is not in this directory, so that nobody knows whether it has"
            f" {revision}",
            heads=heads,
            hint="deploy the application with the directory that the tenant was migrated with",
        )
    raise RevisionMissing(
        f"{about} is at {at} and does not have {revision}",
        heads=heads,
        hint=f"migrate it first: orchestrator upgrade {revision} {option}",
    )


async def _named(fleet: Fleet, name: str) -> tuple[Fleet, Tenant]:
    """The tenant, and the fleet with its server: a source may name one that tenants.yaml does not."""
    for tenant in fleet.tenants:
        if tenant.id == name:
            return fleet, tenant
    whole = fleet
    if fleet.sources:
        from orchestrator.actions.servers import opened_servers

        async with opened_servers(fleet) as servers:
            whole = await servers.fleet()
    for tenant in whole.tenants:
        if tenant.id == name:
            return whole, tenant
    near = did_you_mean(name, [tenant.id for tenant in whole.tenants])
    hint = f"did you mean {near!r}?" if near else "see which there are: orchestrator tenants list"
    raise SelectionError(f"no tenant {name!r} in {fleet.path.name}", hint=hint)


async def _read(fleet: Fleet, tenant: Tenant, version_table: str) -> Reading:
    database = connect(fleet.server_of(tenant))
    try:
        return (await database.read([tenant], version_table))[tenant.id]
    except OrchestratorError as error:
        return Reading(exists=True, failure=describe(error))
    finally:
        await database.close()


def _missing(fleet: Fleet, heads: tuple[str, ...], revision: str) -> tuple[frozenset[str], tuple[str, ...]]:
    """What is lacking to have ``revision``, and those heads that the directory does not have."""
    from orchestrator.history.directory import History

    history = History.beside(fleet.root)
    wanted = frozenset(history.resolve(revision))
    unknown = history.graph.unknown(heads)
    return wanted - history.graph.closure(head for head in heads if head not in unknown), unknown
