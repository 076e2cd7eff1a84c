"""Bring an empty place to a target, by the fastest way that can be shown to make what Alembic makes."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.actions.onboarding import blueprints
from orchestrator.actions.onboarding.blueprints import Kind, Store
from orchestrator.actions.project import Project, migrating
from orchestrator.databases.claims import Template
from orchestrator.databases.failures import Failure, describe
from orchestrator.databases.postgresql.script import REFUSED, Snapshot, Step
from orchestrator.errors import AlreadyThere, DatabaseError, OtherShape
from orchestrator.fleet.tenant import Isolation, Limits, Tenant
from orchestrator.migration.attempt import Migrator
from orchestrator.migration.seam import self_check
from orchestrator.migration.stand_in import NotReplayed
from orchestrator.migration.work import Work
from orchestrator.rollout.blueprints import Blueprint, described
from orchestrator.statuses import TenantStatus

#: What the guards of a schema that is filled say, for people.
_REFUSED = {
    "database": "the connection leads to another database",
    "locked": "another process is at work on the tenant",
    "scope": "the migrating role may not use the schema",
    "empty": "its schema holds something already",
    "heads": "its version table did not say the target's heads afterwards",
}


class Way(StrEnum):
    """How a new tenant comes to its tables, fastest first."""

    #: A copy of a database or file that is kept at the target.
    TEMPLATE = "template"
    #: What two scratch tenants were sent, sent again.
    REPLAY = "replay"
    #: What a scratch tenant holds, restored under the tenant's name.
    SNAPSHOT = "snapshot"
    #: Revision by revision.
    ALEMBIC = "alembic"


@dataclass(frozen=True, slots=True)
class Made:
    """How a tenant came to its target."""

    way: Way
    #: What its version table says, read again at the end; sorted.
    heads: tuple[str, ...]
    duration_ms: float
    #: Why faster ways were not taken, by way, for people.
    not_taken: Mapping[Way, str] = field(default_factory=dict)


class NotMade(DatabaseError):
    """A tenant did not come to its target.

    Args:
        failure: why.
        status: how the attempt ended; ``locked`` where another process is at work on the tenant.
        heads: where it is now; ``None`` where that could not be read.
    """

    def __init__(self, message: str, failure: Failure, status: TenantStatus, heads: tuple[str, ...] | None) -> None:
        super().__init__(message, hint=failure.hint)
        self.failure = failure
        self.status = status
        self.heads = heads


async def make(
    project: Project,
    tenant: Tenant,
    target: str,
    *,
    application: str,
    limits: Limits,
    ways: Collection[Way] | None = None,
) -> Made:
    """Bring ``tenant`` to ``target``; its place is made where it is missing, and holds nothing where it is there.

    Faster ways than Alembic are taken where :func:`prepare` has made what they need, and only for what then comes out
    as Alembic makes it. A tenant that is already on its way (a killed call's, somebody else's) is taken on from there
    by Alembic; so the same call again finishes what was cut off.

    Args:
        project: opened; what does not change from tenant to tenant is kept in it.
        tenant: on one of the project's servers; it need not be in the fleet.
        target: ``heads``, ``label@head`` or a revision.
        application: how connections name themselves to the server.
        limits: timeouts, over the tenant's, its server's and the fleet's.
        ways: those that may be taken; ``None`` for all. Alembic is always one of them.

    Raises:
        NotMade: it is not at its target.
        OrchestratorError: its place cannot be made.
    """
    started = time.perf_counter()
    made = await make_fast(project, tenant, target, application=application, limits=limits, ways=ways)
    if isinstance(made, Made):
        return made
    migrator = await _Maker(project).migrator(application, limits)
    heads = await _by_alembic(migrator, tenant, target)
    return Made(Way.ALEMBIC, heads, (time.perf_counter() - started) * 1000, made)


async def make_fast(
    project: Project,
    tenant: Tenant,
    target: str,
    *,
    application: str,
    limits: Limits,
    ways: Collection[Way] | None = None,
) -> Made | Mapping[Way, str]:
    """As :func:`make`, but never by Alembic.

    Returns:
        How it was made; or, where it was not and its place is as it was, why each way was not taken.
    """
    maker = _Maker(project)
    migrator = await maker.migrator(application, limits)
    started = time.perf_counter()
    not_taken: dict[Way, str] = {}
    for way in _ways(tenant, ways):
        try:
            heads = await maker.take(way, migrator, tenant, target)
        except _NotTaken as reason:
            not_taken[way] = str(reason)
        else:
            return Made(way, heads, (time.perf_counter() - started) * 1000, not_taken)
    return not_taken


async def prepare(project: Project, tenant: Tenant, target: str) -> Blueprint:
    """Make what :func:`make` needs to bring tenants like ``tenant`` to ``target`` fast, where it is not there.

    For a deploy, before the first sign-up; never in a sign-up itself, which it would hold up by the time of two
    migrations.

    Args:
        project: opened.
        tenant: an example, on one of its servers; it need not be there, and is not touched.
        target: ``heads``, ``label@head`` or a revision.

    Returns:
        What was made; its ``closed`` says why a way will not be taken.

    Raises:
        OrchestratorError: the directory does not lead there, or nothing can be made on the server.
    """
    return await blueprints.prepare(project, tenant, target, _Maker(project).store)


async def blueprint_of(project: Project, tenant: Tenant, target: str) -> Blueprint | None:
    """What was prepared for tenants like ``tenant``; ``None`` for nothing.

    For whoever copies its template himself, and then compares the shape.

    Raises:
        OrchestratorError: no such target, or no connection.
    """
    store = _Maker(project).store
    return await store.load(tenant, await store.kind(tenant, target))


async def template_of(project: Project, tenant: Tenant, target: str) -> Template | None:
    """What databases of tenants like ``tenant`` are copied from; ``None`` where nothing is prepared, or none may be.

    Raises:
        OrchestratorError: no such target, or no connection.
    """
    found = await blueprint_of(project, tenant, target)
    if found is None or found.template is None:
        return None
    return Template(found.template, found.shape, found.heads, project.loop.version_table)


async def template_for(project: Project, tenant: Tenant, target: str) -> Template | None:
    """:func:`template_of`, but only where env.py does for ``tenant`` what it did for the template.

    A revision may look at what env.py configures, and put it into rows: no shape would show that.

    Raises:
        OrchestratorError: no such target, or no connection.
    """
    maker = _Maker(project)
    kind = await maker.store.kind(tenant, target)
    blueprint = await maker.store.load(tenant, kind)
    if blueprint is not None and blueprint.template is not None:
        try:
            migrator = await maker.migrator("orchestrator onboard", Limits())
            maker.compare_env(migrator, tenant, target, kind, blueprint)
        except Exception:
            # Whatever it is, Alembic then says it, on the way that always can be gone.
            return None
    return await template_of(project, tenant, target)


class _NotTaken(Exception):
    """This way cannot be taken; the message says why."""


def _ways(tenant: Tenant, asked: Collection[Way] | None) -> list[Way]:
    there = [Way.REPLAY, Way.SNAPSHOT] if tenant.isolation is Isolation.SCHEMA else [Way.TEMPLATE]
    return [way for way in there if asked is None or way in asked]


class _Maker:
    """Makes tenants of one project; what stays the same from one to the next is in the store's memory."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self.store = Store(project)

    async def migrator(self, application: str, limits: Limits) -> Migrator:
        """What brings tenants to their target through Alembic."""
        memory = self.store.memory
        if memory.concurrent is None:
            memory.concurrent = await self_check()
        return Migrator(
            self._project.fleet,
            self._project.history,
            self._project.loop,
            self._project.databases,
            application=application,
            provision=True,
            asked=limits,
            concurrent=memory.concurrent,
        )

    async def take(self, way: Way, migrator: Migrator, tenant: Tenant, target: str) -> tuple[str, ...]:
        """Bring ``tenant`` to ``target`` by one of the fast ways; its heads there.

        Raises:
            _NotTaken: nothing was done, or all of it was taken back.
        """
        try:
            kind = await self.store.kind(tenant, target)
            blueprint = await self.store.load(tenant, kind)
            if blueprint is None:
                raise _NotTaken("nothing is prepared for it")
            if way in blueprint.closed:
                raise _NotTaken(blueprint.closed[way])
            self.compare_env(migrator, tenant, target, kind, blueprint)
            if way is Way.TEMPLATE:
                await self._copy(migrator, tenant, kind, blueprint)
            else:
                await self._fill(
                    migrator, tenant, blueprint.step if way is Way.REPLAY else blueprint.snapshot, blueprint
                )
        except (_NotTaken, NotReplayed) as error:
            raise _NotTaken(str(error)) from error
        except Exception as error:
            raise _NotTaken(_told(describe(error).message)) from error
        return blueprint.heads

    def compare_env(self, migrator: Migrator, tenant: Tenant, target: str, kind: Kind, blueprint: Blueprint) -> None:
        """Make sure that env.py does for this tenant what it did for the blueprint."""
        if not migrator.concurrent:
            raise _NotTaken("this Alembic is not known well enough to ask env.py what it would do")
        found = blueprints.asked_of_env(self._project, tenant, target)
        options = self.store.memory.options
        if kind not in options and described(found) == blueprint.options:
            options[kind] = found
        if options.get(kind) != found:
            raise _NotTaken("env.py configures Alembic differently for this tenant")

    async def _fill(
        self, migrator: Migrator, tenant: Tenant, made: Step | Snapshot | None, blueprint: Blueprint
    ) -> None:
        if made is None:
            raise _NotTaken("there is a faster one")
        database = self._project.databases[tenant.server]
        await database.provision(tenant)
        name, limits = migrator.connection_name(tenant), migrator.limits(tenant)
        await database.fill(tenant, made, blueprint.shape, self._project.loop.version_table, name, limits)

    async def _copy(self, migrator: Migrator, tenant: Tenant, kind: Kind, blueprint: Blueprint) -> None:
        if tenant.database is None and tenant.file is None:
            raise _NotTaken("it has the database of its server's address")
        assert blueprint.template is not None
        database = self._project.databases[tenant.server]
        table = self._project.loop.version_table
        try:
            await database.copy_template(tenant, blueprint.template, blueprint.shape, blueprint.heads, table)
        except (AlreadyThere, OtherShape):
            raise
        except Exception:
            # Whatever it is: a template that is gone is found out by looking again.
            self.store.forget(kind)
            raise


def _told(message: str) -> str:
    word = message.rpartition(REFUSED)[2].strip('"') if REFUSED in message else ""
    return _REFUSED.get(word, message)


async def _by_alembic(migrator: Migrator, tenant: Tenant, target: str) -> tuple[str, ...]:
    with migrating(migrator):
        outcome = await migrator.attempt(tenant, Work.of(migrator.history, "upgrade", target))
    if outcome.status in (TenantStatus.SUCCEEDED, TenantStatus.ALREADY_CURRENT):
        assert outcome.after is not None
        return outcome.after
    failure = outcome.failure or Failure(outcome.status.value, f"it is {outcome.status.value}")
    where = f" in revision {failure.revision}" if failure.revision else ""
    raise NotMade(
        f"tenant {tenant.id} is not at {target}{where}: {failure.message}", failure, outcome.status, outcome.after
    )
