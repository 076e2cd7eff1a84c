"""A run of another fleet: two tenants.yaml may share a journal, and have tenants of the same names.

Whoever goes on with a run by its id takes its tenants by their names. What the run met under a name is not what another
fleet has under it: production is not to be taken back because staging could not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from orchestrator.actions.places import ELSEWHERE, PLACES, SEEN, Place, blocked_elsewhere, known_places
from orchestrator.databases.failures import Failure
from orchestrator.errors import UsageError
from orchestrator.fleet.fleet import Fleet
from orchestrator.journal.journal import Journal
from orchestrator.journal.records import AttemptRecord, RunRecord
from orchestrator.rollout.next_commands import again_of
from orchestrator.rollout.plan import Plan, PlannedTenant

#: The option of a run that names its fleet; empty for one without a name. Runs from before it was written have none.
FLEET = "fleet"


def named(fleet: Fleet, record: RunRecord) -> RunRecord:
    """``record`` with the name of the fleet whose run it is."""
    return replace(record, options={**record.options, FLEET: fleet.name or ""})


def require_same_name(fleet: Fleet, record: RunRecord, way: str) -> None:
    """Refuse a run of a fleet that is called otherwise.

    Args:
        fleet: as loaded.
        record: the run.
        way: what to type where it is meant for this fleet all the same.

    Raises:
        UsageError: it is.
    """
    then, now = record.options.get(FLEET), fleet.name or ""
    if then is None or then == now:
        return
    was = f"fleet {then}" if then else "a fleet without a name"
    here = f"is of fleet {now}" if now else "has no name"
    raise UsageError(
        f"run {record.id} ({record.command}) is of {was}, and {fleet.path.name} {here}; nothing was touched",
        hint=f"name that fleet's file with --config; where this one is meant: {way}",
    )


async def met_places(journal: Journal, run: str, attempts: Iterable[AttemptRecord]) -> dict[str, frozenset[Place]]:
    """Where ``run`` met its tenants, by tenant id, also those that it was not about to migrate forwards.

    Not those that it could not read: an address or a name that was wrong has been mended since.
    """
    read = {attempt.tenant for attempt in attempts if attempt.from_heads is not None}
    moved, seen = await known_places(journal, run, PLACES), await known_places(journal, run, SEEN)
    found = {tenant: places for tenant, places in seen.items() if tenant in read}
    return {tenant: found.get(tenant, frozenset()) | moved.get(tenant, frozenset()) for tenant in found | moved}


def require_here(record: RunRecord, met: Iterable[str], moved: Mapping[str, Failure]) -> None:
    """Refuse a run that has met none of its tenants where they are by this fleet.

    Args:
        record: the run.
        met: tenants that it has met, and that the fleet has.
        moved: those of them that are elsewhere, each with what to say of it.

    Raises:
        UsageError: it has met some, and none of them here.
    """
    if not moved or set(met) - moved.keys():
        return
    tenant, failure = next(iter(moved.items()))
    more = f"; and {len(moved) - 1} more like it" if len(moved) > 1 else ""
    raise UsageError(
        f"run {record.id} ({record.command}) met none of its tenants where they are now: tenant {tenant}:"
        f" {failure.message}{more}; nothing was touched",
        hint="name the file of the fleet that it was for with --config; where they were moved, begin a new one:"
        f" {again_of(record)}",
    )


def left_elsewhere(plan: Plan, record: RunRecord, moved: Mapping[str, Failure]) -> Plan:
    """``plan`` of a run that is carried on, without work on tenants in ``moved``."""

    def anew(each: PlannedTenant) -> str:
        return f"where it was moved, begin anew with it: {again_of(record, [each.tenant.id])}"

    return blocked_elsewhere(plan, moved, anew)


def is_elsewhere(each: PlannedTenant) -> bool:
    """Whether a tenant is left alone for being elsewhere: this run has not met it there."""
    return each.failure is not None and each.failure.type == ELSEWHERE
