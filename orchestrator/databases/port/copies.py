"""What every adapter does to save tenants, to put them back, and to try things on copies."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from orchestrator.databases.cloning import Clone, Cloning
from orchestrator.databases.dumping import Dumped, Restored, Restoring
from orchestrator.databases.measuring import Meter
from orchestrator.fleet.tenant import Limits, Tenant

if TYPE_CHECKING:
    pass


class Copies(Protocol):
    """Tenants in files, and beside themselves."""

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
