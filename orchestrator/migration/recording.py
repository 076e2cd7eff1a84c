"""Record what Alembic sends for one tenant: every statement with its values, every transaction, every change of heads.

A recording is of use for other tenants only where it could not have come out differently for them. What it sees that
forbids this is kept beside the statements, in words for the operator.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, MetaData, Table, event
from sqlalchemy.schema import CreateTable

from orchestrator.databases.postgresql.concurrently import LEADING
from orchestrator.databases.postgresql.listeners import on_every_engine, on_every_pool
from orchestrator.databases.postgresql.script import Step
from orchestrator.migration.values import NotWritable, as_sql

#: Execution option of statements that this product asks on its own account, and that are no part of a migration.
OWN = "orchestrator_own"

#: What may stand in a script: it works within its transaction, and leaves the transaction and the session alone.
_REPLAYABLE = re.compile(
    LEADING
    + r"(?:(?:ALTER|ANALYZE|CLUSTER|COMMENT|CREATE|DELETE|DO|DROP|GRANT|INSERT|LOCK|MERGE|REFRESH|REINDEX|REVOKE"
    r"|SECURITY|SELECT|TRUNCATE|UPDATE|WITH)\b|SET\s+(?:LOCAL|CONSTRAINTS)\b|$)",
    re.IGNORECASE | re.DOTALL,
)

#: What the session keeps after the transaction, for the revisions that follow: settings, temporary tables, locks. Those
#: would be replayed in a session without it.
_LASTING = re.compile(
    "^"
    + LEADING
    + r"(?:SET\s+(?!LOCAL\b|CONSTRAINTS\b|TRANSACTION\b)|(?:RESET|DISCARD|LOAD|LISTEN|PREPARE|DEALLOCATE|DECLARE)\b)"
    r"|\bset_config\s*\((?!.*,\s*true\s*\))"
    r"|\b(?:CREATE|INTO|LOCAL|GLOBAL)\s+TEMP(?:ORARY)?\b(?!.*\bON\s+COMMIT\s+DROP\b)"
    r"|\bpg_(?:try_)?advisory_lock",
    re.IGNORECASE | re.DOTALL,
)

#: What env.py may configure differently for every tenant: it is checked by itself, or of use to autogenerate only.
_IRRELEVANT = frozenset(
    {
        "version_table",
        "version_table_schema",
        "on_version_apply",
        "include_object",
        "include_name",
        "include_schemas",
        "compare_type",
        "compare_server_default",
        "process_revision_directives",
        "render_item",
        "render_as_batch",
    }
)


@dataclass(frozen=True, slots=True)
class Recorded:
    """One transaction as it was recorded."""

    step: Step
    #: Why it must not be replayed; ``None`` when nothing was seen that forbids it.
    reason: str | None = None
    #: Alembic has something in mind for later revisions of the same tenant: the types that it has made.
    remembers: bool = False


@dataclass(slots=True)
class Recording:
    """What one tenant's migration has sent so far; :meth:`listen`, then read :attr:`transactions`."""

    #: Finished and committed, in order.
    transactions: list[Recorded] = field(default_factory=list)
    #: Why nothing of it can be replayed, whatever the revisions say: env.py does something that is not recorded.
    reason: str | None = None
    #: What env.py configured Alembic with, as far as revisions depend on it; ``None`` before that.
    options: Mapping[str, Any] | None = None
    _statements: list[str] = field(default_factory=list)
    _revisions: list[str] = field(default_factory=list)
    _before: tuple[str, ...] | None = None
    _after: tuple[str, ...] | None = None
    #: Why the running transaction must not be replayed.
    _spoilt: str | None = None
    #: Why no later one must be, either.
    _lasting: str | None = None
    _running: bool = False
    #: Within Alembic's own part of the work: what is sent between two revisions is Alembic's.
    _alembic: bool = False
    #: Within ``op.execute()``, which gives no result back to whoever called it.
    _resultless: bool = False
    _head_change: bool = False
    #: What Alembic keeps from one revision to the next (an ENUM type is not created twice).
    _memo: Mapping[str, Any] = field(default_factory=dict)
    _version: Table | None = None
    _create_version_table: str | None = None
    #: What transactions are isolated by; also after an autocommit block, which puts it back by name.
    _isolation: str | None = None

    def spoil(self, reason: str) -> None:
        """Say that nothing of this can be replayed; the first reason stays."""
        self.reason = self.reason or reason

    def watch_run(self, environment: EnvironmentContext) -> None:
        """Tell Alembic's own part of the work from env.py's."""
        run_migrations = environment.run_migrations

        def run(**arguments: Any) -> None:
            if arguments:
                self.spoil("env.py passes arguments to run_migrations()")
            self._alembic = True
            try:
                run_migrations(**arguments)
            finally:
                self._alembic = False

        environment.run_migrations = run  # type: ignore[method-assign]

    def listen(self, connection: Connection) -> None:
        """Hear what is sent on ``connection`` from now on; the listeners end with it."""
        self._isolation = connection.default_isolation_level
        if on_every_engine() or on_every_pool():
            self.spoil("env.py, or what it imports, listens to every connection")

        def begins(_: Connection, clause: Any, *__: Any) -> None:
            table = getattr(clause, "table", getattr(clause, "element", None))
            self._head_change = table is not None and table is self._version

        def executed(_: Connection, cursor: Any, statement: str, parameters: Any, state: Any, many: bool) -> None:
            head_change, self._head_change = self._head_change, False
            if not head_change and not (state and state.execution_options.get(OWN)):
                self._executed(cursor, statement, parameters if many else [parameters], state)

        event.listen(connection, "before_execute", begins)
        event.listen(connection, "after_cursor_execute", executed)
        event.listen(connection, "commit", lambda _: self._committed())
        event.listen(connection, "rollback", lambda _: self._rolled_back())
        event.listen(connection, "savepoint", lambda *_: self._spoil_transaction("uses a savepoint"))

    def finish(self) -> None:
        """The migration is through, or has failed; its connection is about to serve another tenant."""

    def configured(self, context: MigrationContext, options: Mapping[str, Any]) -> None:
        """env.py has configured Alembic.

        Args:
            context: what came of it.
            options: what it was given.
        """
        if self.options is not None:
            self.spoil("env.py configures Alembic twice")
        self.options = what_matters(options)
        self._version = context._version
        self._memo = context.impl.memo
        bare = self._version.to_metadata(MetaData(), schema=None)  # type: ignore[arg-type]  # the new MetaData's
        self._create_version_table = str(CreateTable(bare, if_not_exists=True).compile(dialect=context.dialect)).strip()
        self._let_execute(context)

    def revision_begins(self, revision: str, heads: Collection[str]) -> None:
        """A revision is about to run on a tenant at ``heads``."""
        if self._before is None:
            self._before = tuple(sorted(heads))
        self._revisions.append(revision)
        self._running = True

    def revision_ends(self, heads: Collection[str]) -> None:
        """A revision is through, and the version table says ``heads``; the commit is still to come."""
        self._after = tuple(sorted(heads))
        self._running = False

    def _executed(self, cursor: Any, statement: str, parameters: Sequence[Any], state: Any) -> None:
        if not self._running:
            if not self._alembic:
                self.spoil(f"env.py runs SQL of its own: {_short(statement)}")
            return
        if _LASTING.search(statement):
            self._lasting = self._lasting or f"follows what changes its session: {_short(statement)}"
            self._spoil_transaction(f"changes its session: {_short(statement)}")
        elif cursor.description is not None and not self._resultless:
            self._spoil_transaction(f"reads the database: {_short(statement)}")
        elif state is not None and state.execution_options.get("isolation_level", self._isolation) != self._isolation:
            self._spoil_transaction("changes the isolation level")
        elif not _REPLAYABLE.match(statement):
            self._spoil_transaction(f"runs what needs a session of its own: {_short(statement)}")
        else:
            try:
                self._statements.extend(as_sql(statement, each) for each in parameters)
            except NotWritable as error:
                self._spoil_transaction(str(error))

    def _committed(self) -> None:
        if self._running:
            self._spoil_transaction("commits by itself, or runs outside a transaction")
            return
        if self._before is None or self._after is None:
            return
        made = self._create_version_table if not self._before else None
        step = Step(tuple(self._revisions), self._before, self._after, tuple(self._statements), made)
        self.transactions.append(Recorded(step, self._spoilt, bool(self._memo)))
        self._forget()

    def _rolled_back(self) -> None:
        if self._running or self._statements or self._revisions:
            self.spoil("a transaction was rolled back")

    def _forget(self) -> None:
        self._statements, self._revisions = [], []
        self._before = self._after = None
        self._spoilt = self._lasting

    def _spoil_transaction(self, reason: str) -> None:
        self._spoilt = self._spoilt or reason

    def _let_execute(self, context: MigrationContext) -> None:
        execute = context.impl.execute

        def resultless(*args: Any, **options: Any) -> None:
            self._resultless = True
            try:
                execute(*args, **options)
            finally:
                self._resultless = False

        context.impl.execute = resultless  # type: ignore[method-assign]


def what_matters(options: Mapping[str, Any]) -> dict[str, Any]:
    """Of what env.py configures Alembic with, that on which a revision's SQL may depend."""
    return {name: value for name, value in options.items() if name not in _IRRELEVANT}


def compared(first: Sequence[Recorded], second: Sequence[Recorded]) -> list[Recorded]:
    """What two tenants' recordings have in common.

    Returns:
        The first one's transactions, each with the reason why it must not be replayed where there is one; empty where
        the two took different ways.
    """
    if [each.step.revisions for each in first] != [each.step.revisions for each in second]:
        return []
    return [_compared(one, other) for one, other in zip(first, second, strict=True)]


def _compared(one: Recorded, other: Recorded) -> Recorded:
    if one.reason or other.reason or one.step == other.step:
        return replace(one, reason=one.reason or other.reason)
    for mine, its in zip(one.step.statements, other.step.statements, strict=False):
        if mine != its:
            return replace(one, reason=f"differs from tenant to tenant: {_short(mine)}")
    return replace(one, reason="differs from tenant to tenant")


def _short(statement: str) -> str:
    line = " ".join(statement.split())
    return line if len(line) <= 60 else f"{line[:57]}..."
