"""Fleets, readings and attempts as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from orchestrator.databases.answers import Reading
from orchestrator.fleet.fleet import Fleet, Policy, Wave
from orchestrator.fleet.tenant import Isolation, Tenant
from orchestrator.history.directory import History
from orchestrator.journal.records import Actor, AttemptRecord, RunRecord
from orchestrator.rollout.plan import Plan, PlannedTenant
from orchestrator.rollout.planning import Request, make_plan
from orchestrator.rollout.result import RunResult
from orchestrator.statuses import RunStatus, TenantStatus

TODAY = date(2026, 3, 1)
KIND = ("postgresql", "15")


def tenant(id: str, **keys: Any) -> Tenant:
    """A tenant with a schema of its name."""
    return Tenant(id, "main", Isolation.SCHEMA, id, **keys)


def plan(
    history: History,
    request: Request,
    tenants: Mapping[Tenant, Reading],
    *,
    waves: tuple[Wave, ...] = (),
    policy: Policy | None = None,
) -> Plan:
    """The plan for tenants that were read like this."""
    fleet = Fleet(Path("/srv/tenants.yaml"), {}, tuple(tenants), waves=waves, policy=policy or Policy())
    readings = {each.id: reading for each, reading in tenants.items()}
    return make_plan(request, fleet, fleet.tenants, readings, {"main": KIND}, history, TODAY)


def planned(history: History, request: Request, one: Tenant, reading: Reading) -> PlannedTenant:
    """What is planned for a single tenant."""
    return plan(history, request, {one: reading}).tenants[0]


def attempt(id: str, status: str = "failed", **error: Any) -> AttemptRecord:
    """How a tenant ended; ``error`` are the fields of its failure."""
    return AttemptRecord("run-1", id, "all", TenantStatus(status), error=error or None)


def result(*attempts: AttemptRecord) -> RunResult:
    """A run with these tenants."""
    actor = Actor("ann", "host", 1, None, None)
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    run = RunRecord("run-1", "upgrade", ("r1",), "heads", RunStatus.FAILED, moment, moment, actor)
    return RunResult(run, attempts)
