"""Tenant and Server: who is migrated, and on which physical server. Frozen values that do no IO."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date
from enum import StrEnum

from orchestrator.fleet.secrets import Template


class Isolation(StrEnum):
    """What a tenant has of its own."""

    SCHEMA = "schema"
    DATABASE = "database"
    FILE = "file"


#: Seconds that a statement waits for a lock in the first of several tries.
_FIRST_WAIT = 0.1


@dataclass(frozen=True, slots=True)
class Limits:
    """How long statements may wait and run. ``None`` leaves the wider setting in force: run, tenant, server, policy."""

    #: Seconds a statement may wait for a lock, at most: the last of several tries waits so long.
    lock_timeout: float | None = None
    #: Seconds a statement may run.
    statement_timeout: float | None = None
    #: Seconds a transaction may be open with nothing to do.
    idle_in_transaction_timeout: float | None = None

    def over(self, wider: Limits) -> Limits:
        """These, and ``wider`` where they say nothing."""
        both = ((getattr(self, name), getattr(wider, name)) for name in Limits.__slots__)
        return Limits(*(theirs if own is None else own for own, theirs in both))

    def in_try(self, number: int, tries: int) -> Limits:
        """What holds in one of several tries: the first waits a moment for a lock, each later one longer.

        Whoever comes to a table after a statement that waits for its lock waits behind it. So one that has another try
        gives up soon.

        Args:
            number: which try, from 1.
            tries: how many there may be.
        """
        most = self.lock_timeout
        if not most or most <= _FIRST_WAIT or tries <= 1:
            return self
        wait = _FIRST_WAIT * (most / _FIRST_WAIT) ** ((number - 1) / (tries - 1))
        return replace(self, lock_timeout=min(wait, most))


@dataclass(frozen=True, slots=True)
class Server:
    """One physical server: budgets belong to it, across all databases and schemas on it."""

    #: Name in tenants.yaml; for a tenant with a ``url:`` of its own, that tenant's id.
    name: str
    #: Address with its secrets still unread.
    url: Template
    #: Address past a connection pooler, for locks and DDL; ``None`` where ``url`` is direct.
    direct_url: Template | None = None
    #: Tenants migrated at once on this server, at most.
    max_concurrency: int = 8
    #: Schema kept on every tenant's search path (for extensions); ``None`` for no such schema.
    extensions_schema: str | None = None
    #: This server's own timeouts.
    limits: Limits = field(default_factory=Limits)
    #: Not declared, but made for the one tenant that has its address for itself.
    own: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Tenant:
    """One customer: an identity, the place its tables are in, and what it is to be migrated to."""

    #: Unique in the fleet.
    id: str
    #: Name of a server of the fleet.
    server: str
    isolation: Isolation
    #: Schema that holds its tables; ``None`` means the database's default schema.
    schema: str | None = None
    #: Database that holds its tables; ``None`` means the one in the server's address.
    database: str | None = None
    #: SQLite file, as an absolute path; ``None`` on other dialects.
    file: str | None = None
    tags: tuple[str, ...] = ()
    #: What it is migrated to when the command names no target: ``heads``, ``label@head``, a revision.
    target: str = "heads"
    #: Revision it is held at; ``None`` for not held.
    pin: str | None = None
    #: Why it is held.
    reason: str | None = None
    #: The pin no longer holds from this day on.
    until: date | None = None
    #: This tenant's own timeouts.
    limits: Limits = field(default_factory=Limits)

    @property
    def place(self) -> str:
        """Where its tables are, for people: ``app.acme``, ``globex_prod`` or a file's path."""
        if self.file is not None:
            return self.file
        return ".".join(part for part in (self.database, self.schema) if part is not None) or self.id
