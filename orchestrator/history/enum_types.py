"""ENUM types that a revision makes and does not take away again: PostgreSQL keeps them when their tables go. Pure."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

from orchestrator.history.source import called, constants, functions_of, keyword, reached, sql_of

_NAME = r"(?:(?:\"[^\"]+\"|\w+)\s*\.\s*)?(\"[^\"]+\"|\w+)"
_CHANGE = re.compile(
    rf"\bCREATE\s+TYPE\s+{_NAME}\s+AS\s+ENUM\b"
    rf"|\bALTER\s+TYPE\s+{_NAME}\s+RENAME\s+TO\s+(\"[^\"]+\"|\w+)"
    rf"|\bDROP\s+TYPE\s+(?:IF\s+EXISTS\s+)?((?:{_NAME}\s*,\s*)*{_NAME})",
    re.IGNORECASE,
)
_EACH = re.compile(_NAME)
_ENUMS = frozenset({"Enum", "ENUM"})


def left_over(forward: Sequence[str], back: Sequence[str]) -> dict[str, int]:
    """The types that are there after ``forward`` and ``back`` and were not before, with the statement that makes each.

    A type that takes the place of one that was renamed or dropped before it is not new.

    Args:
        forward: statements of ``upgrade``.
        back: statements of ``downgrade``.

    Returns:
        Name to the number, from 0, of the statement in ``forward``.
    """
    new: dict[str, int] = {}
    gone: set[str] = set()
    for number, statement in enumerate(forward):
        for verb, name, to in _changes(statement):
            if verb == "create" and name not in gone:
                new[name] = number
            elif verb == "rename" and name in new:
                new[to] = new.pop(name)
            elif verb != "create":
                new.pop(name, None)
                gone.add(name)
    for statement in back:
        for verb, name, _ in _changes(statement):
            if verb != "create":
                new.pop(name, None)
    return new


def left_over_in_source(tree: ast.Module) -> dict[str, int]:
    """The same from the source, for a revision that cannot be rendered: type to the line that makes it."""
    objects = _objects(tree)
    made, dropped = dict(_made(tree, "upgrade", objects)), dict(_dropped(tree, objects))
    return {name: line for name, line in made.items() if name not in dropped}


def _changes(sql: str) -> Iterator[tuple[str, str, str]]:
    for found in _CHANGE.finditer(sql):
        if found[1]:
            yield "create", _bare(found[1]), ""
        elif found[2]:
            yield "rename", _bare(found[2]), _bare(found[3])
        else:
            for name in _EACH.finditer(found[4]):
                yield "drop", _bare(name[1]), ""


def _bare(name: str) -> str:
    return name.strip('"')


def _made(tree: ast.Module, function: str, objects: dict[str, str]) -> Iterator[tuple[str, int]]:
    for call in _calls(tree, function):
        name = called(call)
        if name == "create":
            yield from ((one, call.lineno) for one in _meant(call, objects))
        elif name == "create_table":
            # SQLAlchemy makes the types of a table's columns with it.
            inner = (node for node in ast.walk(call) if isinstance(node, ast.Call | ast.Name))
            yield from ((one, call.lineno) for node in inner if (one := _type(node, objects)) and not _kept(node))
        elif name == "execute":
            changes = _changes(sql_of(call, constants(tree)) or "")
            yield from ((one, call.lineno) for verb, one, _ in changes if verb == "create")


def _dropped(tree: ast.Module, objects: dict[str, str]) -> Iterator[tuple[str, int]]:
    for call in _calls(tree, "downgrade"):
        if called(call) == "drop":
            yield from ((one, call.lineno) for one in _meant(call, objects))
        elif called(call) == "execute":
            changes = _changes(sql_of(call, constants(tree)) or "")
            yield from ((one, call.lineno) for verb, one, _ in changes if verb != "create")


def _calls(tree: ast.Module, function: str) -> Iterator[ast.Call]:
    for node in reached(functions_of(tree), function):
        yield from (call for call in ast.walk(node) if isinstance(call, ast.Call))


def _meant(call: ast.Call, objects: dict[str, str]) -> Iterator[str]:
    """The type whose ``create()`` or ``drop()`` is called."""
    on = call.func.value if isinstance(call.func, ast.Attribute) else None
    if on is not None and (name := _type(on, objects)) is not None:
        yield name


def _type(node: ast.AST, objects: dict[str, str]) -> str | None:
    if isinstance(node, ast.Name):
        return objects.get(node.id)
    if isinstance(node, ast.Call) and called(node) in _ENUMS:
        name = keyword(node, "name")
        return name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else None
    return None


def _kept(node: ast.AST) -> bool:
    """Whether a column's type is made by somebody else."""
    made = keyword(node, "create_type") if isinstance(node, ast.Call) else None
    return isinstance(made, ast.Constant) and made.value is False


def _objects(tree: ast.Module) -> dict[str, str]:
    """Names of types, by the variable that stands for one."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and (name := _type(node.value, {})) is not None:
            found.update((target.id, name) for target in node.targets if isinstance(target, ast.Name))
    return found
