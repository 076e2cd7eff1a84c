"""One attempt on one tenant: connect, lock, migrate through Alembic, read the heads again."""

from __future__ import annotations

import io
import re
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from alembic.runtime.environment import EnvironmentContext
from sqlalchemy import Connection

from orchestrator.databases.dumping import taken
from orchestrator.databases.failures import LOCK_NOT_AVAILABLE, Failure, describe
from orchestrator.databases.port.database import Database, Session
from orchestrator.errors import BackupError, OrchestratorError, Unprovisioned
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.tenant import Limits, Tenant
from orchestrator.history.directory import History, alembic_target
from orchestrator.history.position import Position, direction_of, position
from orchestrator.history.way_back import WayBack
from orchestrator.migration import seam
from orchestrator.migration.containment import is_its_own
from orchestrator.migration.loop import TenantLoop
from orchestrator.migration.outside import Keep, Outside, ways_on, what_stayed
from orchestrator.migration.recording import Recording
from orchestrator.migration.scope import Progress, StepDone, scoped
from orchestrator.statuses import TenantStatus
from orchestrator.targets import is_relative

#: What to do about a migration that has taken away what it was to run on.
_CLOSED = "the revision has closed the connection that it was given: take close() out, op.get_bind() is not its own"
#: How a tenant was migrated: through Alembic, by what was recorded on others, or one after the other.
ALEMBIC, REPLAY, MIXED = "alembic", "replay", "mixed"


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done to a tenant: one of Alembic's commands."""

    #: ``upgrade``, ``onboard``, ``downgrade``, ``rollback`` or ``stamp``.
    command: str
    #: As typed; for a rollback, a :class:`WayBack` as text.
    target: str
    #: What Alembic's own command would give its EnvironmentContext; ``fn`` yields the steps.
    options: Mapping[str, Any]
    #: Stop after so many revisions; ``None`` to go on to the target.
    limit: int | None = None
    #: Which try this is, from 1.
    number: int = 1

    @classmethod
    def of(cls, history: History, command: str, target: str) -> Work:
        """The work that ``alembic COMMAND TARGET`` does, or what a rollback does, which Alembic has no command for."""
        script = history.script
        if command == "rollback":
            goal = WayBack.parse(target).goal
            destination = goal if len(goal) > 1 else goal[0] if goal else "base"

            def back(heads: tuple[str, ...], _: Any) -> Iterable[Any]:
                here = position(history, command, heads, target)
                if here.problem is not None:
                    raise here.problem
                return history.steps_back(here.path)

            return cls(command, target, {"fn": back, "destination_rev": destination})
        steps: dict[str, Callable[..., Iterable[Any]]] = {
            "upgrade": lambda heads, _: script._upgrade_revs(alembic_target(target), heads),
            "downgrade": lambda heads, _: script._downgrade_revs(target, heads),
            "stamp": lambda heads, _: _stamped(history, heads, target),
        }
        return cls(command, target, {"fn": steps[direction_of(command)], "destination_rev": target})

    @property
    def direction(self) -> str:
        """Which of a revision's functions it runs: ``upgrade`` or ``downgrade``; or ``stamp``."""
        return direction_of(self.command)

    @property
    def end(self) -> str:
        """Where it leads, for people."""
        return _names(WayBack.parse(self.target).goal) if self.command == "rollback" else self.target

    def limited(self, limit: int) -> Work:
        """The first ``limit`` revisions of it."""
        steps = self.options["fn"]
        first = {"fn": lambda heads, context: islice(steps(heads, context), limit)}
        return replace(self, options={**self.options, **first}, limit=limit)


def _stamped(history: History, heads: tuple[str, ...], target: str) -> Iterable[Any]:
    """Alembic's steps. Where one head is before another, it would leave the one, as long as the other is the target."""
    stamp = history.script._stamp_revs
    known = [head for head in heads if head in history.graph.parents]
    if history.graph.overlapping(known):
        return [*stamp("base", heads), *stamp(target, ())]
    return stamp(target, heads)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended."""

    status: TenantStatus
    #: Heads read under the lock before anything was done; ``None`` when it did not come to that.
    before: tuple[str, ...] | None = None
    #: Heads read again at the end; ``None`` when they could not be.
    after: tuple[str, ...] | None = None
    failure: Failure | None = None
    steps: tuple[StepDone, ...] = ()
    duration_ms: float = 0.0
    #: How the steps were run: ``alembic``, ``replay`` or ``mixed``.
    path: str = ALEMBIC
    #: What was done outside any transaction, if anything was.
    outside: Outside | None = None
    #: Names of indexes that it has left invalid.
    invalid: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Migrator:
    """What all attempts of a run share."""

    fleet: Fleet
    history: History
    loop: TenantLoop
    #: By server name.
    databases: Mapping[str, Database]
    #: How connections name themselves to the server.
    application: str = "orchestrator"
    #: Seconds to wait for a tenant's lock.
    lock_wait: float = 10.0
    #: Make a missing schema, database or file.
    provision: bool = False
    #: Tenants that were there when the run was planned: what is missing of them was taken away, and is not made again.
    there: frozenset[str] = frozenset()
    #: Whether the fleet has a tenant still; asked where that has been taken away.
    is_listed: Callable[[Tenant], Awaitable[bool]] | None = None
    #: Timeouts that this run was given.
    asked: Limits = field(default_factory=Limits)
    #: Times that a tenant may be tried.
    tries: int = 1
    #: Whether the seam was proved; where it was not, tenants go one at a time.
    concurrent: bool = True
    #: Backs a tenant up, at the heads that were read under its lock; ``None`` for no backups.
    backup: Callable[[Tenant, tuple[str, ...], str, Limits], Awaitable[None]] | None = None

    async def attempt(
        self,
        tenant: Tenant,
        work: Work,
        listener: Callable[[StepDone], None] = lambda _: None,
        recording: Recording | None = None,
        keep: Keep | None = None,
    ) -> Outcome:
        """Do ``work`` on ``tenant`` once. Raises nothing but cancellation: whatever happens is the outcome.

        Args:
            tenant: whom.
            work: what.
            listener: told of each revision when it is through.
            recording: where what is sent is to be recorded.
            keep: writes down what is about to be done outside any transaction.
        """
        started = time.perf_counter()
        progress = Progress(listener=listener, recording=recording, command=work.direction, keep=keep)
        outcome = await self._settled(tenant, work, progress)
        duration_ms = (time.perf_counter() - started) * 1000
        return replace(outcome, steps=tuple(progress.done), duration_ms=duration_ms, outside=progress.outside)

    def render(self, tenant: Tenant, work: Work, heads: Iterable[str]) -> str:
        """The SQL that ``work`` runs on a tenant at ``heads``, as Alembic renders it offline.

        Raises:
            Whatever a revision raises that cannot be rendered without a database.
        """
        buffer = io.StringIO(self.databases[tenant.server].scope_sql(tenant))
        buffer.seek(0, io.SEEK_END)
        options = {"as_sql": True, "output_buffer": buffer, "starting_rev": list(heads) or None}
        with self.environment(tenant, {**work.options, **options}, Progress()):
            self.loop.migrate(None, tenant)
        return buffer.getvalue()

    @contextmanager
    def environment(
        self, tenant: Tenant, options: Mapping[str, Any], progress: Progress
    ) -> Iterator[EnvironmentContext]:
        """The tenant's Alembic environment, entered; :func:`seam.installed` surrounds it."""
        kind = seam.TaskEnvironment if self.concurrent else EnvironmentContext
        dialect = self.databases[tenant.server].dialect
        environment = kind(self.history.config, self.history.script, **options)
        with progress.ending, scoped(environment, tenant, self.loop.version_table, dialect, progress):
            yield environment

    def connection_name(self, tenant: Tenant) -> str:
        """How a connection for the tenant names itself to the server."""
        return f"{self.application} {tenant.id}"

    def limits(self, tenant: Tenant, number: int = 1) -> Limits:
        """The timeouts that hold for ``tenant``: the run's, else its own, else its server's, else the policy's.

        Args:
            tenant: whom.
            number: which try it is: earlier ones wait less for a lock.
        """
        server, policy = self.fleet.server_of(tenant).limits, self.fleet.policy.limits
        return self.asked.over(tenant.limits).over(server).over(policy).in_try(number, self.tries)

    def makes(self, tenant: Tenant) -> bool:
        """Whether a place that is missing is to be made."""
        return self.provision and tenant.id not in self.there

    async def _gone(self, tenant: Tenant) -> Outcome:
        """Somebody has taken the tenant out of the fleet; or only what it holds, which he has to explain."""
        if self.is_listed is not None and not await self.is_listed(tenant):
            return Outcome(TenantStatus.SKIPPED, failure=Failure("gone", "it was taken out of the fleet meanwhile"))
        return Outcome(
            TenantStatus.BLOCKED,
            failure=Failure(
                "gone",
                f"{tenant.place} was there when the run was planned, and has been taken away",
                hint=f"orchestrator runs list -t {tenant.id} tells whether it was set aside;"
                f" orchestrator offboard {tenant.id} ends that, with --undo it brings it back",
            ),
        )

    async def _settled(self, tenant: Tenant, work: Work, progress: Progress) -> Outcome:
        database = self.databases[tenant.server]
        try:
            if self.makes(tenant):
                await database.provision(tenant)
            async with database.session(
                tenant, self.connection_name(tenant), self.limits(tenant, work.number)
            ) as session:
                return await self._under_lock(session, tenant, work, progress)
        except Unprovisioned as error:
            if tenant.id in self.there:
                return await self._gone(tenant)
            return Outcome(TenantStatus.BLOCKED, failure=replace(describe(error), type="unprovisioned"))
        except Exception as error:
            failure = describe(error, progress.revision)
            if progress.revision is None:
                return Outcome(TenantStatus.FAILED, failure=failure)
            if progress.outside_transaction:
                return Outcome(TenantStatus.PARTIAL, failure=_partial(failure, tenant, progress))
            # The connection broke while it was being handed back; what it had done is known only from reading again.
            return Outcome(TenantStatus.UNKNOWN, failure=replace(failure, lost=True))

    async def _under_lock(self, session: Session, tenant: Tenant, work: Work, progress: Progress) -> Outcome:
        if not await taken(session.try_lock, self.lock_wait):
            holder = await session.lock_holder()
            return Outcome(
                TenantStatus.LOCKED,
                failure=Failure(
                    "locked",
                    f"another migration of this tenant is under way: {holder or 'holder unknown'}",
                    hint="wait for it, then: orchestrator resume",
                ),
            )
        before = await session.heads(self.loop.version_table)
        here = position(self.history, work.command, before, work.target)
        if here.problem is not None:
            return Outcome(TenantStatus.BLOCKED, before, before, blocked(here))
        if not here.path and here.status is not TenantStatus.BEHIND:
            return Outcome(TenantStatus.ALREADY_CURRENT, before, before)
        if work.command == "stamp" and self.history.graph.unknown(before):
            # A stamp moves the version from where it is, and nothing leads away from a revision nobody knows.
            work = replace(work, options={**work.options, "purge": True})
        if self.backup is not None and (failure := await self._backed_up(session, tenant, before, work)) is not None:
            return Outcome(TenantStatus.FAILED, before, before, failure)
        progress.look = session.invalid_indexes
        try:
            await self._migrate(session, tenant, work, progress)
            after = await session.heads(self.loop.version_table)
        except BaseException as error:
            if not is_its_own(error):
                raise
            failure = describe(error, progress.revision)
            hint = _CLOSED if session.connection.closed else self._where(error, progress.revision)
            failure = replace(failure, hint=failure.hint or hint)
            return await self._failed(session, tenant, before, progress, failure)
        if progress.left_transaction and (invalid := _left_invalid(await session.invalid_indexes(), progress)):
            return Outcome(TenantStatus.PARTIAL, before, after, _invalid(invalid), invalid=invalid)
        outcome = self._verified(work, before, after, progress)
        if outcome.status is TenantStatus.FAILED and progress.outside_transaction:
            assert outcome.failure is not None
            failure = _partial(outcome.failure, tenant, progress)
            return replace(outcome, status=TenantStatus.PARTIAL, failure=failure)
        progress.settle()
        return outcome

    async def _backed_up(self, session: Session, tenant: Tenant, heads: tuple[str, ...], work: Work) -> Failure | None:
        """Back the tenant up under its lock; what is wrong where that cannot be done, and it is not to be touched."""
        assert self.backup is not None
        try:
            await self.backup(tenant, heads, self.loop.version_table, self.limits(tenant, work.number))
        except OrchestratorError as error:
            passing = isinstance(error, BackupError) and error.passing
            failure = replace(describe(error), type="backup", passing=passing)
            return await self._held_up(session, failure) if passing else failure
        return None

    async def _migrate(self, session: Session, tenant: Tenant, work: Work, progress: Progress) -> None:
        def run(connection: Connection) -> None:
            with _heard(progress.recording, connection), self.environment(tenant, work.options, progress):
                self.loop.migrate(connection, tenant)

        if self.concurrent:
            await session.connection.run_sync(run)
        else:
            async with seam.turn():
                with seam.one_at_a_time():
                    await session.connection.run_sync(run)
        if not session.connection.closed and session.connection.in_transaction():
            await session.connection.rollback()

    def _where(self, error: BaseException, revision: str | None) -> str | None:
        """The line of the revision file that raised, as a hint where the error itself has none."""
        if revision is None or revision not in self.history.graph.parents:
            return None
        file = self.history.file(revision)
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        return f"look at {file.name}:{lines[-1]}" if lines else None

    async def _failed(
        self, session: Session, tenant: Tenant, before: tuple[str, ...], progress: Progress, failure: Failure
    ) -> Outcome:
        """A migration raised. Say what stayed: the heads are read once more where the connection still answers."""
        after: tuple[str, ...] | None = None
        invalid: tuple[str, ...] = ()
        try:
            if not session.connection.closed:
                await session.connection.rollback()
            after = await session.heads(self.loop.version_table)
            if failure.sqlstate == LOCK_NOT_AVAILABLE:
                failure = await self._held_up(session, failure)
            if progress.left_transaction:
                invalid = _left_invalid(await session.invalid_indexes(), progress)
        except Exception:
            failure = replace(failure, lost=True)
        if progress.outside_transaction:
            failure = _partial(failure, tenant, progress, invalid)
            return Outcome(TenantStatus.PARTIAL, before, after, failure, invalid=invalid)
        if failure.lost:
            return Outcome(TenantStatus.UNKNOWN, before, after, failure)
        if invalid:
            # An earlier revision of this attempt has left it; what failed afterwards is told beside it.
            found = _invalid(invalid)
            message = f"{found.message}; then {failure.revision or 'env.py'} failed: {failure.message}"
            return Outcome(TenantStatus.PARTIAL, before, after, replace(found, message=message), invalid=invalid)
        return Outcome(TenantStatus.FAILED, before, after, failure)

    async def _held_up(self, session: Session, failure: Failure) -> Failure:
        """Say who held the lock; whoever it was may have let go of it by now."""
        holders = await session.blockers()
        return replace(failure, message=f"{failure.message}; held by {', '.join(holders)}") if holders else failure

    def _verified(self, work: Work, before: tuple[str, ...], after: tuple[str, ...], progress: Progress) -> Outcome:
        if work.command == "stamp" and progress.heads is None and before == after:
            return Outcome(TenantStatus.ALREADY_CURRENT, before, after)
        if progress.heads is None:
            failure = Failure(
                "not_run",
                "revisions are pending, and env.py ran none of them",
                hint="migrate() in env.py must call context.run_migrations() inside context.begin_transaction()",
            )
        elif progress.heads != after:
            failure = Failure(
                "not_committed",
                f"Alembic reported {_names(progress.heads)}, and the tenant's version table says {_names(after)}",
                hint="migrate() in env.py must leave its transaction to context.begin_transaction()",
            )
        elif progress.running or self._left_over(work, after, progress):
            failure = Failure(
                "not_finished",
                f"env.py ended without an error before {work.end} was reached: the tenant is at {_names(after)}",
                revision=progress.revision,
                hint="migrate() in env.py must let errors through",
            )
        else:
            return Outcome(TenantStatus.SUCCEEDED, before, after)
        return Outcome(TenantStatus.FAILED, before, after, failure)

    def _left_over(self, work: Work, heads: tuple[str, ...], progress: Progress) -> bool:
        """Whether something is still to be run to the target; relative ones were made absolute by the plan."""
        if work.limit is not None:
            return len(progress.done) < work.limit
        if work.command == "stamp" or is_relative(work.target):
            return False
        here = position(self.history, work.command, heads, work.target)
        return bool(here.path) or here.problem is not None


@contextmanager
def _heard(recording: Recording | None, connection: Connection) -> Iterator[None]:
    """Have what is sent recorded; what listens to the lane's engine is gone before another tenant has the lane."""
    if recording is None:
        yield
        return
    try:
        recording.listen(connection)
        yield
    finally:
        recording.finish()


def _partial(failure: Failure, tenant: Tenant, progress: Progress, invalid: tuple[str, ...] = ()) -> Failure:
    """``failure`` with what stays of the revision that was running, and with the ways on."""
    outside = progress.outside
    if outside is None:
        return replace(failure, passing=False)
    broken = f"invalid now, and to be dropped or reindexed first: {', '.join(invalid)}" if invalid else None
    parts = (
        ways_on(tenant.id, outside.revision, outside.direction),
        what_stayed(outside.stayed, outside.count),
        broken,
        failure.hint,
    )
    return replace(failure, passing=False, hint="; ".join(part for part in parts if part))


def _left_invalid(now: Mapping[str, int], progress: Progress) -> tuple[str, ...]:
    """Names of invalid indexes that are this attempt's doing.

    New ones, those that another index had the name of, and those that it has sent a statement about: IF NOT EXISTS
    takes the one that an earlier try left for what it was to make.
    """
    before, sent = progress.invalid_before, progress.sent_outside
    ours = (
        name
        for name, identity in now.items()
        if before.get(name) != identity or any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) for text in sent)
    )
    return tuple(sorted(ours))


def _invalid(indexes: tuple[str, ...]) -> Failure:
    return Failure(
        "invalid_index",
        f"CREATE INDEX CONCURRENTLY did not finish, and left what no query uses: {', '.join(indexes)}",
        hint=f"mend the rows it stumbled over, then: REINDEX INDEX CONCURRENTLY {indexes[0]}",
    )


def blocked(here: Position) -> Failure:
    """Why a tenant must not be touched, as a failure to report."""
    assert here.problem is not None
    return replace(describe(here.problem), type=here.kind or "blocked")


def _names(revisions: Iterable[str]) -> str:
    return ", ".join(revisions) or "base"
