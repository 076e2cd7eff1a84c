"""What every adapter tells of its server and of tenants, changing nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator.databases.answers import Check, Reading
from orchestrator.databases.cloning import Footprint
from orchestrator.databases.definitions import Definition
from orchestrator.databases.findings import Finding
from orchestrator.databases.sizes import Size
from orchestrator.fleet.tenant import Tenant

if TYPE_CHECKING:
    from orchestrator.history.reach import Reach


class Looking(Protocol):
    """What a server is asked."""

    async def read(self, tenants: Sequence[Tenant], version_table: str) -> Mapping[str, Reading]:
        """Read the heads of ``tenants`` (all on this server) with as few connections as can be; never raises."""
        ...

    async def fingerprints(
        self, tenants: Sequence[Tenant], version_table: str, also: frozenset[str] = frozenset()
    ) -> Mapping[str, str]:
        """Digest the shape of what ``tenants`` (all on this server) hold: its definitions, not its rows.

        Two tenants of one dialect and server version with the same objects get the same digest, whatever their schemas,
        databases or files are called. The adapters' ``fingerprint`` modules say what counts.

        Args:
            tenants: tenants on this server.
            version_table: name of the version table; it counts like any other, what it says does not.
            also: what else counts, where there is such a thing:
                :data:`~orchestrator.databases.definitions.COMMENTS`, ``OWNERS``.

        Returns:
            Digests by tenant id. Tenants that cannot be read, or are not there, are left out; never raises for them.
        """
        ...

    async def look(
        self, tenants: Sequence[Tenant], version_table: str, also: frozenset[str] = frozenset()
    ) -> tuple[Mapping[str, Reading], Mapping[str, str]]:
        """What :meth:`read` and then :meth:`fingerprints` find, with the connections of one of them; never raises.

        Heads come first: whoever is migrated meanwhile has others afterwards, and is found out by that.
        """
        ...

    async def definitions(
        self, tenants: Sequence[Tenant], also: frozenset[str] = frozenset()
    ) -> Mapping[str, Sequence[Definition]]:
        """Read in full what :meth:`fingerprints` digests.

        Args:
            tenants: few tenants on this server: all that is read is held.
            also: as for :meth:`fingerprints`.

        Returns:
            Definitions by tenant id, without tenants that cannot be read, or are not there; never raises for them.
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

    async def footprints(self, tenants: Sequence[Tenant]) -> Mapping[str, Footprint]:
        """How large and how old ``tenants`` (all on this server) are, without a lock on anything of theirs.

        Returns:
            By tenant id, without those that are not there, or cannot be looked at.

        Raises:
            OrchestratorError: no connection.
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
