"""preflight: ask every tenant, before anything is run, whether its rows stand against it. Reads only."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect

from orchestrator.actions.execution import Execution
from orchestrator.actions.project import Project, migrating
from orchestrator.databases.failures import Failure, describe, shortened
from orchestrator.databases.probing import COUNTED, Answer, Probe, ProbeKind, ask
from orchestrator.fleet.secrets import mask
from orchestrator.fleet.tenant import Limits
from orchestrator.history.preflight import own_checks
from orchestrator.migration.attempt import Migrator
from orchestrator.migration.operations import Recorded, record
from orchestrator.migration.probes import NotProbed, probes_for
from orchestrator.rollout.plan import Cohort, Kind, Plan, PlannedTenant, kind_of
from orchestrator.statuses import TenantStatus

#: Timeouts of a probe where the command line says nothing: it must not hold up the application.
_LIMITS = Limits(2.0, 60.0, 60.0)
#: Percent signs are to come out single.
_DIALECTS: dict[str, Dialect] = {each.name: each(paramstyle="named") for each in (postgresql.dialect, sqlite.dialect)}
_NOT_THERE = "its schema, database or file does not exist yet"


@dataclass(frozen=True, slots=True)
class Offender:
    """A tenant that a revision would fail for."""

    tenant: str
    #: Offending rows, or keys.
    rows: int
    #: There are more than that.
    more: bool
    #: Some of them, where they were asked for.
    values: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """An entry of ``fails``."""
        return {"tenant": self.tenant, "rows": self.rows, "more": self.more, "values": list(self.values)}


@dataclass(frozen=True, slots=True)
class Probed:
    """One probe, and what the tenants said."""

    probe: Probe
    #: How many answered.
    tenants: int
    fails: tuple[Offender, ...]
    #: Tenants that gave no answer, and why.
    unanswered: tuple[tuple[str, Failure], ...]

    def as_json(self) -> dict[str, Any]:
        """An entry of ``probes``."""
        return {
            "revision": self.probe.revision,
            "kind": self.probe.kind.value,
            "subject": self.probe.subject,
            "message": self.probe.message,
            "tenants": self.tenants,
            "fails": [each.as_json() for each in self.fails],
            "unanswered": [{"tenant": tenant, "error": failure.as_json()} for tenant, failure in self.unanswered],
        }


@dataclass(frozen=True, slots=True)
class Unlooked:
    """What nobody looked at, and for how many tenants."""

    what: NotProbed
    tenants: int
    #: One of them.
    example: str

    def as_json(self) -> dict[str, Any]:
        """An entry of ``not_probed``."""
        return {
            "revision": self.what.revision,
            "subject": self.what.subject,
            "reason": self.what.reason,
            "not_there_yet": self.what.not_there_yet,
            "tenants": self.tenants,
            "example": self.example,
        }


@dataclass(frozen=True, slots=True)
class Preflight:
    """What looking at every tenant's rows found."""

    probes: tuple[Probed, ...]
    not_probed: tuple[Unlooked, ...]
    #: How many tenants were to be asked.
    tenants: int

    @property
    def failing(self) -> tuple[str, ...]:
        """Tenants that would fail."""
        return tuple(dict.fromkeys(each.tenant for probed in self.probes for each in probed.fails))

    @property
    def unanswered(self) -> tuple[str, ...]:
        """Tenants that could not be asked everything."""
        return tuple(dict.fromkeys(tenant for probed in self.probes for tenant, _ in probed.unanswered))

    @property
    def ready(self) -> bool:
        """Whether every probe was answered, and found nothing."""
        return not self.failing and not self.unanswered

    def as_json(self) -> dict[str, Any]:
        """The key ``preflight`` of ``plan --preflight --json``."""
        return {
            "ready": self.ready,
            "tenants": self.tenants,
            "probes": [each.as_json() for each in self.probes],
            "not_probed": [each.as_json() for each in self.not_probed],
        }


async def preflight(
    project: Project, made: Plan, execution: Execution, budgets: Mapping[str, tuple[str, int]], *, values: bool
) -> Preflight:
    """Ask every tenant that ``made`` would migrate.

    Args:
        project: opened.
        made: of an upgrade.
        execution: for ``jobs`` and timeouts.
        budgets: each server's physical identity and how many tenants it takes at once, by server name.
        values: show some of the offending rows.

    Raises:
        HistoryError: a revision's ``preflight`` is not a list of queries.
    """
    migrator = Migrator(
        project.fleet,
        project.history,
        project.loop,
        project.databases,
        application="orchestrator preflight",
        asked=execution.limits.over(_LIMITS),
    )
    ways = _ways(migrator, made.cohorts)
    todo = [planned for planned in made.tenants if planned.verdict is TenantStatus.PENDING]
    asking = _Asking(migrator, execution.at_once, budgets, values)
    answers = await asyncio.gather(*(asking.ask(planned, ways[kind_of(planned)][0]) for planned in todo))
    return _gathered(todo, ways, answers)


def _ways(migrator: Migrator, cohorts: Sequence[Cohort]) -> dict[Kind, tuple[list[Probe], list[NotProbed]]]:
    """What to ask the tenants of each kind, and what not; a revision is run through once for each dialect."""
    recorded: dict[tuple[str, str], Recorded] = {}
    ways = {}
    with migrating(migrator):
        for cohort in cohorts:
            for revision in cohort.path:
                if (cohort.dialect, revision) not in recorded:
                    recorded[cohort.dialect, revision] = record(migrator, cohort.example.tenant, revision)
            way = [recorded[cohort.dialect, revision] for revision in cohort.path]
            probes, not_probed = probes_for(way, _DIALECTS[cohort.dialect])
            own = [
                Probe(
                    revision, ProbeKind.OWN, shortened(check.sql), check.message or "found by its preflight", check.sql
                )
                for revision in cohort.path
                for check in own_checks(migrator.history, revision)
            ]
            at = {revision: number for number, revision in enumerate(cohort.path)}
            asked = sorted([*own, *probes], key=lambda probe: at[probe.revision])
            ways[kind_of(cohort.example)] = (asked, not_probed)
    return ways


class _Asking:
    """Asks no more tenants at once than their servers take."""

    def __init__(self, migrator: Migrator, jobs: int, budgets: Mapping[str, tuple[str, int]], values: bool) -> None:
        self._migrator = migrator
        self._values = values
        self._jobs = asyncio.Semaphore(jobs)
        self._budgets = budgets
        least: dict[str, int] = {}
        for identity, cap in budgets.values():
            least[identity] = min(cap, least.get(identity, cap))
        self._servers = {identity: asyncio.Semaphore(cap) for identity, cap in least.items()}

    async def ask(self, planned: PlannedTenant, probes: Sequence[Probe]) -> list[Answer]:
        """What a tenant says; what keeps it from answering is its answer."""
        tenant = planned.tenant
        if not probes:
            return []
        if planned.state is TenantStatus.UNPROVISIONED:
            return [Answer(missing=_NOT_THERE)] * len(probes)
        identity, _ = self._budgets[tenant.server]
        migrator = self._migrator
        async with self._servers[identity], self._jobs:
            try:
                database = migrator.databases[tenant.server]
                name, limits = migrator.connection_name(tenant), migrator.limits(tenant)
                async with database.session(tenant, name, limits) as session:
                    return await ask(session, database.dialect, probes, values=self._values)
            except Exception as error:
                return [Answer(failure=describe(error))] * len(probes)


def _gathered(
    todo: Sequence[PlannedTenant],
    ways: Mapping[Kind, tuple[list[Probe], list[NotProbed]]],
    answers: Sequence[Sequence[Answer]],
) -> Preflight:
    """The tenants' answers, by what was asked."""
    asked: dict[Probe, list[tuple[str, Answer]]] = {probe: [] for probes, _ in ways.values() for probe in probes}
    unlooked: dict[NotProbed, list[str]] = defaultdict(list)
    for planned, said in zip(todo, answers, strict=True):
        probes, not_probed = ways[kind_of(planned)]
        for what in not_probed:
            unlooked[what].append(planned.tenant.id)
        for probe, answer in zip(probes, said, strict=True):
            if answer.missing is None:
                asked[probe].append((planned.tenant.id, answer))
            else:
                subject = probe.subject if probe.kind is ProbeKind.OWN else f"{probe.kind} {probe.subject}"
                unlooked[NotProbed(probe.revision, subject, answer.missing)].append(planned.tenant.id)
    return Preflight(
        tuple(_probed(probe, said) for probe, said in asked.items()),
        tuple(Unlooked(what, len(tenants), tenants[0]) for what, tenants in unlooked.items()),
        len(todo),
    )


def _probed(probe: Probe, said: Sequence[tuple[str, Answer]]) -> Probed:
    fails = tuple(
        Offender(tenant, min(answer.rows, COUNTED), answer.rows > COUNTED, tuple(map(mask, answer.values)))
        for tenant, answer in said
        if answer.rows
    )
    unanswered = tuple((tenant, answer.failure) for tenant, answer in said if answer.failure is not None)
    return Probed(probe, len(said) - len(unanswered), fails, unanswered)
