"""A plan: who goes when, from where to where. Values; planning.py makes them, and they can be printed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from orchestrator.databases.failures import Failure
from orchestrator.fleet.fleet import FailureBudget, Wave
from orchestrator.fleet.tenant import Tenant
from orchestrator.fleet.waves import Order
from orchestrator.history.hazards import Hazard
from orchestrator.statuses import TenantStatus

#: What a wave is called when tenants.yaml has none, and the one for those that no wave took.
SINGLE_WAVE, LAST_WAVE = "all", "rest"

#: Verdicts on tenants that a run would be asked to migrate, and must not.
NOT_MIGRATED = frozenset({TenantStatus.BLOCKED, TenantStatus.FAILED, TenantStatus.PARTIAL})


@dataclass(frozen=True, slots=True)
class PlannedTenant:
    """One tenant as it was read, and what the run means to do with it."""

    tenant: Tenant
    #: Dialect and server version: part of what makes tenants alike.
    dialect: str
    version: str
    #: Heads as read; ``None`` when they could not be.
    heads: tuple[str, ...] | None
    #: How it was found (see ``status``).
    state: TenantStatus
    #: As typed on the command line, or the tenant's own.
    target: str
    #: What ``target`` stands for; the revisions it ends at where that is known beforehand.
    goal: tuple[str, ...]
    #: Revisions to run, in order.
    path: tuple[str, ...]
    #: ``pending`` when it is to be attempted; otherwise how it already ended.
    verdict: TenantStatus
    #: Why it is not attempted.
    failure: Failure | None = None
    #: A revision on its path keeps state in the process: it must not run beside another tenant.
    serial: bool = False

    def of(self, tenant: Tenant) -> PlannedTenant:
        """The same of another tenant."""
        return PlannedTenant(
            tenant,
            self.dialect,
            self.version,
            self.heads,
            self.state,
            self.target,
            self.goal,
            self.path,
            self.verdict,
            self.failure,
            self.serial,
        )


@dataclass(frozen=True, slots=True)
class PlannedWave:
    """One group of tenants, in the order in which they start."""

    name: str
    tenants: tuple[PlannedTenant, ...]
    budget: FailureBudget
    #: What tenants.yaml says of it.
    settings: Wave = field(default_factory=lambda: Wave(""))
    #: How many tenants it has, those included that an earlier part of the run has done; 0 for as many as ``tenants``.
    whole: int = 0

    @property
    def size(self) -> int:
        """How many tenants it has over all parts of the run: what percentages are of."""
        return max(self.whole, len(self.tenants))


class Kind(NamedTuple):
    """What makes tenants alike: see :class:`Cohort`."""

    dialect: str
    version: str
    start: tuple[str, ...]
    goal: tuple[str, ...]
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cohort:
    """Tenants that are alike: what is true of the work on one is true of all."""

    dialect: str
    version: str
    start: tuple[str, ...]
    goal: tuple[str, ...]
    path: tuple[str, ...]
    #: How many they are.
    tenants: int
    #: One of them.
    example: PlannedTenant


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a run will do, in order."""

    command: str
    #: As typed; ``None`` when each tenant goes to its own target.
    requested: str | None
    waves: tuple[PlannedWave, ...]
    hazards: tuple[Hazard, ...] = ()

    @property
    def tenants(self) -> tuple[PlannedTenant, ...]:
        """All tenants, in the order in which they start."""
        return tuple(tenant for wave in self.waves for tenant in wave.tenants)

    @property
    def pending(self) -> tuple[Tenant, ...]:
        """Those to be attempted."""
        return tuple(each.tenant for each in self.tenants if each.verdict is TenantStatus.PENDING)

    @property
    def target(self) -> tuple[str, ...]:
        """The revisions that tenants end at, sorted."""
        return tuple(sorted({revision for planned in self.tenants for revision in planned.goal}))

    @property
    def cohorts(self) -> tuple[Cohort, ...]:
        """Those to be attempted, grouped; the largest group first."""
        todo = [planned for planned in self.tenants if planned.verdict is TenantStatus.PENDING]
        example = {kind_of(planned): planned for planned in reversed(todo)}
        alike = Counter(kind_of(planned) for planned in todo)
        return tuple(Cohort(*kind, count, example[kind]) for kind, count in alike.most_common())

    def judged(self, judge: Callable[[PlannedTenant], PlannedTenant]) -> Plan:
        """The plan with what ``judge`` makes of each tenant; nobody goes, comes, or changes his turn."""
        return replace(self, waves=tuple(replace(each, tenants=tuple(map(judge, each.tenants))) for each in self.waves))

    def as_json(self) -> dict[str, Any]:
        """The document of ``plan --json``."""
        return {
            "target": list(self.target),
            "waves": [{"name": wave.name, "tenants": [each.tenant.id for each in wave.tenants]} for wave in self.waves],
            "cohorts": [
                {
                    "dialect": cohort.dialect,
                    "version": cohort.version,
                    "from": list(cohort.start),
                    "to": list(cohort.goal),
                    "revisions": list(cohort.path),
                    "tenants": cohort.tenants,
                }
                for cohort in self.cohorts
            ],
            "blocked": [
                {
                    "tenant": each.tenant.id,
                    "state": each.state,
                    "error": each.failure.as_json() if each.failure else None,
                }
                for each in self.tenants
                if each.verdict in NOT_MIGRATED
            ],
            "hazards": [
                {"revision": hazard.revision, "kind": hazard.kind, "detail": hazard.detail, "line": hazard.line}
                for hazard in self.hazards
            ],
        }


def in_order(plan: Plan, durations: Mapping[str, float]) -> Plan:
    """``plan`` with each wave in its order; by default, those who take long come first.

    Args:
        plan: with tenants in the fleet's order, which the others keep.
        durations: milliseconds that a tenant took in an earlier run, by id, of those who took long.
    """

    def ordered(wave: PlannedWave) -> PlannedWave:
        match wave.settings.order:
            case Order.LISTED:
                return wave
            case Order.NAME:
                tenants = sorted(wave.tenants, key=lambda each: each.tenant.id)
            case Order.LONGEST:
                tenants = sorted(wave.tenants, key=lambda each: -durations.get(each.tenant.id, 0))
        return replace(wave, tenants=tuple(tenants))

    return replace(plan, waves=tuple(ordered(wave) for wave in plan.waves))


def kind_of(planned: PlannedTenant) -> Kind:
    """What the tenant has in common with those that go the same way."""
    return Kind(planned.dialect, planned.version, planned.heads or (), planned.goal, planned.path)


def ids(tenants: Iterable[PlannedTenant]) -> list[str]:
    """Their identifiers, in order."""
    return [each.tenant.id for each in tenants]
