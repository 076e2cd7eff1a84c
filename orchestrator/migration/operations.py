"""What ``upgrade()`` of a revision would ask Alembic for, found by running it with nothing behind ``op``."""

from __future__ import annotations

import ast
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from alembic.operations import BatchOperations, Operations
from alembic.operations.batch import BatchOperationsImpl
from alembic.operations.ops import CreateTableOp, MigrateOperation
from alembic.runtime.migration import MigrationContext

from orchestrator.databases.failures import describe
from orchestrator.fleet.tenant import Tenant
from orchestrator.migration import seam
from orchestrator.migration.attempt import Migrator
from orchestrator.migration.containment import is_its_own
from orchestrator.migration.scope import Progress

#: Names with which a revision reaches the database beside ``op``, or finds out that none is there.
_ASIDE = frozenset(
    {"get_bind", "as_sql", "is_offline_mode", "connection", "bind", "Session", "create_engine", "inspect"}
)
#: What the purity of a revision that only leaves its transaction is held against: it is seen all the same.
_SEEN = ("op.get_context", "autocommit_block")


@dataclass(frozen=True, slots=True)
class Recorded:
    """One revision's operations."""

    revision: str
    operations: tuple[MigrateOperation, ...]
    #: Why there may be more than was seen, from its beginning; ``None`` where what was seen is all.
    unseen: str | None = None
    #: Why it did not come to its end; ``None`` where it did.
    cut_off: str | None = None


def record(migrator: Migrator, tenant: Tenant, revision: str) -> Recorded:
    """Run a revision's ``upgrade()`` with a recorder in the place of ``op``; :func:`seam.installed` surrounds it.

    As with ``--sql`` there is no connection: what it would read from the database it cannot.

    Args:
        migrator: whose env.py configures Alembic.
        tenant: any that the revision is pending for.
        revision: its full identifier.
    """
    found: list[MigrateOperation] = []
    options = {"as_sql": True, "output_buffer": io.StringIO(), "fn": lambda *_: []}
    cut_off = None
    with migrator.environment(tenant, options, Progress()) as environment:
        migrator.loop.migrate(None, tenant)
        with seam.speaking(_Recorder(environment.get_context(), found)):
            try:
                migrator.history.script.get_revision(revision).module.upgrade()
            except BaseException as error:
                if not is_its_own(error):
                    raise
                cut_off = f"{type(error).__name__}: {describe(error).message}"
    return Recorded(revision, tuple(found), _unseen(migrator, revision), cut_off)


class _Recorder(Operations):
    """Stands where Alembic's operations do, and keeps what it is asked for."""

    def __init__(self, context: MigrationContext, found: list[MigrateOperation]) -> None:
        super().__init__(context)
        self._found = found

    def invoke(self, operation: MigrateOperation) -> Any:
        """Keep ``operation``."""
        self._found.append(operation)
        return operation.to_table(self.migration_context) if isinstance(operation, CreateTableOp) else None

    @contextmanager
    def batch_alter_table(
        self, table_name: str, schema: str | None = None, *_: Any, **__: Any
    ) -> Iterator[BatchOperations]:
        """The same operations for one table; the other arguments say how they would be carried out."""
        impl = BatchOperationsImpl(self, table_name, schema, "never", None, (), {}, (), {}, None, ())  # type: ignore[no-untyped-call]
        yield _BatchRecorder(self.migration_context, impl, self._found)


class _BatchRecorder(BatchOperations):
    def __init__(self, context: MigrationContext, impl: BatchOperationsImpl, found: list[MigrateOperation]) -> None:
        super().__init__(context, impl=impl)
        self._found = found

    def invoke(self, operation: MigrateOperation) -> Any:
        self._found.append(operation)


def _unseen(migrator: Migrator, revision: str) -> str | None:
    """Whether the revision may do more, where there is a database, than it did without one."""
    tree = ast.parse(migrator.history.file(revision).read_bytes())
    for node in ast.walk(tree):
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else None
        if name in _ASIDE:
            return f"it uses {name} (line {getattr(node, 'lineno', 1)})"
    impurity = migrator.history.impurity(revision, "upgrade")
    if impurity is None or impurity.reason.startswith(_SEEN):
        return None
    return f"{impurity.reason} (line {impurity.line})"
