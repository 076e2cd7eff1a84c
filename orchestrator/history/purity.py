"""Whether what a revision sends can depend on anything but its own file: the static half of compile once, replay many.

Two tenants that were sent the same do not prove that the five hundredth would be. So this is a whitelist: whatever is
not known to read nothing makes a revision impure, and it then goes through Alembic for every tenant. It is written
against slips, not against an author who hides what he does.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from orchestrator.history.outside import foreign
from orchestrator.history.scopes import COMPREHENSIONS, Names, scope
from orchestrator.history.shared_state import changes, fleeting, unordered


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
        reader = _Reader(tree, _unreached(tree, direction))
        reader.read()
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return Impurity(f"cannot be read: {type(error).__name__}", getattr(error, "lineno", None) or 1)
    found = chain(reader.found, _arguments(tree, direction))
    return min(found, key=lambda one: one.line, default=None)


def _arguments(tree: ast.Module, direction: str) -> Iterator[Impurity]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == direction and any(ast.iter_child_nodes(node.args)):
            yield Impurity(f"{direction}() takes arguments from env.py", node.lineno)


def _unreached(tree: ast.Module, direction: str) -> frozenset[ast.AST]:
    """The functions that neither the direction's own nor the module level mentions, themselves or by others."""
    functions: dict[str, list[ast.FunctionDef]] = {}
    mentioned: list[str] = [direction]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            functions.setdefault(node.name, []).append(node)
            mentioned += _mentions([*node.decorator_list, node.args, *filter(None, [node.returns])])
        else:
            mentioned += _mentions([node])
    if direction not in functions:  # bound in another way: which function it is cannot be told
        return frozenset()
    reached: set[str] = set()
    while mentioned:
        name = mentioned.pop()
        if name in functions and name not in reached:
            reached.add(name)
            mentioned += _mentions(functions[name])
    return frozenset(node for name, nodes in functions.items() if name not in reached for node in nodes)


def _mentions(nodes: Iterable[ast.AST]) -> list[str]:
    return [inner.id for node in nodes for inner in ast.walk(node) if isinstance(inner, ast.Name)]


class _Reader:
    """One walk over a file, which knows at every node what it lies in and what names mean there."""

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
        self._parents: list[ast.AST] = []
        self._names = Names(scope(tree))
        #: Outside what the direction reaches: only what is kept counts.
        self._only_state = False

    def read(self) -> None:
        """Fill ``found``."""
        for statement in self._tree.body:
            self._walk(statement, self._tree)

    def _walk(self, node: ast.AST, parent: ast.AST) -> None:
        self._parents.append(parent)
        for reason in self._faults(node, parent):
            self.found.append(Impurity(reason, getattr(node, "lineno", 1)))
        if isinstance(node, COMPREHENSIONS):
            self._walk(node.generators[0].iter, node.generators[0])
        inside = _body(node)
        for child in ast.iter_child_nodes(node):
            if child not in inside:  # decorators, default values and bases belong to the scope around
                self._walk(child, node)
        if inside:
            names, only_state = self._names, self._only_state
            self._names, self._only_state = names.within(node), only_state or node in self._unreached
            for child in inside:
                self._walk(child, node)
            self._names, self._only_state = names, only_state
        self._parents.pop()

    def _faults(self, node: ast.AST, parent: ast.AST) -> Iterator[str]:
        names, parents = self._names, self._parents
        yield from changes(node, parents, names)
        yield from fleeting(node, parents, names, self._generators)
        if isinstance(node, ast.Global):
            yield "keeps state between tenants"
        if not self._only_state:
            yield from unordered(node, parents, names)
            yield from foreign(node, parents, names)


def _body(node: ast.AST) -> list[ast.AST]:
    """What lies in the scope that ``node`` begins; nothing where it begins none."""
    match node:
        case ast.FunctionDef(body=body) | ast.AsyncFunctionDef(body=body) | ast.ClassDef(body=body):
            return list(body)
        case ast.Lambda(body=expression):
            return [expression]
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            return list(ast.iter_child_nodes(node))
    return []
