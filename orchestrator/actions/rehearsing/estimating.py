"""How long the whole run would take, from what the clones took, and from how large everybody's tables are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from orchestrator.actions.project import Project
from orchestrator.actions.rehearsing.choosing import footprints
from orchestrator.databases.sizes import Size
from orchestrator.migration.measured import RevisionMeasured
from orchestrator.rollout.cohorts import PROOFS
from orchestrator.rollout.forecast import Rate, Sample, Takes, fitted, run_time, takes
from orchestrator.rollout.plan import Plan, PlannedTenant, kind_of
from orchestrator.rollout.rehearsal import CloneRehearsed, Estimate, RevisionRehearsed
from orchestrator.statuses import TenantStatus

#: Milliseconds that a tenant takes beside its revisions: through Alembic, where no clone told, and replayed (measured:
#: 1.5 to 1.9 on one connection, the revision included).
_BESIDE, _BESIDE_REPLAYED = 15.0, 1.0
#: How many times as large as every clone a tenant may be, and how many bytes it has to have to matter.
_BEYOND = (3, 1_000_000)


async def estimated(
    project: Project, plan: Plan, clones: Sequence[CloneRehearsed], empty: CloneRehearsed | None
) -> Estimate:
    """Estimate a run of ``plan``.

    Args:
        project: opened.
        plan: of the upgrade, for the whole fleet.
        clones: of real tenants.
        empty: a clone without rows; ``None`` where there was none.
    """
    pending = [each for each in plan.tenants if each.verdict is TenantStatus.PENDING]
    tables = touched(clones)
    sizes = await _sizes(project, pending, tables)
    samples: dict[str, list[Sample]] = {}
    for clone in (*clones, *([empty] if empty is not None else [])):
        theirs = {} if clone is empty else sizes.get(clone.tenant, {})
        for one in clone.revisions:
            for measured in alike(one):
                sample = Sample(theirs.get(one.revision, 0), measured.duration_ms, measured.sql_ms)
                samples.setdefault(one.revision, []).append(sample)
    rates = {revision: fitted(each) for revision, each in samples.items()}
    budgets = await project.budgets([each.tenant for each in pending])
    caps: dict[str, int] = {}
    for identity, cap in budgets.values():
        caps[identity] = min(cap, caps.get(identity, cap))
    overheads = [clone.overhead_ms for clone in (*clones, empty) if clone is not None and clone.overhead_ms is not None]
    beside = min(overheads, default=_BESIDE)
    replayed = _replayed(project, pending, clones)
    found = {
        each.tenant.id: takes(
            each.tenant.id,
            budgets[each.tenant.server][0],
            each.path,
            rates,
            sizes.get(each.tenant.id, {}),
            replayed.get(each.tenant.id, frozenset()),
            (beside, min(beside, _BESIDE_REPLAYED)),
        )
        for each in pending
    }
    known = {tenant: each for tenant, each in found.items() if each is not None}
    waves = [[known[each.tenant.id] for each in wave.tenants if each.tenant.id in known] for wave in plan.waves]
    return Estimate(
        takes=tuple(known.values()),
        time=run_time([_longest_first(wave) for wave in waves], caps) if known else None,
        caps=caps,
        unknown=len(pending) - len(known),
        not_rehearsed=_not_rehearsed(pending, rates),
        beyond=_beyond(sizes, [clone.tenant for clone in clones if clone.revisions]),
        bake=sum(wave.settings.bake for wave in plan.waves),
    )


def alike(one: RevisionRehearsed) -> Iterator[RevisionMeasured]:
    """The times that a revision went up with the same to do.

    A revision that changes rows may find them changed already when it goes up again, and be done at once.
    """
    yield one.up
    if one.again is not None and one.again.written == one.up.written:
        yield one.again


def touched(clones: Iterable[CloneRehearsed]) -> dict[str, frozenset[str]]:
    """Tables that each revision has locked, written or made anew, as the clones have shown it; by revision."""
    found: dict[str, set[str]] = {}
    for clone in clones:
        for one in clone.revisions:
            for measured in (one.up, one.again):
                if measured is not None:
                    names = found.setdefault(one.revision, set())
                    names.update(lock.table for lock in measured.locks)
                    names.update(name for name in measured.written if name)
                    names.update(each.table for each in measured.rewritten)
    return {revision: frozenset(names) for revision, names in found.items()}


async def _sizes(
    project: Project, pending: Sequence[PlannedTenant], tables: Mapping[str, frozenset[str]]
) -> dict[str, dict[str, int]]:
    """Bytes of the tables that each revision touches, by tenant and revision."""
    everything = frozenset().union(*tables.values()) if tables else frozenset()
    found: dict[str, dict[str, int]] = {}
    for server in dict.fromkeys(each.tenant.server for each in pending):
        here, database = [each for each in pending if each.tenant.server == server], project.databases[server]
        if database.dialect == "sqlite":
            # Nobody tells which tables a revision touches: the file stands for them.
            whole = await footprints(project, here)
            for each in here:
                size = whole[each.tenant.id].bytes if each.tenant.id in whole else 0
                found[each.tenant.id] = dict.fromkeys(each.path, size)
            continue
        measured = await database.sizes([each.tenant for each in here], everything) if everything else {}
        for each in here:
            theirs: Mapping[str, Size] = measured.get(each.tenant.id, {})
            found[each.tenant.id] = {
                revision: sum(theirs[name].bytes or 0 for name in tables.get(revision, ()) if name in theirs)
                for revision in each.path
            }
    return found


def _replayed(
    project: Project, pending: Sequence[PlannedTenant], clones: Sequence[CloneRehearsed]
) -> dict[str, frozenset[str]]:
    """Revisions that a run would send to a tenant as they were recorded on two others, by tenant id."""
    replayable = frozenset().union(*(clone.replayable for clone in clones)) if clones else frozenset()
    alike = Counter(kind_of(each) for each in pending)
    seen: Counter[object] = Counter()
    found = {}
    for each in pending:
        kind = kind_of(each)
        seen[kind] += 1
        # The first two are those that are recorded.
        if project.databases[each.tenant.server].replays and alike[kind] > PROOFS and seen[kind] > PROOFS:
            found[each.tenant.id] = replayable - project.history.impurities(each.path, "upgrade").keys()
    return found


def _beyond(sizes: Mapping[str, Mapping[str, int]], cloned: Sequence[str]) -> tuple[str, float] | None:
    """The largest tenant, where what its revisions touch is much more than of any that was cloned."""
    totals = {tenant: sum(each.values()) for tenant, each in sizes.items()}
    known = max((totals.get(tenant, 0) for tenant in cloned), default=0)
    largest = max(totals, key=lambda tenant: totals[tenant], default=None)
    if largest is None or not known or totals[largest] < _BEYOND[0] * known or totals[largest] < _BEYOND[1]:
        return None
    return largest, totals[largest] / known


def _longest_first(wave: Sequence[Takes]) -> list[Takes]:
    """As a run orders those whose durations it knows."""
    return sorted(wave, key=lambda each: -each.ms)


def _not_rehearsed(pending: Sequence[PlannedTenant], rates: Mapping[str, Rate]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(revision for each in pending for revision in each.path if revision not in rates))
