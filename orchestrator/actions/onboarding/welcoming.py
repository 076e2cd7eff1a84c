"""What a run is to do for newcomers, as it begins, and from the journal when it is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from orchestrator.actions.onboarding.adoption import Adoption
from orchestrator.actions.onboarding.making import Made, make_fast, template_for
from orchestrator.actions.onboarding.pooling import pool_for
from orchestrator.actions.onboarding.registrar import Registrar
from orchestrator.actions.project import Project
from orchestrator.databases.claims import Claim, Marker, Template
from orchestrator.databases.own_names import OURS
from orchestrator.errors import UsageError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.masking import MASK, mask
from orchestrator.fleet.newcomers import Newcomer, read_newcomers
from orchestrator.fleet.selection import require_plain_ids
from orchestrator.fleet.tenant import Isolation, Limits, Tenant
from orchestrator.journal.records import RunRecord
from orchestrator.migration.outcome import Outcome
from orchestrator.migration.work import Work
from orchestrator.rollout.onboarding import Asked, Welcome
from orchestrator.rollout.seeding import read_seed
from orchestrator.statuses import TenantStatus


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Who is to come, as it was asked for."""

    #: Keys of a tenant as in tenants.yaml, and ``seed``.
    entries: tuple[Mapping[str, Any], ...]
    #: Name of the seed for those whose entry names none; ``None`` for the fleet's usual one, empty for no rows.
    seed: str | None = None
    #: Take in what is there already.
    adopt: bool = False
    #: Where they are from, for messages.
    origin: str = "the call"
    #: Whether ``${...}`` in an address means a secret.
    expand: bool = True

    def as_options(self) -> dict[str, Any]:
        """What the journal keeps for whoever resumes the run; no secrets."""
        entries = [
            {**each, "url": mask(each["url"])} if isinstance(each.get("url"), str) else each for each in self.entries
        ]
        return {"newcomers": entries, "seed": self.seed, "adopt": self.adopt, "expand": self.expand}

    @classmethod
    def of(cls, record: RunRecord) -> Arrivals:
        """Those of a run.

        Raises:
            UsageError: an address had a secret in it, which the journal does not have.
        """
        entries = tuple(record.options["newcomers"])
        masked = next((entry["id"] for entry in entries if MASK in entry.get("url", "")), None)
        if masked is not None:
            raise UsageError(
                f"the address of {masked} had a password in it, which is in no journal",
                hint="give the same onboard command again: it goes on where this run ended",
            )
        options = record.options
        return cls(entries, options["seed"], options["adopt"], f"run {record.id}", options["expand"])


@dataclass(frozen=True, slots=True)
class Expected:
    """Newcomers that a run can begin with."""

    #: With them in its fleet.
    project: Project
    tenants: tuple[Tenant, ...]
    asked: Asked
    newcomers: tuple[Newcomer, ...]
    #: Seeds that somebody has named, by tenant id; not the fleet's usual one.
    seeds_given: Mapping[str, str]


async def expected(project: Project, declared: Fleet, arrivals: Arrivals) -> Expected:
    """Make ready for ``arrivals``.

    Args:
        project: opened.
        declared: its fleet as loaded, sources unread.
        arrivals: who is to come.

    Raises:
        ConfigurationError: some are no tenants, or clash with others.
        OrchestratorError: a seed cannot be read, or a place would have a name of ours.
    """
    given = read_newcomers(project.fleet, arrivals.entries, arrivals.origin, expand=arrivals.expand)
    require_plain_ids(each.tenant.id for each in given.newcomers if not each.listed)
    project = project.joined_by(given.fleet)
    onboarding = project.fleet.onboarding
    named: dict[str, str | None] = {}
    for each in given.newcomers:
        _refuse_our_names(each.tenant)
        named[each.tenant.id] = onboarding.seed_named(arrivals.seed if each.seed is None else each.seed)
    seeds = {
        name: await read_seed(onboarding.seeds[name]) for name in dict.fromkeys(named.values()) if name is not None
    }

    def welcome(newcomer: Newcomer) -> Welcome:
        tenant = newcomer.tenant.id
        claim = Claim(
            marker=Marker(project.identity, tenant, fresh=True),
            owner=onboarding.owner,
            extensions=onboarding.extensions,
            statements=onboarding.statements,
        )
        return Welcome(claim, newcomer.listed, None if arrivals.adopt else named[tenant])

    asked = Asked(
        welcomes={each.tenant.id: welcome(each) for each in given.newcomers},
        register=Registrar(project, declared).register,
        seeds=seeds,
        fast=partial(_fast, project),
        template=partial(_template, project),
        pool=partial(pool_for, project),
        adopt=Adoption(project).adopt if arrivals.adopt else None,
    )
    seeds_given = {each.tenant.id: arrivals.seed if each.seed is None else each.seed for each in given.newcomers}
    return Expected(
        project,
        tuple(each.tenant for each in given.newcomers),
        asked,
        given.newcomers,
        {id: seed for id, seed in seeds_given.items() if seed is not None},
    )


async def _fast(project: Project, tenant: Tenant, work: Work) -> Outcome | None:
    if tenant.isolation is Isolation.DATABASE:
        # It was copied when it was made, or could not be.
        return None
    made = await make_fast(project, tenant, work.target, application="orchestrator onboard", limits=Limits())
    if not isinstance(made, Made):
        return None
    return Outcome(TenantStatus.SUCCEEDED, (), made.heads, duration_ms=made.duration_ms, path=made.way.value)


async def _template(project: Project, tenant: Tenant, work: Work) -> Template | None:
    if tenant.isolation is not Isolation.DATABASE or tenant.schema is not None:
        return None
    return await template_for(project, tenant, work.target)


def _refuse_our_names(tenant: Tenant) -> None:
    for name in (tenant.schema, tenant.database):
        if name is not None and name.startswith(OURS):
            raise UsageError(f"{name} is a name that orchestrator keeps for itself", hint="give it another name")
    if tenant.schema == "public" or tenant.database in ("postgres", "template0", "template1"):
        raise UsageError(
            f"{tenant.place} is PostgreSQL's own, and is not made for a tenant",
            hint="give it another place; one that is in use already can be written into tenants.yaml by hand",
        )
