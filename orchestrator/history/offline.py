"""Whether a revision may do more, where there is a database, than it does when its SQL is rendered without one. Pure.

Without a database ``op.get_bind()`` gives a stand-in of Alembic's that writes what it is told to execute into the
script, and has no rows to give. Who asks it for some fails, and everybody sees that. Who only tells it something, asks
for its dialect, or hands it to ``Enum.create()`` does the same as ever.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from orchestrator.history.source import called, functions_of, reached

#: Names with which a revision finds out that no database is there, or goes around the stand-in.
_ASIDE = frozenset({"as_sql", "is_offline_mode", "connection", "bind", "Session", "sessionmaker", "inspect"})
_GET_BIND = "get_bind"
#: Methods that only write when they are given the stand-in.
_WRITE = frozenset({"create", "drop", "create_all", "drop_all"})
_EXECUTE = frozenset({"execute", "exec_driver_sql"})


def hidden(tree: ast.Module, direction: str) -> tuple[str, int] | None:
    """The first thing in a revision that keeps its rendered SQL from being all: what it is, and its line.

    Args:
        tree: of its file.
        direction: ``upgrade`` or ``downgrade``; what only the other one reaches does not count.
    """
    found: list[tuple[str, int]] = []
    for function in reached(functions_of(tree), direction):
        found += _in(function)
    return min(found, key=lambda one: one[1], default=None)


def _in(function: ast.FunctionDef) -> Iterator[tuple[str, int]]:
    parents = {child: node for node in ast.walk(function) for child in ast.iter_child_nodes(node)}
    connections = {
        target.id
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and _gives_connection(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(function):
        match node:
            case ast.ExceptHandler():
                yield "catches errors, which there may be without a database only", node.lineno
            case ast.Name(id=name, ctx=ast.Load()) if name in connections:
                yield from _use(node, name, parents)
            case ast.Attribute(attr=name) | ast.Name(id=name, ctx=ast.Load()) if name in _ASIDE:
                yield f"uses {name}", node.lineno
            case ast.Call() if _gives_connection(node):
                yield from _use(node, _GET_BIND, parents)


def _gives_connection(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and called(node) == _GET_BIND


def _use(node: ast.expr, name: str, parents: Mapping[ast.AST, ast.AST]) -> Iterator[tuple[str, int]]:
    """Say what is done with the connection, where that is not known to be harmless."""
    parent = parents[node]
    if isinstance(parent, ast.keyword):
        parent = parents[parent]
    match parent:
        case ast.Assign(targets=[ast.Name()]) | ast.Attribute(attr="dialect") | ast.Expr():
            return
        case ast.Call(func=ast.Attribute(attr=method, value=on)) if method in _WRITE and on is not node:
            return
        case ast.Attribute(attr=method) if method in _EXECUTE and isinstance(parents.get(parents[parent]), ast.Expr):
            # Its result is nobody's.
            return
    yield f"reads by {name}", node.lineno
