"""Fleet: everything that tenants.yaml declares, as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestrator.fleet.hooks import Hook, Moment
from orchestrator.fleet.ignoring import IgnoreRule
from orchestrator.fleet.onboarding import Onboarding
from orchestrator.fleet.selection import Selection
from orchestrator.fleet.sources import Defaults, Source
from orchestrator.fleet.tenant import Limits, Server, Tenant
from orchestrator.fleet.waves import Approval, Check, OnFailure, Order
from orchestrator.statuses import Severity


@dataclass(frozen=True, slots=True)
class FailureBudget:
    """How many tenants may fail before no new one starts: a count, or a share of the wave."""

    #: Failures tolerated; 0 stops on the first one, ``None`` never stops.
    count: int | None = 0
    #: Failures tolerated in percent of the wave's tenants (0 to 100); wins over ``count`` where given.
    percent: float | None = None

    def allows(self, failures: int, tenants: int) -> bool:
        """Whether a wave of ``tenants`` tenants may go on after ``failures`` failures."""
        if self.percent is not None:
            return failures * 100 <= self.percent * tenants
        return self.count is None or failures <= self.count


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds for the whole fleet unless a server or the command line says otherwise."""

    #: Failures tolerated per wave.
    max_failures: FailureBudget = field(default_factory=FailureBudget)
    #: Timeouts for every statement of a migration.
    limits: Limits = field(default_factory=lambda: Limits(2.0, 3600.0, 60.0))
    #: Times a tenant is tried again after a lock timeout, a deadlock or a lost connection.
    retries: int = 5
    #: The run stops when so many tenants have failed for one cause; ``None`` for whatever the budget says.
    same_cause: int | None = None


@dataclass(frozen=True, slots=True)
class Wave:
    """One group of tenants in a run's order. What it does not select is left for the later ones."""

    name: str
    #: Whom it may take; an empty selection takes anyone.
    select: Selection = field(default_factory=Selection)
    #: Takes this share (0 to 100) of the run's tenants, rounded up; ``None`` for no such bound.
    percent: float | None = None
    #: Takes this many tenants at most; ``None`` for no such bound.
    count: int | None = None
    #: Failures tolerated in this wave; ``None`` for the policy's.
    max_failures: FailureBudget | None = None
    #: Tenants at once in this wave; ``None`` for no bound but the run's.
    jobs: int | None = None
    order: Order = Order.LONGEST
    #: What has to be true once it is through.
    verify: tuple[Check, ...] = ()
    #: Seconds between its end and the next wave, through restarts of the run.
    bake: float = 0.0
    #: Who lets the next wave begin; ``None`` for nobody in particular.
    approve: Approval | None = None
    on_failure: OnFailure = OnFailure.STOP


@dataclass(frozen=True, slots=True)
class Fleet:
    """The servers, the tenants written down, the sources that name more, and the rules for all of them."""

    #: tenants.yaml, absolute.
    path: Path
    servers: Mapping[str, Server]
    tenants: tuple[Tenant, ...]
    sources: tuple[Source, ...] = ()
    defaults: Defaults = field(default_factory=Defaults)
    policy: Policy = field(default_factory=Policy)
    waves: tuple[Wave, ...] = ()
    #: What is called before and after a run, a wave, a tenant.
    hooks: Mapping[Moment, tuple[Hook, ...]] = field(default_factory=dict)
    #: What new tenants get.
    onboarding: Onboarding = field(default_factory=Onboarding)
    #: How much rules of ``lint`` weigh, by name, where that is not as usual.
    lint_rules: Mapping[str, Severity] = field(default_factory=dict)
    #: What tells it from other fleets on the same servers; ``None`` where nobody says.
    name: str | None = None
    #: What `drift` does not look at.
    ignore: tuple[IgnoreRule, ...] = ()
    #: Database URL of the journal, a template's text; ``None`` for ``.orchestrator/journal.db`` beside tenants.yaml.
    journal: str | None = field(default=None, repr=False)

    #: Once the sources are read: where each tenant is from that is not written down, by id.
    origins: Mapping[str, Source] = field(default_factory=dict, repr=False, compare=False)

    @property
    def root(self) -> Path:
        """The directory that holds tenants.yaml; alembic.ini and the journal are looked for here."""
        return self.path.parent

    def server_of(self, tenant: Tenant) -> Server:
        """The physical server that ``tenant`` is on."""
        return self.servers[tenant.server]

    def with_tenants(
        self, tenants: tuple[Tenant, ...], servers: Mapping[str, Server], origins: Mapping[str, Source] | None = None
    ) -> Fleet:
        """This fleet with its sources read.

        Args:
            tenants: all there are.
            servers: all they are on.
            origins: where those are from that are not written down, by id; ``None`` for as it is known already.
        """
        known = self.origins if origins is None else origins
        return replace(self, tenants=tenants, servers=servers, sources=(), origins=known)
