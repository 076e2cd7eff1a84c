"""What every adapter does for tenants that come."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator.databases.answers import certainly, never
from orchestrator.databases.claims import Claim, Found, Pool, Stock
from orchestrator.databases.postgresql.script import Snapshot, Step
from orchestrator.fleet.tenant import Limits, Tenant

if TYPE_CHECKING:
    pass


class Arrivals(Protocol):
    """Places for those who come."""

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

    def scratch(self, like: Tenant) -> AbstractAsyncContextManager[Tenant]:
        """Make an empty place of the kind that ``like`` (on this server) has, of nobody's, and take it away at the end.

        What killed processes left of theirs is taken away first.

        Raises:
            OrchestratorError: nothing can be made there.
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
            Exception: it cannot be done; a guard's has :data:`~orchestrator.databases.postgresql.script.REFUSED` in it.
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
            stopped: asked before each is made, and while it waits for whoever else makes some, whether the rest is to
                be left.

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
