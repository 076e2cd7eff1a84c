"""One tenant's clone: up, down and up, measured, with a look at its shape wherever it stops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.actions.project import Project
from orchestrator.databases.beyond import Beyond
from orchestrator.databases.cloning import Clone
from orchestrator.databases.definitions import Definition
from orchestrator.databases.failures import Failure, describe
from orchestrator.databases.measuring import Contents, Meter
from orchestrator.databases.port.database import Database
from orchestrator.databases.postgresql.confinement import Confinement
from orchestrator.databases.sqlite.confinement import FileConfinement
from orchestrator.fleet.ignoring import IgnoreRule
from orchestrator.history.way_back import WayBack
from orchestrator.migration.attempt import Migrator
from orchestrator.migration.measured import Measured, to_the_end
from orchestrator.migration.outcome import Outcome
from orchestrator.migration.recording import OWN
from orchestrator.migration.work import Work
from orchestrator.rollout.differences import differences
from orchestrator.rollout.plan import PlannedTenant
from orchestrator.rollout.rehearsal import Back, CloneRehearsed, RevisionRehearsed
from orchestrator.rollout.telling import told
from orchestrator.statuses import TenantStatus

#: Revisions of which the definitions in between are kept, to tell what a downgrade leaves; of more, only the first.
_KEPT = 30
_DONE_FOR_REAL = "what it did outside its clone, if it did, was done for real"
_NOT_FURTHER = "rehearse up to the revision before it: orchestrator rehearse REVISION"
_NOT_READ = Failure("unreadable", "the clone's definitions could not be read")


@dataclass(frozen=True, slots=True)
class _Stand:
    """Where a clone stopped, and what it looked like there."""

    heads: tuple[str, ...]
    shape: str | None
    definitions: Sequence[Definition] | None


@dataclass(slots=True)
class Passes:
    """Runs the revisions of one tenant on its clone."""

    project: Project
    migrator: Migrator
    planned: PlannedTenant
    clone: Clone
    meter: Meter
    #: Go back, and up again.
    back: bool
    #: Statements may work outside the clone.
    allow_outside: bool
    #: The target is reached in one transaction, whatever stops in between are made here.
    one_transaction: bool
    #: Told of each step, for people.
    told: Callable[[str], None]
    #: Statements of which nobody has seen whether they stayed in the clone.
    unseen: list[str] = field(default_factory=list)
    _stands: list[_Stand] = field(default_factory=list)
    #: What the tables held before anything was done.
    _held: Contents | None = None

    async def run(self, result: CloneRehearsed) -> CloneRehearsed:
        """Go up, down and up.

        Args:
            result: what is known of the clone already.
        """
        if not self.planned.path:
            return replace(result, notes=(*result.notes, "it was migrated meanwhile, and has nothing pending any more"))
        unseen = tuple(each for each in (self.meter.no_locks, self.meter.no_wal) if each is not None)
        self._held = await self.meter.contents(self.project.loop.version_table) if self.back else None
        result = await self._all(replace(result, unseen=unseen))
        done = tuple(f"{each}: {_DONE_FOR_REAL}" for each in self.unseen)
        return replace(result, notes=(*result.notes, *done))

    async def _all(self, result: CloneRehearsed) -> CloneRehearsed:
        result = await self._up(result)
        if result.failure is not None or not self.back:
            return result
        result, at = await self._down(result)
        if at == 0:
            result = await self._compared(result)
        return await self._again(result, at)

    @property
    def _database(self) -> Database:
        return self.project.databases[self.clone.tenant.server]

    async def _up(self, result: CloneRehearsed) -> CloneRehearsed:
        """One revision at a time, to look at the clone in between."""
        revisions: list[RevisionRehearsed] = []
        self._stands.append(await self._stand(self.planned.heads or ()))
        work = Work.of(self.project.history, "upgrade", self.planned.target).limited(1)
        for number in range(1, len(self.planned.path) + 1):
            outcome, measured = await self._attempt(work)
            if outcome.status is not TenantStatus.SUCCEEDED or not measured.revisions:
                return replace(result, revisions=tuple(revisions), failure=_of_clone(outcome))
            one = measured.revisions[-1]
            self.told(f"up {number}/{len(self.planned.path)} {one.revision}: {one.duration_ms / 1000:.2f} s")
            revisions.append(RevisionRehearsed(one.revision, self.project.history.message(one.revision), one))
            self._stands.append(await self._stand(outcome.after or ()))
        if self.one_transaction:
            to_the_end([each.up for each in revisions])
        return replace(result, revisions=tuple(revisions))

    async def _down(self, result: CloneRehearsed) -> tuple[CloneRehearsed, int]:
        """Back as far as it goes; says how many revisions are left."""
        revisions = list(result.revisions)
        known: set[str] = set()
        for at in range(len(revisions), 0, -1):
            before, after = self._stands[at - 1], self._stands[at]
            one = revisions[at - 1]
            way = WayBack(after.heads, before.heads)
            outcome, measured = await self._attempt(Work.of(self.project.history, "rollback", str(way)))
            if outcome.status is not TenantStatus.SUCCEEDED or not measured.revisions:
                back = Back.NONE if outcome.status is TenantStatus.BLOCKED else Back.FAILED
                revisions[at - 1] = replace(one, back=back, failure=_of_clone(outcome))
                self.told(f"down {one.revision}: {'no way back' if back is Back.NONE else 'failed'}")
                return replace(result, revisions=tuple(revisions)), at
            down = measured.revisions[-1]
            self.told(f"down {one.revision}: {down.duration_ms / 1000:.2f} s")
            # What a later one has left is still there, and is not this one's.
            left = tuple(line for line in await self._left(before) if line not in known)
            known.update(left)
            back = Back.SAME if not left else Back.DIFFERENT
            revisions[at - 1] = replace(one, down=down, back=back, difference=left)
        return replace(result, revisions=tuple(revisions)), 0

    async def _compared(self, result: CloneRehearsed) -> CloneRehearsed:
        """Say whose rows are not what they were: the shape alone does not tell that a column came back empty."""
        assert self._held is not None
        now = await self.meter.contents(self.project.loop.version_table)
        changed = tuple(
            f"{table}: {count:,} rows before, {now.tables.get(table, (0, ''))[0]:,} after, not the same"
            for table, (count, total) in self._held.tables.items()
            if now.tables.get(table) != (count, total)
        )
        too_large = self._held.too_large
        notes = [f"too large for its rows to be compared: {', '.join(too_large)}"] if too_large else []
        return replace(result, changed=changed, notes=(*result.notes, *notes))

    async def _again(self, result: CloneRehearsed, at: int) -> CloneRehearsed:
        """All at once, as a run does it."""
        revisions = list(result.revisions)
        if at == len(revisions):
            return result
        outcome, measured = await self._attempt(Work.of(self.project.history, "upgrade", self.planned.target))
        by_name = {one.revision: one for one in measured.revisions}
        revisions = [replace(each, again=by_name.get(each.revision)) for each in revisions]
        result = replace(result, revisions=tuple(revisions))
        if outcome.status is not TenantStatus.SUCCEEDED:
            return replace(result, again_failure=_of_clone(outcome), again_same=False)
        self.told(f"up again: {outcome.duration_ms / 1000:.2f} s")
        took = sum(one.duration_ms for one in measured.revisions)
        return replace(
            result,
            again_same=not await self._left(self._stands[-1]),
            overhead_ms=max(outcome.duration_ms - measured.aside_ms - took, 0.0),
            replayable=_replayable(measured),
        )

    async def _attempt(self, work: Work) -> tuple[Outcome, Measured]:
        confinement: Confinement | FileConfinement
        if self._database.dialect == "postgresql":
            confinement = Confinement(OWN, place="clone", lenient=self.allow_outside, hint=_NOT_FURTHER)
        else:
            confinement = FileConfinement(place="clone", lenient=self.allow_outside, hint=_NOT_FURTHER)
        measured = Measured(meter=self.meter, version_table=self.project.loop.version_table, confinement=confinement)
        outcome = await self.migrator.attempt(self.clone.tenant, work, recording=measured)
        outcome = _as_refused(outcome, confinement.refused, measured)
        self.unseen += (each for each in confinement.unseen if each not in self.unseen)
        return outcome, measured

    async def _stand(self, heads: tuple[str, ...]) -> _Stand:
        kept = len(self.planned.path) <= _KEPT or not self._stands
        definitions = await self._definitions() if kept else None
        return _Stand(heads, await self._shape(), definitions)

    async def _shape(self) -> str | None:
        tenant, table = self.clone.tenant, self.project.loop.version_table
        return (await self._database.fingerprints([tenant], table)).get(tenant.id)

    async def _definitions(self) -> Sequence[Definition] | None:
        return (await self._database.definitions([self.clone.tenant])).get(self.clone.tenant.id)

    async def _left(self, before: _Stand) -> tuple[str, ...]:
        """What is not as it was, a line for each object; nothing where all is."""
        shape = await self._shape()
        if shape is not None and shape == before.shape:
            return ()
        if before.definitions is None:
            return ("its tables are not as they were",)
        now = await self._definitions()
        if now is None:
            return (_NOT_READ.message,)
        # Going back to base leaves the version table, empty, which was not there.
        rules = () if before.heads else (IgnoreRule(table=self.project.loop.version_table),)
        return tuple(told(change) for change in differences(before.definitions, now, rules))


def _of_clone(outcome: Outcome) -> Failure:
    """Why it ended, without what to do about a tenant of which that were true."""
    failure = outcome.failure or Failure("not_run", f"it ended as {outcome.status.value}")
    if outcome.status is TenantStatus.BLOCKED:
        return failure
    if failure.type == Beyond.__name__:
        return failure
    return replace(failure, hint="no tenant was touched: mend the revision, or this tenant, and rehearse again")


def _as_refused(outcome: Outcome, refused: Beyond | None, measured: Measured) -> Outcome:
    """What a revision was kept from, whatever it made of that: it may have caught the error, and gone on."""
    if refused is None:
        return outcome
    failure = describe(refused, measured.revisions[-1].revision if measured.revisions else None)
    return replace(outcome, status=TenantStatus.FAILED, failure=failure)


def _replayable(measured: Measured) -> frozenset[str]:
    """Revisions of which nothing was seen that speaks against sending others the same."""
    if measured.reason is not None:
        return frozenset()
    fine = (each for each in measured.transactions if each.reason is None)
    return frozenset(revision for each in fine for revision in each.step.revisions)
