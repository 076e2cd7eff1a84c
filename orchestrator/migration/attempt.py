"""One attempt on one tenant: connect, lock, migrate through Alembic, read the heads again."""

from __future__ import annotations

import io
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from alembic.runtime.environment import EnvironmentContext
from sqlalchemy import Connection

from orchestrator.databases.dumping import taken
from orchestrator.databases.failures import LOCK_NOT_AVAILABLE, Failure, describe
from orchestrator.databases.port.database import Database, Session
from orchestrator.errors import BackupError, OrchestratorError, Unprovisioned
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.tenant import Limits, Tenant
from orchestrator.history.directory import History
from orchestrator.history.position import position
from orchestrator.migration import seam
from orchestrator.migration.containment import is_its_own
from orchestrator.migration.loop import TenantLoop
from orchestrator.migration.outcome import GONE, Outcome, blocked, invalid_indexes, left_invalid, partial, verified
from orchestrator.migration.outside import Keep
from orchestrator.migration.recording import Recording
from orchestrator.migration.scope import Progress, StepDone, scoped
from orchestrator.migration.work import Work
from orchestrator.statuses import TenantStatus

#: What to do about a migration that has taken away what it was to run on.
_CLOSED = "the revision has closed the connection that it was given: take close() out, op.get_bind() is not its own"


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
            return Outcome(TenantStatus.SKIPPED, failure=GONE)
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
                return Outcome(TenantStatus.PARTIAL, failure=partial(failure, tenant, progress))
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
        if progress.left_transaction and (invalid := left_invalid(await session.invalid_indexes(), progress)):
            return Outcome(TenantStatus.PARTIAL, before, after, invalid_indexes(invalid), invalid=invalid)
        outcome = verified(self.history, work, before, after, progress)
        if outcome.status is TenantStatus.FAILED and progress.outside_transaction:
            assert outcome.failure is not None
            failure = partial(outcome.failure, tenant, progress)
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
                invalid = left_invalid(await session.invalid_indexes(), progress)
        except Exception:
            failure = replace(failure, lost=True)
        if progress.outside_transaction:
            failure = partial(failure, tenant, progress, invalid)
            return Outcome(TenantStatus.PARTIAL, before, after, failure, invalid=invalid)
        if failure.lost:
            return Outcome(TenantStatus.UNKNOWN, before, after, failure)
        if invalid:
            # An earlier revision of this attempt has left it; what failed afterwards is told beside it.
            found = invalid_indexes(invalid)
            message = f"{found.message}; then {failure.revision or 'env.py'} failed: {failure.message}"
            return Outcome(TenantStatus.PARTIAL, before, after, replace(found, message=message), invalid=invalid)
        return Outcome(TenantStatus.FAILED, before, after, failure)

    async def _held_up(self, session: Session, failure: Failure) -> Failure:
        """Say who held the lock; whoever it was may have let go of it by now."""
        holders = await session.blockers()
        return replace(failure, message=f"{failure.message}; held by {', '.join(holders)}") if holders else failure


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
