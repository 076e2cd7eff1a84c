"""What every new tenant gets beside the shared tables: an owner, extensions, grants, rows. Only declared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.fleet.problems import suggestion
from orchestrator.fleet.sources import PythonSource


@dataclass(frozen=True, slots=True)
class Seed:
    """Rows that a new tenant begins with. One of the two."""

    #: A file of SQL, run in the tenant's scope in one transaction; absolute.
    sql: Path | None = None
    #: A function. It gets a connection in the tenant's scope, in a transaction, and the tenant.
    python: PythonSource | None = None

    def __str__(self) -> str:
        return str(self.sql) if self.python is None else self.python.callable


@dataclass(frozen=True, slots=True)
class Onboarding:
    """How tenants are made."""

    #: Role that owns the schema or database; ``None`` for the migrating role.
    owner: str | None = None
    #: Extensions of the database, made in the server's ``extensions_schema``.
    extensions: tuple[str, ...] = ()
    #: SQL for the empty place; ``{schema}``, ``{database}``, ``{tenant}`` and ``{owner}`` stand for the quoted names.
    statements: tuple[str, ...] = ()
    #: By name.
    seeds: Mapping[str, Seed] = field(default_factory=dict)
    #: Name of the seed for tenants that ask for none in particular.
    seed: str | None = None
    #: Databases that are kept ready on each server.
    pool: int = 0

    def seed_named(self, name: str | None) -> str | None:
        """The name of the seed for a tenant that asks for ``name``; ``None`` for no rows.

        Raises:
            UsageError: there is no such seed.
        """
        name = self.seed if name is None else name
        if name and name not in self.seeds:
            raise UsageError(
                f"there is no seed `{name}`",
                hint=suggestion(name, self.seeds) or "declare it in tenants.yaml under onboarding: seeds:",
            )
        return name or None
