"""Let Alembic compare the models with one tenant, through env.py, so that all its options and hooks count."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from alembic.autogenerate import RevisionContext
from alembic.runtime.environment import EnvironmentContext
from alembic.util import CommandError
from sqlalchemy import Connection

from orchestrator.actions.project import Project, migrating
from orchestrator.actions.revising.asked import Asked
from orchestrator.databases.failures import describe
from orchestrator.databases.own_names import OURS
from orchestrator.errors import ConfigurationError, OrchestratorError
from orchestrator.fleet.tenant import Tenant
from orchestrator.history.directory import History
from orchestrator.migration.attempt import Migrator
from orchestrator.migration.scope import Progress
from orchestrator.migration.seam import self_check


class _Directory:
    """The directory as a RevisionContext asks it: its "heads" are those that the reference was brought to.

    Alembic refuses what is not at all heads; a tenant that follows one of several branches never is.
    """

    def __init__(self, history: History, heads: Collection[str]) -> None:
        self._script = history.script
        self._heads = tuple(heads)

    def get_revisions(self, which: Any) -> Any:
        return self._script.get_revisions(self._heads if which == "heads" else which)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._script, name)


def revision_context(history: History, asked: Asked, heads: Collection[str] | None = None) -> RevisionContext:
    """What Alembic writes revisions from.

    Args:
        history: the shared directory.
        asked: what for.
        heads: of the reference; ``None`` where nothing is compared.
    """
    directory: Any = history.script if heads is None else _Directory(history, heads)
    return RevisionContext(history.config, directory, asked.for_alembic())


async def compare(project: Project, scratch: Tenant, context: RevisionContext) -> None:
    """Fill ``context`` with what the models have and ``scratch`` has not, and the other way round.

    Raises:
        OrchestratorError: env.py names no models, or they cannot be compared.
    """
    migrator = Migrator(project.fleet, project.history, project.loop, project.databases, concurrent=await self_check())
    others = {tenant.schema for tenant in project.fleet.tenants if tenant.schema is not None}

    def run(connection: Connection) -> None:
        with migrator.environment(scratch, _options(context, context.run_autogenerate), Progress()) as environment:
            leave_out(environment, others - {scratch.schema})
            migrator.loop.migrate(connection, scratch)

    database = project.databases[scratch.server]
    try:
        with migrating(migrator):
            async with database.session(scratch, "orchestrator revision", migrator.limits(scratch)) as session:
                await session.connection.run_sync(run)
    except (OrchestratorError, CommandError):
        raise
    except Exception as error:
        raise ConfigurationError(
            f"the models cannot be compared: {type(error).__name__}: {describe(error).message}",
            file=project.history.script.env_py_location,
            hint="look at what env.py passes to context.configure(), and at the models",
        ) from error


def run_env(migrator: Migrator, tenant: Tenant, context: RevisionContext) -> None:
    """Run env.py without a database, for its hooks and the template's arguments: ``revision_environment = true``."""
    with migrating(migrator):
        options = {**_options(context, context.run_no_autogenerate), "as_sql": True, "output_buffer": io.StringIO()}
        with migrator.environment(tenant, options, Progress()):
            migrator.loop.migrate(None, tenant)


def _options(context: RevisionContext, compare: Callable[..., None]) -> Mapping[str, Any]:
    """What ``alembic revision`` gives its EnvironmentContext."""

    def steps(heads: Any, migration: Any) -> Iterable[Any]:
        compare(heads, migration)
        return []

    return {"fn": steps, "template_args": context.template_args, "revision_context": context}


def leave_out(environment: EnvironmentContext, schemas: Collection[str | None]) -> None:
    """Keep other tenants' schemas out of the comparison, where env.py asks for every schema of the database.

    Args:
        environment: of the tenant that is compared.
        schemas: of the other tenants.
    """
    configure_alembic = environment.configure

    def configure(connection: Connection | None = None, *args: Any, **options: Any) -> None:
        theirs = options.get("include_name")

        def include(name: str | None, kind: str, parents: Any) -> bool:
            if kind == "schema" and name is not None and (name in schemas or name.startswith(OURS)):
                return False
            return theirs is None or bool(theirs(name, kind, parents))

        if options.get("include_schemas"):
            options["include_name"] = include
        configure_alembic(connection, *args, **options)

    environment.configure = configure  # type: ignore[method-assign]


def is_empty(context: RevisionContext) -> bool:
    """Whether nothing is to be done to any tenant."""
    return all(operations.is_empty() for each in context.generated_revisions for operations in each.upgrade_ops_list)
