"""What every adapter does for tenants that go."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

from orchestrator.databases.asides import Aside, Leave, Leaving
from orchestrator.databases.claims import Marker
from orchestrator.fleet.tenant import Limits, Tenant

if TYPE_CHECKING:
    pass


class Leavings(Protocol):
    """Places of those who go."""

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
