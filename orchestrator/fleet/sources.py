"""Sources: where tenants come from that tenants.yaml does not write down one by one. Only declared here, never read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.fleet.tenant import Isolation, Tenant

#: Entry point group that packages register sources of their own in.
ENTRY_POINTS = "orchestrator.sources"


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for a tenant that does not say otherwise."""

    #: Server a tenant is on; ``None`` when it must say so.
    server: str | None = None
    #: What a tenant has of its own; ``None`` for a schema, or a file on a SQLite server.
    isolation: Isolation | None = None
    #: What a tenant is migrated to.
    target: str = "heads"
    #: Tags of a tenant that has none of its own.
    tags: tuple[str, ...] = ()
    #: Directory of tenants.yaml: relative paths are relative to it.
    root: Path = field(default_factory=Path)


@dataclass(frozen=True, slots=True)
class SqlSource:
    """Rows of a query. Its columns are named like a tenant's keys; a row without ``server`` is on the queried one."""

    sql: str
    #: Server whose own database is queried.
    server: str
    #: Statement that writes a new tenant there; ``None`` when onboarding does not register.
    register: str | None = None
    #: Statement that takes a tenant out; ``None`` when offboarding does not.
    unregister: str | None = None

    def __str__(self) -> str:
        return f"the SQL source on server {self.server}"


@dataclass(frozen=True, slots=True)
class SchemaSource:
    """Every schema of the server's own database that matches a glob is a tenant with that name."""

    pattern: str
    server: str

    def __str__(self) -> str:
        return f"the source schemas {self.pattern!r} on server {self.server}"


@dataclass(frozen=True, slots=True)
class DatabaseSource:
    """Every database of the server that matches a glob is a tenant with that name."""

    pattern: str
    server: str

    def __str__(self) -> str:
        return f"the source databases {self.pattern!r} on server {self.server}"


@dataclass(frozen=True, slots=True)
class PythonSource:
    """Rows, or tenants, that a callable of the user's returns; sync or async."""

    #: ``module:function``
    callable: str
    #: Directory that modules are looked for in first: that of tenants.yaml. ``None`` for the import path alone.
    root: Path | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"the Python source {self.callable}"


@dataclass(frozen=True, slots=True)
class EntryPointSource:
    """Rows, or tenants, that an installed package returns: a callable registered under ``orchestrator.sources``."""

    name: str
    #: Keyword arguments for the callable.
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return f"the source entry point {self.name}"


@dataclass(frozen=True, slots=True)
class Given:
    """Entries given for once: on the command line, in a file, by a program. Never declared in tenants.yaml."""

    #: What they are called, for people.
    name: str

    def __str__(self) -> str:
        return self.name


Source = SqlSource | SchemaSource | DatabaseSource | PythonSource | EntryPointSource
#: What a source yields: keys as in tenants.yaml; from a Python source also a tenant, from a pattern source a bare name.
Row = Mapping[str, Any] | Tenant | str
