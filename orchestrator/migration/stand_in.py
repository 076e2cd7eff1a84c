"""Ask env.py what it would do for one tenant, without a database: a replayed tenant goes the same way or none.

``migrate()`` may look at the tenant before it configures Alembic: leave some out, choose other options, write a log.
So it is called for every replayed tenant, too, with a connection that cannot be used and an environment that runs
nothing. What it asks for is compared with what it asked for when the recording was made.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn

from alembic.runtime.migration import MigrationContext

from orchestrator.fleet.tenant import Tenant
from orchestrator.history.directory import History
from orchestrator.migration.containment import is_its_own
from orchestrator.migration.loop import TenantLoop
from orchestrator.migration.recording import what_matters
from orchestrator.migration.scope import check_options
from orchestrator.migration.seam import TaskEnvironment


class NotReplayed(Exception):
    """This tenant has to go through Alembic; the message says why."""


class _NoConnection:
    """Where a connection is expected; whatever is done with it, the tenant cannot be replayed."""

    def __init__(self, environment: StandIn) -> None:
        object.__setattr__(self, "_environment", environment)

    def __getattr__(self, name: str) -> NoReturn:
        self._environment.refuse(f"env.py uses its connection: .{name}")

    def __setattr__(self, name: str, _: object) -> NoReturn:
        self._environment.refuse(f"env.py changes its connection: .{name}")


class StandIn(TaskEnvironment):
    """An environment that notes what is asked of it. Read-only questions are answered as usual."""

    def __init__(self, history: History, loop: TenantLoop, tenant: Tenant, work: Mapping[str, Any]) -> None:
        super().__init__(loop.config, history.script, **work)
        self._tenant = tenant
        self._version_table = loop.version_table
        self.options: dict[str, Any] | None = None
        self.runs = 0
        self.reason: str | None = None

    def refuse(self, reason: str) -> NoReturn:
        """Give up; remembered, because env.py may catch what is raised."""
        self.reason = self.reason or reason
        raise NotReplayed(reason)

    def configure(self, connection: Any = None, *args: Any, **options: Any) -> None:
        """Note the options."""
        if args or self.options is not None or not isinstance(connection, _NoConnection):
            self.refuse("env.py configures Alembic in a way of its own")
        check_options(options, self._tenant, self._version_table)
        self.options = what_matters(options)

    def begin_transaction(self) -> AbstractContextManager[None]:
        """There is nothing to commit."""
        return nullcontext()

    def run_migrations(self, **arguments: Any) -> None:
        """Note that they were to be run."""
        if arguments:
            self.refuse("env.py passes arguments to run_migrations()")
        self.runs += 1

    def get_context(self) -> MigrationContext:
        """Not to be had."""
        self.refuse("env.py asks for its migration context")

    def execute(self, *_: Any, **__: Any) -> None:
        """Not to be had."""
        self.refuse("env.py runs SQL of its own")

    def static_output(self, *_: Any) -> None:
        """Not to be had."""
        self.refuse("env.py writes into the script")


def check_env(
    history: History, loop: TenantLoop, tenant: Tenant, work: Mapping[str, Any], recorded: Mapping[str, Any]
) -> None:
    """Call env.py's ``migrate()`` for ``tenant`` and compare.

    Args:
        history: the shared directory.
        loop: env.py's part of the work.
        tenant: whom.
        work: what Alembic's own command would give its environment.
        recorded: what env.py configured Alembic with when the recording was made.

    Raises:
        NotReplayed: it would do something else, or something that cannot be compared.
    """
    if configured_for(history, loop, tenant, work) != recorded:
        raise NotReplayed("env.py configures Alembic differently for this tenant")


def configured_for(history: History, loop: TenantLoop, tenant: Tenant, work: Mapping[str, Any]) -> dict[str, Any]:
    """What env.py's ``migrate()`` configures Alembic with for ``tenant``, as far as revisions depend on it.

    Raises:
        NotReplayed: it does more than to configure Alembic and to run the migrations once.
    """
    environment = StandIn(history, loop, tenant, work)
    try:
        with environment:
            loop.migrate(_NoConnection(environment), tenant)  # type: ignore[arg-type]
    except NotReplayed:
        raise
    except BaseException as error:
        if not is_its_own(error):
            raise
        raise NotReplayed(f"env.py raises {type(error).__name__} for this tenant") from error
    if environment.reason is not None:
        raise NotReplayed(environment.reason)
    if environment.runs != 1:
        raise NotReplayed(f"env.py runs the migrations {environment.runs} times for this tenant")
    if environment.options is None:
        raise NotReplayed("env.py does not configure Alembic for this tenant")
    return environment.options
