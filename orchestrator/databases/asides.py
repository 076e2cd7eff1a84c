"""Places that were set aside: what is asked for, and what is found, whatever the dialect."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from orchestrator.databases.claims import Marker
from orchestrator.databases.departures import Departure, Stage
from orchestrator.errors import OnboardingError
from orchestrator.fleet.tenant import Limits, Tenant

_AGAIN = "look at it again: orchestrator runs list -t TENANT"


@dataclass(frozen=True, slots=True)
class Leave:
    """How a tenant's place is to be set aside."""

    #: Written on it; its departure says what it was.
    marker: Marker
    #: The id of the run; a part of the name that it gets.
    run: str
    limits: Limits
    #: Seconds to wait for whoever is at work on the tenant.
    lock_wait: float
    #: Nobody may write to it from before it is handed out until it is set aside: it is to be dumped in between.
    dumped: bool = False
    #: It is to be dropped afterwards: refused where what is outside depends on it.
    dropped: bool = False


@dataclass(slots=True)
class Leaving:
    """A place that is about to be set aside."""

    #: Where its rows are just now, to be read.
    tenant: Tenant
    #: What is written on it in the end; may be changed until then.
    marker: Marker


@dataclass(frozen=True, slots=True)
class Aside:
    """A place that was set aside."""

    #: Whose it was: id, server, and the place that it had.
    tenant: Tenant
    #: The name that its schema or database has now, or its file's path.
    name: str
    marker: Marker

    @property
    def departure(self) -> Departure:
        """What is written of it."""
        assert self.marker.departure is not None
        return self.marker.departure


def require_same(aside: Aside, now: Marker | None) -> None:
    """Make sure that nobody has gone on with it meanwhile.

    Raises:
        OnboardingError: somebody has.
    """
    if now != aside.marker:
        raise OnboardingError(f"{aside.name} is not what it was: somebody else is at work on it", hint=_AGAIN)


def require_ours(tenant: Tenant, now: Marker | None, ours: Marker) -> None:
    """Make sure that a place in use is not another fleet's or tenant's.

    Raises:
        OnboardingError: it is.
    """
    if now is not None and not now.is_of(ours):
        raise OnboardingError(f"{tenant.place} belongs to tenant {now.tenant} of fleet {now.fleet}")


def require_way_back(aside: Aside) -> None:
    """Make sure that all of it is there still.

    Raises:
        OnboardingError: somebody has begun to drop it.
    """
    if aside.departure.stage is Stage.DROPPING:
        raise OnboardingError(
            "it is being dropped, and some of it may be gone",
            hint="orchestrator restore FILE -t TENANT --register brings its archive back",
        )


def refuse_set_aside(tenant: Tenant, markers: Collection[Marker], *, leaving: bool) -> None:
    """Keep an empty place from being made where a tenant's own was set aside.

    Args:
        tenant: whose place is to be made.
        markers: what is written on places that had its name.
        leaving: only where the taking out has not ended yet.

    Raises:
        OnboardingError: it was.
    """
    for marker in markers:
        departure = marker.departure
        if departure is not None and (not leaving or departure.stage is Stage.LEAVING):
            raise OnboardingError(
                f"{tenant.place} of tenant {marker.tenant} was set aside at {departure.at}, no empty one is made",
                hint="orchestrator offboard TENANT ends that, orchestrator offboard TENANT --undo brings it back",
            )
