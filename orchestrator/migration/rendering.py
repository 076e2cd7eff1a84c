"""One revision's SQL, as Alembic renders it without a database, each statement with the line that it comes from."""

from __future__ import annotations

import ast
import io
import sys
from collections.abc import Collection
from dataclasses import dataclass
from types import FrameType

from alembic.operations import Operations

from orchestrator.databases.failures import describe
from orchestrator.fleet.tenant import Tenant
from orchestrator.history.lint_sql import Statement
from orchestrator.history.offline import hidden
from orchestrator.history.world import undetermined
from orchestrator.migration import seam
from orchestrator.migration.attempt import Migrator
from orchestrator.migration.containment import is_its_own
from orchestrator.migration.scope import Progress

#: Names with which a revision connects by itself, wherever it is told to.
_CONNECTS = frozenset(
    {"create_engine", "create_async_engine", "engine_from_config", "async_engine_from_config", "connect"}
)


@dataclass(frozen=True, slots=True)
class Rendered:
    """What one function of a revision sends."""

    #: In order; what Alembic itself writes is not among them.
    statements: tuple[Statement, ...] = ()
    #: Why there may be more; ``None`` where this is all.
    unseen: str | None = None
    #: 1-based line in the file that ``unseen`` is about.
    line: int = 1


def render_revision(migrator: Migrator, tenant: Tenant, revision: str, direction: str) -> Rendered:
    """Run a revision's ``upgrade()`` or ``downgrade()`` as ``--sql`` does; :func:`seam.installed` surrounds it.

    A revision that makes connections of its own is not run: it would reach a database all the same.

    Args:
        migrator: whose env.py configures Alembic.
        tenant: as whose the SQL is rendered.
        revision: its full identifier.
        direction: ``upgrade`` or ``downgrade``.
    """
    file = migrator.history.file(revision)
    tree = ast.parse(file.read_bytes())
    if (found := _connects(tree)) is not None:
        return Rendered((), f"it is not run here: it uses {found[0]}, and may connect by itself", found[1])
    module = migrator.history.script.get_revision(revision).module
    buffer = _Located({str(file), str(module.__file__)})
    options = {"as_sql": True, "output_buffer": buffer, "fn": lambda *_: []}
    with migrator.environment(tenant, options, Progress()) as environment:
        migrator.loop.migrate(None, tenant)
        # From here on it is the revision that writes.
        buffer.statements.clear()
        with seam.speaking(Operations(environment.get_context())):
            try:
                getattr(module, direction)()
            except BaseException as error:
                if not is_its_own(error):
                    raise
                unseen = f"{direction}() cannot be rendered without a database: {type(error).__name__}"
                message = describe(error).message
                unseen += f": {message}" if message else ""
                return Rendered(tuple(buffer.statements), unseen, _line_of(error, buffer.files))
    if (found := hidden(tree, direction)) is not None:
        unseen = f"{direction}() {found[0]}: what it would do with a database is not seen"
        return Rendered(tuple(buffer.statements), unseen, found[1])
    if (found := undetermined(tree, direction)) is not None:
        unseen = f"{direction}() {found[0]}: what it sends elsewhere is not seen"
        return Rendered(tuple(buffer.statements), unseen, found[1])
    return Rendered(tuple(buffer.statements))


class _Located(io.StringIO):
    """Takes a script, and keeps which line of a revision wrote which piece of it."""

    def __init__(self, files: Collection[str]) -> None:
        super().__init__()
        self.files = files
        self.statements: list[Statement] = []

    def write(self, text: str) -> int:
        """Note who writes, where it is the revision."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename not in self.files:
            frame = frame.f_back
        if frame is not None and text.strip():
            self.statements.append(Statement(text.strip(), frame.f_lineno))
        return super().write(text)


def _line_of(error: BaseException, files: Collection[str]) -> int:
    """The innermost line of the revision that raised."""
    line, trace = 1, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in files:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _connects(tree: ast.Module) -> tuple[str, int] | None:
    """The first name in a file by which it connects to something, and its line."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name) | ast.Name(id=name) if name in _CONNECTS:
                return name, node.lineno
    return None
