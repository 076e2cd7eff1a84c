"""Planning: from where tenants were found and what is asked to who goes when. Pure: made from values, no IO."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from orchestrator.databases.answers import Reading
from orchestrator.databases.failures import Failure
from orchestrator.errors import HistoryError, UsageError
from orchestrator.fleet.fleet import FailureBudget, Fleet, Wave
from orchestrator.fleet.tenant import Tenant
from orchestrator.history.directory import History
from orchestrator.history.hazards import ON_DOWNGRADE, ON_UPGRADE, Hazard
from orchestrator.history.position import direction_of, position
from orchestrator.history.way_back import WayBack
from orchestrator.migration.outcome import blocked
from orchestrator.rollout.plan import (
    LAST_WAVE,
    SINGLE_WAVE,
    Plan,
    PlannedTenant,
    PlannedWave,
)
from orchestrator.statuses import TenantStatus
from orchestrator.targets import is_relative, require_named

#: What to do where a tenant's place is missing.
_MAKE = "create it, or let upgrade do it with --provision"


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked of the fleet."""

    #: ``upgrade``, ``onboard``, ``downgrade``, ``rollback`` or ``stamp``.
    command: str
    #: As typed; ``None`` and ``heads`` for each tenant's own target; the run that a rollback takes back.
    target: str | None = None
    #: Make missing schemas, databases and files.
    provision: bool = False
    #: Failures tolerated per wave; ``None`` for what tenants.yaml says.
    budget: FailureBudget | None = None
    #: Only the tenants of this wave; ``None`` for all.
    wave: str | None = None
    #: Targets that an earlier part of the run has fixed, by tenant id: ``-1`` is counted once. For a rollback, each
    #: tenant's way back.
    fixed: Mapping[str, str] = field(default_factory=dict)
    #: In place of the waves of tenants.yaml; ``None`` for those.
    waves: tuple[Wave, ...] | None = None
    #: The wave that an earlier part of the run has given each tenant to, by tenant id.
    dealt: Mapping[str, str] = field(default_factory=dict)
    #: Waves that are to be closed, whether or not they have tenants left.
    unclosed: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Refuse a target that was meant to say something and says nothing.

        Raises:
            UsageError: it is blank.
        """
        if self.target is not None and self.command != "rollback":
            require_named(self.target)


def make_plan(
    request: Request,
    fleet: Fleet,
    tenants: Sequence[Tenant],
    readings: Mapping[str, Reading],
    kinds: Mapping[str, tuple[str, str]],
    history: History,
    today: date,
) -> Plan:
    """Decide what a run would do.

    Args:
        request: what was asked.
        fleet: for waves, budgets and servers.
        tenants: those selected, in the fleet's order.
        readings: what was found of each, by tenant id.
        kinds: dialect and server version of each server, by name; a server that gave no connection may be missing.
        history: the shared directory.
        today: decides which pins still hold.

    Raises:
        HistoryError: the target is not in the directory.
        UsageError: no such wave.
    """
    planned = dict(_planned(request, tenants, readings, kinds, history, today))
    declared = fleet.waves if request.waves is None else request.waves
    whole = Counter(request.dealt.values())
    waves = tuple(
        PlannedWave(
            wave.name,
            tuple(planned[tenant.id] for tenant in members),
            _budget(request, fleet, wave),
            wave,
            whole[wave.name],
        )
        for wave, members in assign_waves(declared, tenants, request.dealt)
        if members or wave.name in request.unclosed
    )
    if request.wave is not None:
        waves = tuple(wave for wave in waves if wave.name == request.wave)
        if not waves:
            known = [wave.name for wave in declared]
            raise UsageError(
                f"no wave {request.wave!r} with a selected tenant in it",
                hint=f"waves in {fleet.path.name}: {', '.join(known) or 'none'}",
            )
    revisions = list(dict.fromkeys(revision for wave in waves for each in wave.tenants for revision in each.path))
    return Plan(request.command, request.target, waves, _hazards(request, history, revisions))


def _planned(
    request: Request,
    tenants: Sequence[Tenant],
    readings: Mapping[str, Reading],
    kinds: Mapping[str, tuple[str, str]],
    history: History,
    today: date,
) -> Iterator[tuple[str, PlannedTenant]]:
    """Each tenant's id and what is decided about it; once for all that are alike in whatever it depends on."""
    known: dict[tuple[object, ...], PlannedTenant] = {}
    for tenant in tenants:
        reading, kind = readings[tenant.id], kinds.get(tenant.server, ("", ""))
        told = (tenant.target, tenant.pin, tenant.until, request.fixed.get(tenant.id))
        alike = (reading.heads, reading.exists, reading.failure, kind, *told)
        like = known.get(alike)
        if like is None:
            like = known[alike] = plan_tenant(request, tenant, reading, kind, history, today)
        yield tenant.id, like.of(tenant)


def _hazards(request: Request, history: History, revisions: Sequence[str]) -> tuple[Hazard, ...]:
    if request.command == "onboard":
        # Nothing is lost of who has nothing yet, and looking through a whole history takes as long as making a tenant.
        return ()
    relevant = ON_DOWNGRADE if direction_of(request.command) == "downgrade" else ON_UPGRADE
    return tuple(hazard for hazard in history.hazards(revisions) if hazard.kind in relevant)


def _unprovisioned(request: Request, tenant: Tenant) -> Failure:
    """A tenant's place is missing, and this request does not make it."""
    hint = _MAKE
    if request.command in ("downgrade", "rollback"):
        hint = f"there is nothing to take back; see where it should be: orchestrator tenants show {tenant.id}"
    elif request.command == "stamp" and request.target not in (None, "base"):
        # At that revision it is then what the stamp was to say.
        words = ["orchestrator", "upgrade", str(request.target), "--provision", "-t", tenant.id]
        hint = f"stamp makes nothing; create it, or make it at that revision: {shlex.join(words)}"
    return Failure("unprovisioned", "its schema, database or file does not exist", hint=hint)


def plan_tenant(
    request: Request, tenant: Tenant, reading: Reading, kind: tuple[str, str], history: History, today: date
) -> PlannedTenant:
    """Decide about one tenant. Also what ``status`` shows, for a request to upgrade."""
    forwards = direction_of(request.command) == "upgrade"
    pinned = tenant.pin is not None and (tenant.until is None or today < tenant.until) and forwards
    # `heads` is what upgrade means without a word, and plain Alembic has to be told a word: it must not put the others'
    # branches into a tenant that has one of its own.
    typed = None if request.target == "heads" else request.target
    asked = tenant.pin if pinned and tenant.pin is not None else tenant.target if typed is None else typed
    target = request.fixed.get(tenant.id, asked)
    back = request.command == "rollback"
    relative = is_relative(target)
    if back:
        goal = WayBack.parse(target).goal
    else:
        goal = () if relative else _goal(history, tenant, target, own=pinned or typed is None)

    def planned(
        state: TenantStatus, verdict: TenantStatus, failure: Failure | None = None, path: tuple[str, ...] = ()
    ) -> PlannedTenant:
        heads = reading.heads if reading.failure is None else None
        serial = history.has_globals(path)
        if not (relative and path):
            return PlannedTenant(tenant, *kind, heads, state, target, goal, path, verdict, failure, serial)
        # Counted once, from where the tenant is now: a second try or a resume counts from somewhere else.
        end = _end(history, request.command, reading.heads, path)
        fixed = _fixed(target, reading.heads, end)
        if fixed is None:
            ends = ", ".join(end)
            failure = Failure("diverged", f"{target} ends at several revisions: {ends}", hint="name one of them")
            return PlannedTenant(tenant, *kind, heads, state, target, end, path, TenantStatus.BLOCKED, failure)
        return PlannedTenant(tenant, *kind, heads, state, fixed, end, path, verdict, failure, serial)

    if reading.failure is not None:
        return planned(TenantStatus.UNREACHABLE, TenantStatus.FAILED, reading.failure)
    here = position(history, request.command, reading.heads, target)
    if not reading.exists:
        if forwards and request.provision:
            return planned(TenantStatus.UNPROVISIONED, TenantStatus.PENDING, path=here.path)
        return planned(TenantStatus.UNPROVISIONED, TenantStatus.BLOCKED, _unprovisioned(request, tenant), here.path)
    if here.problem is not None:
        return planned(here.status, TenantStatus.BLOCKED, blocked(here), here.path)
    if request.command == "onboard":
        # Also those at their target: what comes after that may have been cut off.
        return planned(here.status, TenantStatus.PENDING, path=here.path)
    if pinned and here.status in (TenantStatus.CURRENT, TenantStatus.AHEAD):
        return planned(TenantStatus.PINNED, TenantStatus.SKIPPED)
    if here.path or here.status is TenantStatus.BEHIND:
        return planned(here.status, TenantStatus.PENDING, path=here.path)
    ahead = here.status is TenantStatus.AHEAD
    return planned(here.status, TenantStatus.SKIPPED if ahead else TenantStatus.ALREADY_CURRENT)


def _goal(history: History, tenant: Tenant, target: str, *, own: bool) -> tuple[str, ...]:
    try:
        return history.resolve(target)
    except HistoryError as error:
        if not own:
            raise
        raise HistoryError(f"tenant {tenant.id}, in tenants.yaml: {error.message}", hint=error.hint) from error


def _end(history: History, command: str, heads: tuple[str, ...], path: tuple[str, ...]) -> tuple[str, ...]:
    """Where a relative target ends: the heads once ``path`` has been run."""
    applied = history.graph.closure(heads)
    return history.graph.tips(applied - set(path) if command == "downgrade" else applied | set(path))


def _fixed(target: str, heads: tuple[str, ...], end: tuple[str, ...]) -> str | None:
    """A relative target as the one revision that it ends at; ``None`` where that is not one."""
    moved = [revision for revision in end if revision not in heads]
    if len(moved) == 1:
        return moved[0]
    label, at, _ = target.rpartition("@")
    if not moved and (at or not end):
        return f"{label}@base" if at else "base"
    return None


def assign_waves(
    waves: Sequence[Wave], tenants: Sequence[Tenant], dealt: Mapping[str, str] | None = None
) -> list[tuple[Wave, list[Tenant]]]:
    """Give every tenant to exactly one wave: each wave takes what it selects from those that are left.

    Args:
        waves: in order.
        tenants: who is to be given to one.
        dealt: the wave that an earlier part of the run has given each tenant to, which it keeps, by tenant id.

    Returns:
        The waves in order, also those without a tenant; those that no wave takes come last, as ``rest``.
    """
    if dealt:
        return _as_dealt(waves, tenants, dealt)
    left = list(tenants)
    assigned: list[tuple[Wave, list[Tenant]]] = []
    for wave in waves:
        eligible = list(wave.select.filter(left, tenants))
        bound = min(
            len(eligible),
            len(eligible) if wave.count is None else wave.count,
            len(eligible) if wave.percent is None else math.ceil(len(tenants) * wave.percent / 100),
        )
        members = eligible[:bound]
        taken = {tenant.id for tenant in members}
        left = [tenant for tenant in left if tenant.id not in taken]
        assigned.append((wave, members))
    if left:
        assigned.append((Wave(LAST_WAVE if waves else SINGLE_WAVE), left))
    return assigned


def _as_dealt(
    waves: Sequence[Wave], tenants: Sequence[Tenant], dealt: Mapping[str, str]
) -> list[tuple[Wave, list[Tenant]]]:
    """Each to its own; waves that tenants.yaml no longer has come last, in the order in which they were."""
    last = LAST_WAVE if waves else SINGLE_WAVE
    known = {wave.name: wave for wave in waves}
    names = dict.fromkeys([*known, *(name for name in dealt.values() if name != last), last])
    members: dict[str, list[Tenant]] = {name: [] for name in names}
    for tenant in tenants:
        members[dealt.get(tenant.id, last)].append(tenant)
    return [(known.get(name, Wave(name)), members[name]) for name in names]


def last_wave(waves: Sequence[Wave], present: Collection[str]) -> str | None:
    """The wave of a run that nothing follows.

    Args:
        waves: as declared, in order.
        present: names of those that the run has; ones that are not declared any more come before the last.
    """
    names = [*(wave.name for wave in waves), LAST_WAVE, SINGLE_WAVE]
    return max(present, key=lambda name: names.index(name) if name in names else -1, default=None)


def _budget(request: Request, fleet: Fleet, wave: Wave) -> FailureBudget:
    return request.budget or wave.max_failures or fleet.policy.max_failures
