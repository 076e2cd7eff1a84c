"""What is looked at while a migration runs on a tenant's clone, as values; each dialect has a meter of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class Held:
    """A lock on a table, held at one moment."""

    #: What the server knows the table by.
    table: int
    #: In PostgreSQL's own words: ``AccessExclusiveLock``.
    mode: str


@dataclass(frozen=True, slots=True)
class Outside:
    """What another connection sees of the migrating one."""

    #: Its locks on tables.
    locks: frozenset[Held] = frozenset()
    #: Where the server's write-ahead log ends, in bytes; ``None`` where it has none, or does not tell.
    wal: int | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table as the migrating transaction sees it."""

    name: str
    #: What changes when all of it is written anew.
    storage: int
    #: About; ``None`` where nobody has counted.
    rows: int | None = None
    bytes: int = 0
    #: Names of its indexes, and what changes when one is built anew.
    indexes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Inside:
    """What the migrating connection itself sees."""

    #: By what the server knows them by.
    tables: Mapping[int, Table] = field(default_factory=dict)
    #: Rows inserted, updated and deleted by this transaction so far, by table; under ``None`` where the dialect does
    #: not tell which table's.
    written: Mapping[int | None, int] = field(default_factory=dict)
    #: Of them, updated and deleted: rows that nobody else may write before this transaction ends.
    changed: Mapping[int | None, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Contents:
    """What tables hold: equal where all rows are, whatever the order of rows and columns."""

    #: By table: how many rows, and what they come to.
    tables: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    #: Tables that are too large to be gone through.
    too_large: tuple[str, ...] = ()


class Meter(Protocol):
    """Looks at one tenant's migrating connection."""

    #: Why there are no locks to be seen; ``None`` where there are.
    no_locks: str | None
    #: Why there is no write-ahead log to be measured; ``None`` where there is.
    no_wal: str | None

    async def outside(self, connection: Connection) -> Outside:
        """From another connection; may be asked while the migrating one is at work."""
        ...

    def stands_for_itself(self, connection: Connection) -> bool:
        """Whether the next statement of the migrating connection is in no transaction."""
        ...

    def inside(self, connection: Connection) -> Inside:
        """From the migrating connection, in its transaction; to be called in its greenlet."""
        ...

    async def contents(self, version_table: str) -> Contents:
        """What all tables hold now, but for the version table's; not to be asked while a migration runs."""
        ...

    def unheard(self, option: str) -> None:
        """Mark its own statements with an execution option, by which listeners know them."""
        ...
