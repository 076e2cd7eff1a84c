"""What a run is to do for newcomers, as it begins, and from the journal when it is resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.actions.adoption import Adoption
from orchestrator.actions.project import Project
from orchestrator.actions.registrar import Registrar
from orchestrator.databases.claims import Claim, Marker
from orchestrator.databases.own_names import OURS
from orchestrator.errors import UsageError
from orchestrator.fleet.masking import MASK, mask
from orchestrator.fleet.newcomers import Newcomer, Newcomers, read_newcomers
from orchestrator.journal.records import RunRecord
from orchestrator.rollout.onboarding import Asked, Welcome
from orchestrator.rollout.seeding import read_seed


async def carried_on(project: Project, record: RunRecord) -> tuple[Project, Asked]:
    """What a run that onboards goes on with: the fleet as it will be, and what is asked for its new tenants.

    Args:
        project: opened.
        record: of the run.

    Raises:
        UsageError: an address had a secret in it, which the journal does not have.
    """
    options = record.options
    entries: Sequence[Mapping[str, Any]] = options["newcomers"]
    masked = next((entry["id"] for entry in entries if MASK in entry.get("url", "")), None)
    if masked is not None:
        raise UsageError(
            f"the address of {masked} had a password in it, which is in no journal",
            hint="give the same onboard command again: it goes on where this run ended",
        )
    given = read_newcomers(project.fleet, entries, f"run {record.id}", expand=options["expand"])
    project = project.joined_by(given.fleet)
    return project, await asked_of(project, given, options["seed"], adopt=options["adopt"])


async def asked_of(project: Project, given: Newcomers, seed: str | None, *, adopt: bool) -> Asked:
    """What a run is to do for newcomers.

    Raises:
        OrchestratorError: a seed cannot be read, or a place would have a name of ours.
    """
    onboarding = project.fleet.onboarding
    named = {
        each.tenant.id: onboarding.seed_named(seed if each.seed is None else each.seed) for each in given.newcomers
    }
    seeds = {
        name: await read_seed(onboarding.seeds[name]) for name in dict.fromkeys(named.values()) if name is not None
    }
    for each in given.newcomers:
        _refuse_our_names(each)
    identity = project.identity
    welcomes = {
        each.tenant.id: Welcome(
            Claim(
                Marker(identity, each.tenant.id, fresh=True),
                onboarding.owner,
                onboarding.extensions,
                None if adopt else named[each.tenant.id],
                onboarding.statements,
            ),
            each.listed,
        )
        for each in given.newcomers
    }
    registrar = Registrar(project)
    return Asked(welcomes, registrar.register, seeds, adopt=Adoption(project).adopt if adopt else None)


def _refuse_our_names(newcomer: Newcomer) -> None:
    tenant = newcomer.tenant
    for name in (tenant.schema, tenant.database):
        if name is not None and name.startswith(OURS):
            raise UsageError(f"{name} is a name that orchestrator keeps for itself", hint="give it another name")


def without_secrets(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry as the journal may have it."""
    return {key: mask(value) if key == "url" and isinstance(value, str) else value for key, value in entry.items()}
