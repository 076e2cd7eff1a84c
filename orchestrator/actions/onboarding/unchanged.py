"""What was given with a tenant that the fleet has already, and that onboarding it again does not change."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from orchestrator.actions.onboarding.welcoming import Expected
from orchestrator.fleet.newcomers import Newcomer
from orchestrator.fleet.tenant import Tenant
from orchestrator.journal.journal import Journal
from orchestrator.rollout.onboarding import ONBOARDED
from orchestrator.rollout.result import RunResult
from orchestrator.statuses import TenantStatus

log = logging.getLogger("orchestrator.onboard")

#: Ends after which a tenant would have its rows.
_THROUGH = (TenantStatus.SUCCEEDED, TenantStatus.ALREADY_CURRENT)


def warn_of_other_keys(arriving: Expected) -> None:
    """Say which keys given are not as the fleet has them: its entry stays as it is."""
    for newcomer in arriving.newcomers:
        for told in _other_keys(newcomer):
            where = arriving.project.fleet.origins.get(newcomer.tenant.id, "tenants.yaml")
            log.warning("%s is in the fleet already, %s; to change that, edit %s", newcomer.tenant.id, told, where)


async def warn_of_seeds(arriving: Expected, journal: Journal, result: RunResult) -> None:
    """Say whose seed was given and not sown, because the tenant was there; not where it is the one that it has."""
    ends = {attempt.tenant: attempt.status for attempt in result.tenants}
    listed = [newcomer.tenant.id for newcomer in arriving.newcomers if newcomer.listed]
    named = {id: arriving.seeds_given.get(id) for id in listed if ends.get(id) in _THROUGH}
    asked = {id: seed for id, seed in named.items() if seed}
    if not asked:
        return
    had = {event.tenant: (event.detail or {}).get("seed") for event in await journal.events(None, kind=ONBOARDED)}
    for id, seed in asked.items():
        if had.get(id) != seed:
            log.warning("%s is in the fleet already, and was not given the rows of seed %s", id, seed)


def _other_keys(newcomer: Newcomer) -> Iterator[str]:
    asked, there = newcomer.asked, newcomer.tenant
    for key in newcomer.keys if newcomer.listed else ():
        wanted, found = _value(asked, key), _value(there, key)
        if wanted != found:
            yield f"with {key} {_shown(found)}, and was not given {_shown(wanted)}"


def _value(tenant: Tenant, key: str) -> object:
    value = getattr(tenant, key, None)
    if value is None:
        value = getattr(tenant.limits, key, None)
    return sorted(value) if isinstance(value, tuple) else value


def _shown(value: object) -> str:
    return (", ".join(value) or "none") if isinstance(value, list) else "none" if value is None else str(value)
