"""What cloning a tenant takes and gives, whatever the dialect: a copy of it in a place of nobody's."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.fleet.tenant import Limits, Tenant


@dataclass(frozen=True, slots=True)
class Cloning:
    """How a tenant is to be cloned."""

    #: How connections name themselves to the server.
    application: str
    #: Timeouts: reading waits no longer for a lock.
    limits: Limits
    #: Its version table, and what that says.
    version_table: str
    heads: tuple[str, ...]
    #: Words that pending revisions name: schemas that are called so come along, without rows.
    words: frozenset[str] = frozenset()
    #: Definitions only, without a row but those of the version table.
    schema_only: bool = False
    #: Rows to be made up for each table at most, in the place of the tenant's own; ``None`` for none.
    generated: int | None = None
    #: Copy a database's files where nobody is connected, which keeps others from connecting meanwhile.
    template: bool = False
    #: Also where functions of the tenant's reach other servers.
    allow_outside: bool = False


@dataclass(frozen=True, slots=True)
class Clone:
    """A copy that is there for as long as somebody looks at it."""

    #: The tenant, in the copy's place: its id, its tags and its schema are the tenant's own.
    tenant: Tenant
    #: How it was made: ``pg_dump``, ``template`` or ``copy`` (of a file).
    way: str
    #: Seconds that making it took.
    took: float
    #: How large it is.
    bytes: int
    #: What in it is not as the tenant has it, for people.
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Footprint:
    """How large a tenant is, and how old."""

    #: With its indexes, about: as vacuum or the file system tells.
    bytes: int
    #: Says whose place was made before whose on one server: a smaller number came first. 0 where that is not known.
    made: int
