"""One tenant's Alembic environment: what env.py configures is checked against the tenant, and each step is watched."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.util import to_tuple
from sqlalchemy import Connection, event
from sqlalchemy.util import await_only

from orchestrator.databases.postgresql.concurrently import LEADING
from orchestrator.errors import ConfigurationError, DatabaseError
from orchestrator.fleet.tenant import Tenant
from orchestrator.migration.literals import write_literals
from orchestrator.migration.outside import Keep, Outside, shortened
from orchestrator.migration.recording import OWN, Recording

#: SQL that ends a transaction: each statement after it stands for itself.
_END = re.compile(
    LEADING
    + r"(?:(COMMIT|END|PREPARE\s+TRANSACTION)|ROLLBACK(?!\s+(?:(?:WORK|TRANSACTION)\s+)?TO\b)|ABORT)\b"
    + r"(?!\s+PREPARED\b)",
    re.IGNORECASE | re.DOTALL,
)
#: SQL that leaves nothing behind which a rollback could take away.
_IDLE = re.compile(
    LEADING + r"(?:SELECT|SHOW|SET|RESET|BEGIN|START|SAVEPOINT|RELEASE|ROLLBACK|ABORT|COMMIT|END|FETCH|EXPLAIN)\b",
    re.IGNORECASE | re.DOTALL,
)
#: Statements of a transaction that are remembered: the last ones.
_REMEMBERED = 10


@dataclass(frozen=True, slots=True)
class StepDone:
    """One revision that Alembic ran. Reported before its commit: progress, not proof."""

    revision: str
    #: ``upgrade``, ``downgrade`` or ``stamp``.
    direction: str
    #: ``None`` where several went in one message to the server.
    duration_ms: float | None


@dataclass(slots=True)
class Progress:
    """What has happened in one attempt so far, written from inside the migration and read by whoever reports it."""

    #: The revision that is running.
    revision: str | None = None
    #: Between a revision's first statement and the end of its own work; its commit comes after that.
    running: bool = False
    #: The running transaction was left or committed from inside a revision: what was done by then stays.
    outside_transaction: bool = False
    #: Some revision has left its transaction.
    left_transaction: bool = False
    #: The running revision has changed something in the running transaction.
    changed: bool = False
    #: It has rolled back what it had changed.
    undone: bool = False
    #: The heads that Alembic reported after the last finished revision.
    heads: tuple[str, ...] | None = None
    done: list[StepDone] = field(default_factory=list)
    #: Where what is sent is to be recorded.
    recording: Recording | None = None
    #: Called for each finished revision.
    listener: Callable[[StepDone], None] = lambda _: None
    #: ``upgrade``, ``downgrade`` or ``stamp``.
    command: str = "upgrade"
    #: Writes down what is done outside transactions, before it is.
    keep: Keep | None = None
    #: Names and identities of the indexes that are invalid now.
    look: Callable[[], Awaitable[Mapping[str, int]]] | None = None
    #: What was done last outside any transaction, by the running revision or an earlier one.
    outside: Outside | None = None
    #: What the attempt has sent outside any transaction.
    sent_outside: list[str] = field(default_factory=list)
    #: The indexes that were invalid before the attempt first left a transaction.
    invalid_before: Mapping[str, int] = field(default_factory=dict)
    #: Each statement stands for itself at this moment.
    bare: bool = False
    #: The last statements of the running transaction.
    inside: deque[str] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    #: What is to be undone when the environment is left.
    ending: ExitStack = field(default_factory=ExitStack)
    _at: tuple[str, ...] = ()
    _started: float = 0.0

    def begin(self, revision: str, heads: Collection[str], *, own_transaction: bool) -> None:
        """A revision starts; unless in its own transaction, the version of the one before may still be undone.

        Args:
            revision: which.
            heads: what the version table said when Alembic began, before the first revision.
            own_transaction: whether each revision has one.
        """
        if self.recording is not None:
            self.recording.revision_begins(revision, heads if self.heads is None else self.heads)
        self.revision = revision
        self.running = True
        self._at = tuple(sorted(heads)) if self.heads is None else self.heads
        if own_transaction:
            self.settle()
            self.inside.clear()
        self.bare = self.changed = self.undone = False
        self._started = time.perf_counter()

    def leave(self, *, done: bool = True) -> None:
        """The running revision is about to leave its transaction, or to commit it: from now on something stays.

        To be called in a migration's greenlet: it waits until that is written down.

        Args:
            done: whether what it did in the transaction stays, too; not where it works on a second connection.

        Raises:
            Exception: it could not be written down, or must not be done.
        """
        if not self.left_transaction and self.look is not None:
            try:
                self.invalid_before = await_only(self.look())
            except Exception:
                # The transaction is a failed one, and can only be rolled back: nothing was there to compare with.
                self.invalid_before = {}
        outside = self.outside if self.outside_transaction else None
        if outside is None:
            invalid = tuple(self.invalid_before)
            outside = Outside(self.revision or "", self.command, (self._at,), invalid_before=invalid)
        elif outside.revision != self.revision:
            outside = replace(outside, revision=self.revision or "", heads=(*outside.heads, self._at))
        if done:
            outside = outside.stays(*self.inside)
        if self.keep is not None:
            await_only(self.keep(outside))
        if done:
            self.inside.clear()
            self.changed = False
        self.outside = outside
        self.outside_transaction = self.left_transaction = True

    def roll_back(self) -> None:
        """What the running revision did in the running transaction is gone."""
        self.undone = self.undone or self.changed
        self.changed = False
        self.inside.clear()

    def settle(self) -> None:
        """What was done outside a transaction is through, and the version table says so."""
        self.outside_transaction = False
        if self.outside is not None:
            self.outside = replace(self.outside, done=True)

    def finish(self, direction: str, heads: Collection[str]) -> None:
        """The running revision is through, its commit still to come."""
        self.running = False
        self.heads = tuple(sorted(heads))
        if self.recording is not None:
            self.recording.revision_ends(self.heads)
        step = StepDone(self.revision or "", direction, (time.perf_counter() - self._started) * 1000)
        self.done.append(step)
        self.listener(step)


def scoped(
    environment: EnvironmentContext, tenant: Tenant, version_table: str, dialect: str, progress: Progress
) -> EnvironmentContext:
    """Make ``environment.configure`` safe for this tenant, and let ``progress`` watch the steps.

    Args:
        environment: not yet entered.
        tenant: whose it is.
        version_table: the name that env.py gave to ``for_each_tenant``.
        dialect: for rendering offline, where there is no connection to take it from.
        progress: told of every step.
    """
    configure_alembic = environment.configure
    steps = environment.context_opts.get("fn")
    if steps is not None:
        environment.context_opts["fn"] = _watched(steps, progress)

    def configure(connection: Connection | None = None, *args: Any, **options: Any) -> None:
        check_options(options, tenant, version_table)
        if connection is None:
            if not {"url", "dialect_name"} & options.keys() and not args:
                options["dialect_name"] = dialect
                # The default driver of the dialect is written for format strings, and would print every % twice.
                options.setdefault("dialect_opts", {"paramstyle": "named"})
            if environment.context_opts.get("as_sql"):
                # Whatever env.py says: a script with placeholders in it cannot be run.
                options["literal_binds"] = True
        elif connection.in_transaction():
            # env.py has executed something, and Alembic would take the transaction that SQLAlchemy began for it as the
            # caller's: it would never commit, and all would be rolled back at close with success reported.
            connection.commit()
        options["version_table"] = version_table
        comparing = "revision_context" in environment.context_opts
        # Compared with the models, tables of the connection's own schema have no schema name, and only a version table
        # without one is recognised among them.
        options["version_table_schema"] = None if comparing else tenant.schema
        if dialect == "sqlite":
            # Alembic's default says SQLite cannot; with BEGIN emitted by the adapter it can.
            options.setdefault("transactional_ddl", True)
        if options.get("on_version_apply") and progress.recording is not None:
            progress.recording.spoil("env.py passes on_version_apply")
        options["on_version_apply"] = (
            *to_tuple(options.get("on_version_apply"), default=()),
            _applied(tenant, progress),
        )
        configure_alembic(connection, *args, **options)
        if connection is None:
            write_literals(environment.get_context().dialect)
        _watch_autocommit(environment.get_context(), progress)
        if connection is not None:
            _watch_ends(connection, progress, version_table)
            if progress.recording is not None:
                progress.recording.configured(environment.get_context(), options)

    environment.configure = configure  # type: ignore[method-assign]
    if progress.recording is not None:
        progress.recording.watch_run(environment)
    return environment


def check_options(options: Mapping[str, Any], tenant: Tenant, version_table: str) -> None:
    """Refuse what would read or write another tenant's version table.

    Args:
        options: what env.py passes to ``context.configure()``.
        tenant: whom it is for.
        version_table: the name that env.py gave to ``for_each_tenant``.

    Raises:
        ConfigurationError: with what to write instead.
    """
    schema = options.get("version_table_schema", tenant.schema)
    if schema != tenant.schema:
        raise ConfigurationError(
            f"tenant {tenant.id}: env.py passes version_table_schema={schema!r}, its schema is {tenant.schema!r}",
            hint="pass version_table_schema=tenant.schema to context.configure() in env.py",
        )
    table = options.get("version_table", version_table)
    if table != version_table:
        raise ConfigurationError(
            f"env.py passes version_table={table!r} to context.configure() and {version_table!r} to for_each_tenant()",
            hint=f"say for_each_tenant(migrate, version_table={table!r})",
        )


def _watched(steps: Callable[..., Iterable[Any]], progress: Progress) -> Callable[..., Iterable[Any]]:
    """Alembic takes the steps one by one and runs each before it asks for the next."""

    def each(heads: Any, context: MigrationContext) -> Iterator[Any]:
        for step in steps(heads, context):
            revision = getattr(step, "revision", None)
            name = getattr(revision, "revision", None) or ",".join(step.to_revisions)
            progress.begin(name, heads, own_transaction=context._transaction_per_migration)
            yield step

    return each


def _applied(tenant: Tenant, progress: Progress) -> Callable[..., None]:
    def callback(*, ctx: MigrationContext, step: Any, heads: Collection[str], **_: Any) -> None:
        _check_scope(ctx, tenant)
        if progress.undone:
            raise DatabaseError(
                "this revision has rolled back what it had done before: its version would stand for what is not there",
                hint="take the rollback out, or let it come before the revision changes anything",
            )
        direction = "stamp" if step.is_stamp else "upgrade" if step.is_upgrade else "downgrade"
        progress.finish(direction, heads)

    return callback


def _check_scope(context: MigrationContext, tenant: Tenant) -> None:
    """Refuse a revision after which unqualified names mean another schema; it is not committed yet."""
    if tenant.schema is None or context.as_sql or context.connection is None or context.dialect.name != "postgresql":
        return
    current = context.connection.exec_driver_sql("SELECT current_schema()", execution_options={OWN: True}).scalar()
    if current != tenant.schema:
        raise DatabaseError(
            f"search_path no longer leads to the tenant's schema {tenant.schema!r} but to {current!r}: "
            "this revision or env.py has changed it",
            hint="take the SET or RESET of search_path out, and write other schemas' names in front of their tables",
        )


def _watch_autocommit(context: MigrationContext, progress: Progress) -> None:
    enter = context.autocommit_block

    @contextmanager
    def watched() -> Iterator[None]:
        if context.as_sql:
            with enter():
                yield
            return
        progress.leave()
        progress.bare = True
        try:
            with enter():
                yield
        finally:
            progress.bare = False

    context.autocommit_block = watched  # type: ignore[method-assign]


def _watch_ends(connection: Connection, progress: Progress, version_table: str) -> None:
    """Notice a revision that ends its transaction by itself, as was usual before Alembic had autocommit blocks."""

    def committed(_: Connection) -> None:
        if progress.running and not progress.bare:
            progress.leave()

    def rolled_back(_: Connection) -> None:
        if progress.running:
            progress.roll_back()

    def executed(executing: Connection, _cursor: Any, statement: str, _: Any, state: Any, *__: Any) -> None:
        if not progress.running or (state is not None and state.execution_options.get(OWN)):
            return
        if statement == "BEGIN" or version_table in statement:
            # The adapter's, and Alembic's own.
            return
        if executing is not connection:
            # A second one of the engine: whether its transaction is committed or there is none, it may stay.
            if not _IDLE.match(statement):
                progress.leave(done=False)
                _sends(progress, statement)
        elif progress.bare:
            _sends(progress, statement)
        elif end := _END.match(statement):
            if end[1] is None:
                progress.roll_back()
            progress.leave()
            progress.bare = True
        else:
            progress.changed = progress.changed or not _IDLE.match(statement)
            progress.inside.append(statement)

    def through(_connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if progress.outside is not None and progress.outside.current == shortened(statement):
            progress.outside = progress.outside.ends()

    event.listen(connection, "commit", committed)
    event.listen(connection, "rollback", rolled_back)
    # Of the engine, which serves other tenants afterwards: a migration may connect a second time.
    for name, listener in (("before_cursor_execute", executed), ("after_cursor_execute", through)):
        event.listen(connection.engine, name, listener)
        progress.ending.callback(event.remove, connection.engine, name, listener)


def _sends(progress: Progress, statement: str) -> None:
    """A statement that stands for itself is about to be sent."""
    assert progress.outside is not None
    progress.sent_outside.append(statement)
    progress.outside = progress.outside.begins(statement)
    if progress.keep is not None:
        await_only(progress.keep(progress.outside))
