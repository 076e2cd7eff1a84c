"""What a run does for new tenants beside migrating them: their place, their rows, their entry in the fleet."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from orchestrator.databases.answers import Reading
from orchestrator.databases.claims import Claim, Found, Holds, Marker, Pool, Template
from orchestrator.databases.dumping import taken
from orchestrator.databases.failures import Failure, describe
from orchestrator.databases.port.database import Session
from orchestrator.errors import OnboardingError, TenantLocked
from orchestrator.fleet.tenant import Tenant
from orchestrator.history.position import position
from orchestrator.journal.records import EventRecord
from orchestrator.migration.attempt import Migrator
from orchestrator.migration.outcome import Outcome
from orchestrator.migration.outside import Keep
from orchestrator.migration.scope import StepDone
from orchestrator.migration.work import Work
from orchestrator.rollout.seeding import NotSeeded, sow
from orchestrator.rollout.watching import Recorder
from orchestrator.statuses import TenantStatus

#: Kind of the journal's event that tells what an onboarded tenant was given.
ONBOARDED = "onboarded"
#: How a tenant was made that was copied, and one that was copied before it came.
TEMPLATE, POOL = "template", "pool"
#: Ends after which a tenant is where it is to be.
_THERE = (TenantStatus.SUCCEEDED, TenantStatus.ALREADY_CURRENT)


@dataclass(frozen=True, slots=True)
class Welcome:
    """What one new tenant is to be given."""

    claim: Claim
    #: The fleet has it already.
    listed: bool
    #: Name of the seed that it is to be given; ``None`` for none.
    seed: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run is to do for its new tenants."""

    #: By tenant id.
    welcomes: Mapping[str, Welcome]
    #: Writes a tenant down where the fleet has them, and says where that was.
    register: Callable[[Tenant], Awaitable[str]]
    #: What each seed is, by name: SQL, or a function.
    seeds: Mapping[str, str | Callable[..., Any]] = field(default_factory=dict)
    #: Ways to bring an empty place to its target that are faster than Alembic; ``None`` where none can be taken.
    fast: Callable[[Tenant, Work], Awaitable[Outcome | None]] | None = None
    #: Takes in what is there already, in the place of making it.
    adopt: Callable[[Tenant, Work], Awaitable[Outcome]] | None = None
    #: What a tenant's database is to be copied from; ``None`` for an empty one.
    template: Callable[[Tenant, Work], Awaitable[Template | None]] | None = None
    #: Where copies of that may be ready.
    pool: Callable[[Tenant, Template], Pool | None] | None = None


@dataclass(frozen=True, slots=True)
class Reception:
    """Receives the new tenants of one run.

    Every step may be the last of a killed process: the mark on the tenant's place says how far it has come, and the
    same command goes on from there. The entry in the fleet comes last but for the end of the mark, so that nobody is in
    the fleet half made.
    """

    run: str
    asked: Asked
    migrator: Migrator
    recorder: Recorder

    async def attempt(self, tenant: Tenant, work: Work, listener: Callable[[StepDone], None], keep: Keep) -> Outcome:
        """Make and receive ``tenant`` once. Raises nothing but cancellation, as :meth:`Migrator.attempt`."""
        welcome = self.asked.welcomes[tenant.id]
        before: Outcome | None = None
        try:
            found = await self._place(tenant, work, welcome)
            failure = _not_ours(tenant, found, welcome, adopting=self.asked.adopt is not None)
            if failure is not None:
                return Outcome(TenantStatus.BLOCKED, failure=failure)
            before = await self._made(tenant, work, found, listener, keep)
            if before.status not in _THERE:
                return before
            await self._handed_over(tenant, welcome, before)
            return before
        except TenantLocked as error:
            return Outcome(TenantStatus.LOCKED, failure=replace(describe(error), type="locked"))
        except NotSeeded as error:
            return _ended(before, TenantStatus.FAILED, error.failure)
        except Exception as error:
            # A lost connection comes as the driver's own error, and is tried again.
            return _ended(before, TenantStatus.FAILED, describe(error))

    async def _place(self, tenant: Tenant, work: Work, welcome: Welcome) -> Found:
        database = self.migrator.databases[tenant.server]
        if self.asked.adopt is not None:
            return await database.found(tenant)
        template = None if self.asked.template is None else await self.asked.template(tenant, work)
        pool = None if template is None or self.asked.pool is None else self.asked.pool(tenant, template)
        claim, wait = replace(welcome.claim, template=template, pool=pool), self.migrator.lock_wait
        found = await database.claim(tenant, claim, wait)
        if found.holds is Holds.FULL and not welcome.listed and await self._is_half_made(tenant, work, welcome):
            # What a killed revision has left outside its transaction, only an empty place is sure to be without.
            await database.drop(tenant, wait, partial(self._is_half_made, tenant, work, welcome))
            for step, _ in await self.recorder.open_steps(tenant.id):
                self.recorder.record_step(replace(step, done_at=datetime.now(UTC)))
            found = await database.claim(tenant, claim, wait)
        return found

    async def _is_half_made(self, tenant: Tenant, work: Work, welcome: Welcome) -> bool:
        """Whether the place was made by an onboarding that was cut off before the tenant was at its target.

        Nobody has been given it by then: it gets its rows, and its entry in the fleet, only at the target, and from
        then on its mark says so. Asked under the tenant's lock, nobody is at work on it either.
        """
        marker = (await self.migrator.databases[tenant.server].found(tenant)).marker
        if marker is None or not marker.is_of(welcome.claim.marker):
            return False
        if not marker.fresh or marker.found or marker.ready or marker.seeded is not None:
            return False
        reading = await self._reading(tenant)
        here = position(self.migrator.history, "upgrade", reading.heads, work.target)
        return reading.failure is None and here.status is TenantStatus.BEHIND

    async def _reading(self, tenant: Tenant) -> Reading:
        table = self.migrator.loop.version_table
        return (await self.migrator.databases[tenant.server].read([tenant], table))[tenant.id]

    async def _made(
        self, tenant: Tenant, work: Work, found: Found, listener: Callable[[StepDone], None], keep: Keep
    ) -> Outcome:
        if self.asked.adopt is not None:
            return await self.asked.adopt(tenant, work)
        if found.copied or found.taken:
            heads = (await self._reading(tenant)).heads
            if position(self.migrator.history, "upgrade", heads, work.target).status is TenantStatus.CURRENT:
                return Outcome(TenantStatus.SUCCEEDED, (), heads, path=POOL if found.taken else TEMPLATE)
        if self.asked.fast is not None and found.holds is not Holds.FULL:
            made = await self.asked.fast(tenant, work)
            if made is not None:
                return made
        return await self.migrator.attempt(tenant, work, listener, keep=keep)

    async def _handed_over(self, tenant: Tenant, welcome: Welcome, outcome: Outcome) -> None:
        """Give it its rows and its entry, under its lock: nobody takes it back meanwhile."""
        database, seed = self.migrator.databases[tenant.server], welcome.seed
        name, limits = self.migrator.connection_name(tenant), self.migrator.limits(tenant, self.migrator.tries)
        async with database.session(tenant, name, limits) as session:
            if not await taken(session.try_lock, self.migrator.lock_wait):
                holder = await session.lock_holder()
                raise TenantLocked(f"another process is at work on this tenant: {holder or 'holder unknown'}")
            # As it is now: another process may have come as far, or further.
            marker = await session.marker()
            ours = marker is not None and marker.is_of(welcome.claim.marker)
            if not ours and not welcome.listed and self.asked.adopt is None:
                raise OnboardingError(
                    f"somebody has taken {tenant.place} away while it was made", hint="give the same command again"
                )
            fresh = marker is not None and marker.fresh
            if marker is not None and fresh and not marker.ready:
                if seed is not None and marker.seeded is None:
                    marker = await sow(session, tenant, seed, self.asked.seeds[seed], marker)
                else:
                    marker = replace(marker, ready=True)
                    await _mark(session, marker)
            where = None if welcome.listed else await self.asked.register(tenant)
            if fresh or (marker is None and self.asked.adopt is not None):
                await _mark(session, (marker or welcome.claim.marker).handed_over())
        if fresh or where is not None:
            detail = {
                "place": tenant.place,
                "way": outcome.path,
                "seed": None if marker is None else marker.seeded,
                "registered": where,
            }
            self.recorder.record_event(EventRecord(self.run, tenant.id, datetime.now(UTC), ONBOARDED, detail=detail))


async def _mark(session: Session, marker: Marker) -> None:
    async with session.connection.begin():
        await session.mark(marker)


def _not_ours(tenant: Tenant, found: Found, welcome: Welcome, *, adopting: bool) -> Failure | None:
    """Why a tenant may not have the place that it is to have."""
    if found.marker is not None and not found.marker.is_of(welcome.claim.marker):
        whose = f"tenant {found.marker.tenant} of fleet {found.marker.fleet}"
        return Failure("taken", f"{tenant.place} belongs to {whose}", hint="give it another name or place")
    if found.marker is not None and not (found.marker.fresh or welcome.listed or adopting):
        return Failure(
            "taken",
            f"{tenant.place} is what a tenant of this name has left, who is not in the fleet any more",
            hint="give it another name or place; if it is the same one: orchestrator onboard ... --adopt",
        )
    if adopting and found.holds is Holds.MISSING:
        return Failure("unprovisioned", f"there is no {tenant.place} to adopt", hint="leave --adopt out to make it")
    if adopting or welcome.listed or found.marker is not None or found.holds is not Holds.FULL:
        return None
    return Failure(
        "taken",
        f"{tenant.place} is there already, and holds what was not made for this tenant",
        hint="give it another name or place; or take what is there as it is: orchestrator onboard ... --adopt",
    )


def _ended(before: Outcome | None, status: TenantStatus, failure: Failure) -> Outcome:
    return Outcome(status, failure=failure) if before is None else replace(before, status=status, failure=failure)
