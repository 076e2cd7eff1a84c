"""The port every dialect's adapter implements: read heads, open a session on one tenant, make a missing place.

One :class:`Database` stands for one physical server (for SQLite: one directory of files). The conformance suite in
tests/contract/ holds every adapter to what is written here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator.databases.asides import Aside, Leave, Leaving
from orchestrator.databases.claims import Claim, Found, Marker, Pool, Stock
from orchestrator.databases.cloning import Clone, Cloning, Footprint
from orchestrator.databases.definitions import Definition
from orchestrator.databases.dumping import Dumped, Restored, Restoring
from orchestrator.databases.failures import Failure
from orchestrator.databases.findings import Finding
from orchestrator.databases.measuring import Meter
from orchestrator.databases.script import Snapshot, Step
from orchestrator.databases.sizes import Size
from orchestrator.fleet.tenant import Limits, Tenant

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from orchestrator.history.reach import Reach


@dataclass(frozen=True, slots=True)
class Reading:
    """What one look at a tenant found."""

    #: Its schema, database or file is there.
    exists: bool
    #: What its version table says, sorted; empty without a table or a row.
    heads: tuple[str, ...] = ()
    #: Why it could not be read; ``None`` when it could.
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """What a transaction has to bring about, looked at from inside."""

    #: Reading query.
    sql: str
    #: Raises where its rows are not as they are to be: the transaction is then rolled back.
    accept: Callable[[Sequence[Mapping[str, Any]]], None]


class Session(Protocol):
    """One connection in one tenant's scope; closing it releases the tenant's lock."""

    #: Whether :meth:`mark` is in the transaction of :attr:`connection`, and is gone with it.
    marks_in_transaction: bool

    #: What migrations run on: an unqualified name on it means the tenant's.
    connection: AsyncConnection

    async def try_lock(self) -> bool:
        """Take the tenant's lock if it is free. Never waits: a waiter would deadlock with CREATE INDEX CONCURRENTLY."""
        ...

    async def lock_holder(self) -> str | None:
        """Who holds the tenant's lock, for people; ``None`` where the dialect cannot tell."""
        ...

    async def heads(self, version_table: str) -> tuple[str, ...]:
        """What the tenant's version table says now, outside any transaction of :attr:`connection`; sorted.

        Raises:
            Exception: it could not be read; a table that is not there reads as empty.
        """
        ...

    async def marker(self) -> Marker | None:
        """What is written on the tenant's place; ``None`` for nothing of ours."""
        ...

    async def mark(self, marker: Marker) -> None:
        """Write another mark on it, in the transaction of :attr:`connection` where the dialect has that."""
        ...

    async def script(self, sql: str) -> None:
        """Run SQL of several statements in the transaction of :attr:`connection`.

        Raises:
            Exception: the server's own; or the text has ended the transaction itself.
        """
        ...

    async def blockers(self) -> tuple[str, ...]:
        """Who holds locks on the tenant's tables beside this session, for people; those who hold them longest first."""
        ...

    async def invalid_indexes(self) -> Mapping[str, int]:
        """Indexes in the tenant's scope that were begun and never finished: by name, what tells one from another."""
        ...


async def certainly() -> bool:
    """Yes."""
    return True


def never() -> bool:
    """No."""
    return False


class Database(Protocol):
    """One physical server."""

    #: Name in the fleet.
    name: str
    #: SQLAlchemy's name of the dialect: ``postgresql`` or ``sqlite``.
    dialect: str
    #: Whether :meth:`replay` is to be had.
    replays: bool

    @property
    def identity(self) -> str:
        """What two declarations of one physical server have in common; may block while a secret is read."""
        ...

    @property
    def default_database(self) -> str | None:
        """The database in the server's own address; ``None`` where there is no such thing."""
        ...

    async def read(self, tenants: Sequence[Tenant], version_table: str) -> Mapping[str, Reading]:
        """Read the heads of ``tenants`` (all on this server) with as few connections as can be; never raises."""
        ...

    def session(self, tenant: Tenant, application: str, limits: Limits) -> AbstractAsyncContextManager[Session]:
        """Connect to ``tenant``'s place.

        Args:
            tenant: a tenant on this server.
            application: how the connection names itself to the server.
            limits: timeouts to set on it.

        Raises:
            ServerUnreachable: no connection.
            Unprovisioned: the schema, database or file is not there.
        """
        ...

    async def replay(
        self, tenant: Tenant, steps: Sequence[Step], version_table: str, application: str, limits: Limits
    ) -> None:
        """Take ``tenant`` through ``steps`` as they were recorded on others, under its lock, in one round trip.

        Args:
            tenant: a tenant on this server.
            steps: the transactions, one after the other.
            version_table: name of the version table, in the tenant's scope.
            application: how the connection names itself to the server.
            limits: timeouts to set on it.

        Raises:
            Exception: the step that was under way is rolled back, those before it stay. Where one of the guards did
                not hold, the message has :data:`~orchestrator.databases.script.REFUSED` in it; where there are more
                heads than the one that is expected, it is the server's own.
        """
        ...

    async def fingerprints(self, tenants: Sequence[Tenant], version_table: str) -> Mapping[str, str]:
        """Digest the shape of what ``tenants`` (all on this server) hold: its definitions, not its rows.

        Two tenants of one dialect and server version with the same objects get the same digest, whatever their schemas,
        databases or files are called. The adapters' ``fingerprint`` modules say what counts.

        Args:
            tenants: tenants on this server.
            version_table: name of the version table; it counts like any other, what it says does not.

        Returns:
            Digests by tenant id. Tenants that cannot be read, or are not there, are left out; never raises for them.
        """
        ...

    async def definitions(self, tenants: Sequence[Tenant]) -> Mapping[str, Sequence[Definition]]:
        """Read in full what :meth:`fingerprints` digests.

        Args:
            tenants: few tenants on this server: all that is read is held.

        Returns:
            Definitions by tenant id, without tenants that cannot be read, or are not there; never raises for them.
        """
        ...

    async def require_dumping(self) -> None:
        """Make sure that tenants can be dumped and restored from here: that the programs for it are there.

        Raises:
            DatabaseError: they are not, or are too old for the server.
        """
        ...

    async def dump(self, tenant: Tenant, dump: Path, application: str, limits: Limits) -> Dumped:
        """Write all that ``tenant`` holds into a file, as it is at one moment. Whoever asks holds the tenant's lock.

        Waits for nobody longer than the lock timeout of ``limits``, and holds up nobody who reads or writes rows, and
        nobody's DDL but the tenant's own.

        Args:
            tenant: a tenant on this server.
            dump: the file, in a directory that is there; what was in it is gone.
            application: how connections name themselves to the server.
            limits: timeouts.

        Raises:
            OrchestratorError: it could not be done; what is in the file is of no use.
        """
        ...

    async def restore(self, work: Restoring) -> Restored:
        """Put a dump back whole, in the place of what the tenant holds, under its lock.

        At every moment, and wherever it is cut off, the tenant is what it was or what the dump has; the same call
        once more clears up what a killed one left.

        Raises:
            TenantLocked: another process is at work on the tenant.
            RestoreUnknown: the connection was lost, and it could not be seen whether it was done.
            OrchestratorError: it could not be done; the tenant is as it was.
        """
        ...

    async def whereabouts(self, tenants: Sequence[Tenant]) -> Mapping[str, str]:
        """What tells the database or file that each of ``tenants`` (all on this server) is in from all others.

        Asked of the server itself: two addresses, roles or host names that lead to one database give the same.

        Returns:
            By tenant id, also for a database or file that is not there.

        Raises:
            OrchestratorError: no connection.
        """
        ...

    async def others_within(self, tenant: Tenant, version_tables: Collection[str]) -> Sequence[str]:
        """Schemas that have a version table, in the database that is wholly ``tenant``'s; without its own.

        Args:
            tenant: a tenant on this server.
            version_tables: what version tables are called.

        Raises:
            OrchestratorError: it could not be looked at. One that is not there has none.
        """
        ...

    async def sizes(
        self, tenants: Sequence[Tenant], tables: Collection[str], most: int | None = None
    ) -> Mapping[str, Mapping[str, Size]]:
        """How large tables of ``tenants`` (all on this server) are, read from statistics where the server has them.

        Args:
            tenants: tenants on this server.
            tables: names of tables, in the tenant's scope; words that are no table's there are left out.
            most: only so many tenants of each database, those where the tables are largest; ``None`` for all.

        Returns:
            Sizes by tenant id and table. What is not there, or cannot be looked at, is left out; never raises for it.
        """
        ...

    def limit_connections(self, most: int) -> None:
        """Keep no more than ``most`` connections open, as long as no more are used at once."""
        ...

    async def close(self, keep: int = 0) -> None:
        """Close connections that nobody uses; the next use opens new ones.

        Args:
            keep: so many may stay open, those in use included.
        """
        ...

    def scope_sql(self, tenant: Tenant) -> str:
        """What a script has to begin with to mean ``tenant``; empty where the connection alone says it."""
        ...

    async def provision(self, tenant: Tenant) -> None:
        """Make the tenant's schema, database or file if it is missing; nothing else.

        Raises:
            OnboardingError: one of that name was set aside.
        """
        ...

    async def found(self, tenant: Tenant) -> Found:
        """Look what is in the place that ``tenant`` is to have, and whose it is.

        Raises:
            OrchestratorError: it cannot be looked at.
        """
        ...

    async def claim(self, tenant: Tenant, claim: Claim, lock_wait: float) -> Found:
        """Make the place of a new tenant and mark it, or mark one that is there and empty.

        Nothing is done to a place that bears a mark, or that holds something. Wherever it is cut off, there is no
        such place, or one that bears the mark.

        Args:
            tenant: a tenant on this server.
            claim: what is asked.
            lock_wait: seconds to wait for whoever is at work on the tenant.

        Returns:
            What it held before, and the mark that it bears now.

        Raises:
            TenantLocked: another process is at work on it.
            OrchestratorError: it could not be made.
        """
        ...

    async def drop(self, tenant: Tenant, lock_wait: float, still: Callable[[], Awaitable[bool]] = certainly) -> None:
        """Take away the tenant's place with all that it holds, under its lock; nothing where there is none.

        Args:
            tenant: a tenant on this server.
            lock_wait: seconds to wait for whoever is at work on it.
            still: asked once the lock is held, whether it is still to be done: what was seen before may be over.

        Raises:
            TenantLocked: another process is at work on it.
            OrchestratorError: it could not be done.
        """
        ...

    def set_aside(self, tenant: Tenant, leave: Leave) -> AbstractAsyncContextManager[Leaving]:
        """Give the tenant's place a name of ours, under its lock; whoever looks for it by its own does not find it.

        Yields what can be read of it before that; nobody writes to it meanwhile where ``leave.dumped``. Where that ends
        with an error, the place is as it was. Wherever it is cut off, the place has its name, or the mark of
        ``leave`` and a name of ours.

        Raises:
            TenantLocked: another process is at work on it.
            Unprovisioned: there is no such place.
            OnboardingError: it is another's, or it could not be done.
        """
        ...

    async def asides(self, within: Collection[str | None] | None = None) -> Sequence[Aside]:
        """Find what was set aside on the server, whosever it was.

        Args:
            within: databases whose schemas to look at, ``None`` among them for that of the server's address; for files,
                the directories. ``None`` for all there are; databases themselves are always looked at.

        Raises:
            OrchestratorError: no connection.
        """
        ...

    async def remark(self, aside: Aside, marker: Marker, lock_wait: float) -> None:
        """Write another mark on a place that was set aside.

        Raises:
            TenantLocked: another process is at work on it.
            OnboardingError: it is not what it was when it was found.
        """
        ...

    async def bring_back(self, aside: Aside, lock_wait: float) -> None:
        """Give a place that was set aside its own name back.

        Raises:
            TenantLocked: another process is at work on it.
            OnboardingError: it is not what it was when it was found, or its name is another's by now.
        """
        ...

    async def drop_aside(self, aside: Aside, limits: Limits, lock_wait: float) -> None:
        """Drop a place that was set aside. Cut off, it bears a mark that says so, and the same call goes on.

        Raises:
            TenantLocked: another process is at work on it.
            OnboardingError: it is not what it was when it was found, or others depend on it.
        """
        ...

    def scratch(self, like: Tenant) -> AbstractAsyncContextManager[Tenant]:
        """Make an empty place of the kind that ``like`` (on this server) has, of nobody's, and take it away at the end.

        What killed processes left of theirs is taken away first.

        Raises:
            OrchestratorError: nothing can be made there.
        """
        ...

    def clone(self, tenant: Tenant, cloning: Cloning) -> AbstractAsyncContextManager[Clone]:
        """Copy ``tenant``, whose place is on this server, to a place of nobody's there, and take that away at the end.

        Holds up the tenant no more than :meth:`dump` does, unless it is told to copy its files, and changes nothing of
        it. What killed processes left of theirs is taken away first.

        Raises:
            OrchestratorError: it cannot be copied, or must not be: says what is needed, or what stands against it.
        """
        ...

    async def clear_scratch(self, tenants: Sequence[Tenant]) -> None:
        """Take away what killed processes left of :meth:`scratch` and :meth:`clone`; what is in use stays.

        Args:
            tenants: tenants on this server, beside whom to look.

        Raises:
            OrchestratorError: no connection.
        """
        ...

    def meter(self, clone: Tenant) -> AbstractAsyncContextManager[Meter]:
        """Look at migrations of a clone while they run.

        Raises:
            OrchestratorError: no connection.
        """
        ...

    async def footprints(self, tenants: Sequence[Tenant]) -> Mapping[str, Footprint]:
        """How large and how old ``tenants`` (all on this server) are, without a lock on anything of theirs.

        Returns:
            By tenant id, without those that are not there, or cannot be looked at.

        Raises:
            OrchestratorError: no connection.
        """
        ...

    async def fill(
        self,
        tenant: Tenant,
        made: Step | Snapshot,
        shape: str | None,
        version_table: str,
        application: str,
        limits: Limits,
    ) -> str:
        """Fill ``tenant``'s empty schema, under its lock and in one transaction.

        It is committed only when the schema then has ``shape``: cut off at any moment, it is empty or whole.

        Args:
            tenant: a tenant on this server, in a schema.
            made: what all of it comes to, from base.
            shape: what :meth:`fingerprints` has to say of it; ``None`` for whatever it says.
            version_table: name of the version table, in the tenant's scope.
            application: how the connection names itself to the server.
            limits: timeouts to set on it.

        Returns:
            What it says.

        Raises:
            OtherShape: it comes out different from ``shape``.
            Exception: it cannot be done; a guard's has :data:`~orchestrator.databases.script.REFUSED` in it.
        """
        ...

    async def text(self, tenant: Tenant, application: str, limits: Limits) -> str:
        """All that ``tenant`` holds as SQL, rows included; equal for two that hold the same under the same name.

        Raises:
            OrchestratorError: it cannot be read.
        """
        ...

    def template(self, key: str, directory: Path) -> str:
        """Name of the database, or path of the file, that new ones are copied from.

        Args:
            key: what it was made from, as hex digits.
            directory: where files are kept.
        """
        ...

    async def note(self, template: str) -> Mapping[str, Any] | None:
        """What was written about a template; ``None`` where there is none."""
        ...

    def building(self, template: str) -> AbstractAsyncContextManager[bool]:
        """Whether nobody else builds ``template`` now, and nobody does for as long as this lasts."""
        ...

    async def keep_template(self, made: Tenant, template: str, note: Mapping[str, Any]) -> str | None:
        """Make a scratch tenant the template that new tenants are copied from; at once, as a whole.

        Templates of the same ``family`` in their notes are dropped.

        Returns:
            Why it cannot be one; ``None`` where it is one now.
        """
        ...

    async def copy_template(
        self, tenant: Tenant, template: str, shape: str, heads: tuple[str, ...], version_table: str
    ) -> None:
        """Make ``tenant``'s database or file, which is not there, as a copy; gone again where it is not as expected.

        Args:
            tenant: a tenant on this server, not in a schema.
            template: which is there.
            shape: what :meth:`fingerprints` has to say of the copy.
            heads: what its version table has to say.
            version_table: its name.

        Raises:
            AlreadyThere: somebody has made it before.
            OtherShape: the copy is not what it should be.
            Exception: it cannot be done.
        """
        ...

    async def fill_pool(
        self, pool: Pool, size: int, *, tidy: bool = True, stopped: Callable[[], bool] = never
    ) -> Stock:
        """Have ``size`` copies of a template ready; waits for whoever else fills a pool of the fleet.

        Nobody can connect to one before it is taken. Files have no pool: a copy is as fast.

        Args:
            pool: whose copies, and of what.
            size: how many.
            tidy: also drop those that are too many, and those of the fleet on this server that are of another template
                or were altered since.
            stopped: asked before each is made, whether the rest is to be left.

        Raises:
            OrchestratorError: one could not be made; those that were made before are kept.
        """
        ...

    async def drop_pool(self, fleet: str) -> int:
        """Drop all copies that are ready for a fleet, and say how many there were.

        Raises:
            OrchestratorError: it could not be done.
        """
        ...

    async def version(self) -> str:
        """The server's version, major part only where that decides behaviour: ``15``."""
        ...

    async def free_connections(self) -> int | None:
        """How many more connections the server has for us; ``None`` where they are not counted.

        Raises:
            OrchestratorError: no connection.
        """
        ...

    async def diagnose(self, tenants: Sequence[Tenant], work: Mapping[str, Sequence[Reach]]) -> Sequence[Finding]:
        """Look whether anything on the server would break a run over ``tenants``; reads only.

        Args:
            tenants: tenants on this server.
            work: the transactions that are pending, by tenant id; of the others nothing is.

        Raises:
            OrchestratorError: no connection.
        """
        ...

    async def rows(self, sql: str) -> Sequence[Mapping[str, Any]]:
        """Run a reading query of a tenant source on the server's own database."""
        ...

    async def write(self, sql: str, parameters: Mapping[str, Any], check: Check | None = None) -> None:
        """Run a writing statement of a tenant source in one transaction on the server's own database.

        Args:
            sql: one statement with ``:name`` for each value, see :mod:`orchestrator.fleet.statements`.
            parameters: the values; they are bound, and never become text of the statement.
            check: what has to hold before it counts.

        Raises:
            DatabaseError: it failed; nothing of it stays.
            Exception: what ``check`` raises; nothing of it stays.
        """
        ...

    async def schemas(self, pattern: str) -> Sequence[str]:
        """Names of schemas in the server's own database that match a glob, sorted."""
        ...

    async def databases(self, pattern: str) -> Sequence[str]:
        """Names of databases on the server that match a glob, sorted."""
        ...
