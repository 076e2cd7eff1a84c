"""Where the engine is: in the journal's database, which has to be on a PostgreSQL server."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from orchestrator.actions.journals import journal_url
from orchestrator.actions.onboarding.belonging import finds_itself, writable
from orchestrator.actions.project import Project
from orchestrator.databases.address import parse
from orchestrator.engine.queues import Queues
from orchestrator.errors import ConfigurationError, UsageError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.load import load
from orchestrator.fleet.tenant import Tenant

_HINT = "give tenants.yaml a `journal:` on a PostgreSQL server that the workers reach, too"


@dataclass(frozen=True, slots=True)
class Place:
    """The engine's database."""

    #: With its secrets put in.
    url: str = field(repr=False)
    #: For messages.
    masked: str

    @classmethod
    def of(cls, fleet: Fleet) -> Place:
        """That of a fleet.

        Raises:
            ConfigurationError: its journal is a file, which only one machine's processes can share.
        """
        if fleet.journal is None:
            raise ConfigurationError(
                "distributed runs need the journal in a PostgreSQL database; without a word, it is a file here",
                hint=_HINT,
            )
        url = journal_url(fleet.journal, fleet)
        address = parse(url)
        if address.dialect != "postgresql":
            raise ConfigurationError(
                f"distributed runs need the journal in a PostgreSQL database, not in {address.masked}: "
                "on SQLite, the engine allows one process only",
                hint=_HINT,
            )
        return cls(url, address.masked)


def queues_of(project: Project) -> Queues:
    """The queues of those who have the same fleet, directory and version."""
    return Queues.of(project.identity, project.history.digest)


def require_shared_register(fleet: Fleet, tenants: Iterable[Tenant]) -> None:
    """Refuse newcomers that a worker would write into a tenants.yaml of its own.

    Raises:
        UsageError: there is one.
    """
    declared = load(fleet.path, may_be_empty=True)
    for tenant in tenants:
        if writable(declared, tenant) is None and not finds_itself(declared, tenant):
            raise UsageError(
                f"tenant {tenant.id} would be written into {fleet.path.name}, of which each worker has its own: "
                "written into one of them, it would be unknown to all others",
                hint="onboard without --executor, then give the workers the new file; or have the fleet in a source "
                "with `register:`, which all read (docs/howto/distributed.md)",
            )


def require_reachable(project: Project, tenants: Iterable[Tenant]) -> None:
    """Refuse tenants that only this machine has.

    Raises:
        UsageError: one is in a SQLite file.
    """
    for tenant in tenants:
        if project.databases[tenant.server].dialect == "sqlite":
            raise UsageError(
                f"tenant {tenant.id} is in a SQLite file, which is one machine's: workers elsewhere have other files",
                hint="leave it out (--exclude), and migrate it without --executor",
            )
