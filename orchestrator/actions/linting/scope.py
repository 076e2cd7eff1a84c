"""Which revisions ``lint`` looks at, and as whose they are rendered: with servers, or without any."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from orchestrator.actions.project import Project
from orchestrator.actions.servers import Tenants
from orchestrator.databases.connect import connect
from orchestrator.databases.port.database import Database
from orchestrator.errors import ConfigurationError, ServerUnreachable, UsageError
from orchestrator.fleet import urls
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.secrets import Template
from orchestrator.fleet.sources import DatabaseSource
from orchestrator.fleet.tenant import Isolation, Tenant
from orchestrator.history.directory import History
from orchestrator.migration.loop import TenantLoop, load_loop
from orchestrator.rollout.plan import NOT_MIGRATED
from orchestrator.rollout.planning import Request
from orchestrator.statuses import TenantStatus

log = logging.getLogger("orchestrator.lint")

#: Before the first revision, as Alembic writes it.
_BASE = "base"
#: How to do without servers.
_WITHOUT = "orchestrator lint --all-revisions, or a range: orchestrator lint base:heads"


@dataclass(frozen=True, slots=True)
class Scope:
    """What is looked at."""

    #: ``pending``, ``range``, ``all``, or ``written`` for what was written just now.
    taken: str
    #: In an order to run them in.
    revisions: tuple[str, ...]
    history: History
    loop: TenantLoop
    #: As whose the SQL is rendered.
    example: Tenant
    databases: Mapping[str, Database]
    #: Of the oldest PostgreSQL server whose tenants are meant, where that was asked.
    version: str | None = None

    @property
    def dialect(self) -> str:
        """Of the SQL."""
        return self.databases[self.example.server].dialect


async def pending(project: Project, target: str | None, tenants: Tenants) -> Scope:
    """The revisions that one of the selected tenants has still to come by, seen from ``target``.

    Raises:
        ServerUnreachable: a tenant cannot be read: what is pending for it nobody knows.
        OrchestratorError: bad input.
    """
    chosen = project.choose(tenants)
    found = await project.inventory(chosen)
    made = project.plan_of(Request("upgrade", target, provision=True), chosen, found)
    away = [each for each in made.tenants if each.state is TenantStatus.UNREACHABLE]
    if away:
        names = ", ".join(each.tenant.id for each in away[:5]) + (", ..." if len(away) > 5 else "")
        raise ServerUnreachable(
            f"what is pending is not known: {len(away)} of {len(made.tenants)} tenants cannot be read ({names})",
            hint=f"leave them out (--exclude, --server), or ask no server: {_WITHOUT}",
        )
    aside = [each for each in made.tenants if each.verdict in NOT_MIGRATED]
    if aside:
        log.warning(
            "tenants that cannot be migrated do not count: %d of %d; see: orchestrator plan",
            len(aside),
            len(made.tenants),
        )
    paths = {revision for each in made.tenants for revision in each.path}
    versions = [version for dialect, version in found.kinds.values() if dialect == "postgresql"]
    return Scope(
        "pending",
        project.history.forward(paths),
        project.history,
        project.loop,
        # An empty shard is nobody, too.
        example([each.tenant for each in made.tenants if each.path] or chosen or project.fleet.tenants),
        project.databases,
        min(versions, key=_number, default=None),
    )


def all_revisions(fleet: Fleet, history: History, target: str | None) -> Scope:
    """Every revision up to ``target``, the heads where it is ``None``.

    Raises:
        OrchestratorError: there is no such revision, or env.py cannot be run.
    """
    if ":" in (target or ""):
        raise UsageError("--all-revisions and a range both say which", hint="leave one of them out")
    wanted = history.resolve("heads" if target is None else target)
    return _offline("all", fleet, history, history.graph.closure(wanted))


def between(fleet: Fleet, history: History, text: str) -> Scope:
    """The revisions of a range ``A:B``: what ``B`` has and ``A`` has not; left out, one is ``base`` or ``heads``.

    Raises:
        UsageError: both are left out: two variables that are unset, rather than everything.
        OrchestratorError: there is no such revision, or env.py cannot be run.
    """
    start, _, end = text.partition(":")
    if not start.strip() and not end.strip():
        raise UsageError(
            f"the range {text!r} names no revision",
            hint="name an end: orchestrator lint REV:heads; all are meant by: orchestrator lint --all-revisions",
        )
    before = history.graph.closure(history.resolve(start or _BASE))
    return _offline("range", fleet, history, history.graph.closure(history.resolve(end or "heads")) - before)


def shares_database(fleet: Fleet) -> bool:
    """Whether tenants are, or may be, schemas beside others: with sources unread, that is not known of all."""
    schemas = any(tenant.isolation is Isolation.SCHEMA for tenant in fleet.tenants)
    return schemas or any(not isinstance(source, DatabaseSource) for source in fleet.sources)


def _offline(taken: str, fleet: Fleet, history: History, revisions: Iterable[str]) -> Scope:
    loop = load_loop(history)
    whose = example(fleet.tenants) if fleet.tenants else stand_in(fleet)
    databases = {whose.server: adapter(fleet, whose)}
    return Scope(taken, history.forward(frozenset(revisions)), history, loop, whose, databases)


def example(tenants: Iterable[Tenant]) -> Tenant:
    """The tenant as whom to render: in PostgreSQL, where there is one, and in a schema there."""
    order = [Isolation.SCHEMA, Isolation.DATABASE, Isolation.FILE]
    return min(tenants, key=lambda tenant: order.index(tenant.isolation))


def stand_in(fleet: Fleet) -> Tenant:
    """A tenant of a fleet whose tenants only its sources know."""
    server = fleet.defaults.server or next(iter(fleet.servers), None)
    if server is None:
        raise UsageError(
            "there is no tenant and no server to say for which database revisions are rendered",
            hint="declare one in tenants.yaml: servers: {main: postgresql://db.internal/app}",
        )
    if urls.dialect_of(fleet.servers[server].url.from_environment()) == urls.SQLITE:
        return Tenant("tenant", server, Isolation.FILE, file=str(fleet.root / "tenant.db"))
    return Tenant("tenant", server, Isolation.SCHEMA, schema="tenant")


def adapter(fleet: Fleet, tenant: Tenant) -> Database:
    """The adapter of the tenant's server; where the address is a secret that is not here, one of its dialect."""
    server = fleet.servers[tenant.server]
    try:
        return connect(server)
    except ConfigurationError:
        dialect = urls.SQLITE if tenant.isolation is Isolation.FILE else "postgresql"
        return connect(replace(server, url=Template(f"{dialect}://", fleet.root)))


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
