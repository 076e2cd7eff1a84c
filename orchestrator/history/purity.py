"""Whether what a revision sends can depend on anything but its own file: the static half of compile once, replay many.

Two tenants that were sent the same do not prove that the five hundredth would be. So this is a whitelist: whatever is
not known to read nothing makes a revision impure, and it then goes through Alembic for every tenant. It is written
against slips, not against an author who hides what he does.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from orchestrator.history.outside import foreign
from orchestrator.history.scopes import Names, walk
from orchestrator.history.shared_state import changes, fleeting, unordered
from orchestrator.history.source import unreached


@dataclass(frozen=True, slots=True)
class Impurity:
    """The first thing in a revision that stands against replaying it."""

    #: For people, without the revision: ``op.get_bind gives it a connection``.
    reason: str
    #: 1-based line in the revision file.
    line: int


def impurity(file: Path, direction: str) -> Impurity | None:
    """Find what stands against sending one tenant's statements of this revision to another, on PostgreSQL.

    On SQLite, Alembic's batch mode reads the table it copies; that is not looked for here.

    Args:
        file: the Python source of the revision.
        direction: ``upgrade`` or ``downgrade``. What only the other one reaches does not count, except for state that
            it leaves behind.

    Returns:
        The first finding in the order of the file; ``None`` where the file alone decides what is sent.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" in a string: Python says so when Alembic loads the file
            tree = ast.parse(file.read_bytes())
        reader = _Reader(tree, unreached(tree, direction))
        reader.read()
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return Impurity(f"cannot be read: {type(error).__name__}", getattr(error, "lineno", None) or 1)
    found = chain(reader.found, _arguments(tree, direction))
    return min(found, key=lambda one: one.line, default=None)


def _arguments(tree: ast.Module, direction: str) -> Iterator[Impurity]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == direction and any(ast.iter_child_nodes(node.args)):
            yield Impurity(f"{direction}() takes arguments from env.py", node.lineno)


class _Reader:
    """One walk over a file."""

    def __init__(self, tree: ast.Module, unreached: frozenset[ast.AST]) -> None:
        self.found: list[Impurity] = []
        self._tree = tree
        self._unreached = unreached
        self._generators = frozenset(
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef)
            and any(isinstance(inner, ast.Yield | ast.YieldFrom) for inner in ast.walk(node))
        )

    def read(self) -> None:
        """Fill ``found``."""
        walk(self._tree, self._visit)

    def _visit(self, node: ast.AST, parents: Sequence[ast.AST], names: Names) -> None:
        for reason in self._faults(node, parents, names):
            self.found.append(Impurity(reason, getattr(node, "lineno", 1)))

    def _faults(self, node: ast.AST, parents: Sequence[ast.AST], names: Names) -> Iterator[str]:
        yield from changes(node, parents, names)
        yield from fleeting(node, parents, names, self._generators)
        if isinstance(node, ast.Global):
            yield "keeps state between tenants"
        # Outside what the direction reaches only what is kept counts.
        if not names.lies_in(self._unreached):
            yield from unordered(node, parents, names)
            yield from foreign(node, parents, names)
